//! What tests make up: small mailboxes, mail that arrives, and a server for doubles of endpoints that
//! the stand-in does not play.

pub mod authorization_server;
pub mod failure;
pub mod github;
pub mod secret_manager;
pub mod vendor;

use nucleus::demo::{Arrival, Mailbox, Raw, generate};
use tokio::net::TcpListener;

/// A mailbox of `count` plain messages in the inbox, unread.
pub fn small_mailbox(count: u64) -> Mailbox {
    let mut mailbox = Mailbox::new("me@example.com", count);
    for serial in 0..count {
        mailbox.place(Arrival {
            id: None,
            thread: None,
            internal_date_ms: None,
            labels: vec!["INBOX".to_owned(), "UNREAD".to_owned()],
            raw: Raw::Bytes(generate::arrival(serial, 1).into()),
        });
    }
    mailbox
}

/// Serves a double of a provider's endpoint for as long as the test lives; gives its URL.
pub async fn serve(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// New mail, one for each number.
pub fn mail(serial: u64) -> Vec<u8> {
    generate::arrival(1_000_000 + serial, 1)
}
