//! Addresses that a caller makes up: whatever a caller can set that looks like an address, the program connects
//! to none of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nucleus::demo::{Mailbox, Method};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{OWNER, assert_is_problem, fields};
use crate::{
    harness::Setting,
    waiting::{PATIENCE, happens},
};

/// Names of this machine, as programs have taken them for another: in other bases, shortened, mapped, with
/// what a check may not see through.
const HOSTS: [&str; 12] = [
    "127.0.0.1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "[::ffff:127.0.0.1]",
    "app.example@127.0.0.1",
];
/// How the rest is written around a host and a port.
const SHAPES: [&str; 7] = [
    "http://{}/token",
    "https://{}/token",
    "HTTP://{}",
    "http:{}",
    "//{}/token",
    "http://{}/?x=https://app.example/",
    "http://{}\\@app.example/",
];

/// What listens where the addresses lead, and counts who comes.
struct Listener {
    address: SocketAddr,
    came: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Listener {
    async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            came,
            task,
        }
    }

    /// Everything that leads here, and what leads to where clouds keep credentials.
    fn targets(&self) -> Vec<String> {
        let mut targets = Vec::new();
        for host in HOSTS {
            for shape in SHAPES {
                let authority = format!("{host}:{}", self.address.port());
                targets.push(shape.replace("{}", &authority));
            }
        }
        targets.extend(
            [
                "http://169.254.169.254/computeMetadata/v1/",
                "http://metadata.google.internal/computeMetadata/v1/",
                "file:///etc/passwd",
            ]
            .map(str::to_owned),
        );
        targets
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_that_a_caller_makes_up_is_connected_to() {
    let listener = Listener::start().await;
    let targets = listener.targets();
    assert!(targets.len() >= 80, "{}", targets.len());
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .variable("NUCLEUS_HTTP__RETURN_TO", "https://app.example")
        .start()
        .await;
    let entity = app.entity().await;
    let id = app.connect_for(&entity, json!({})).await;
    let path = format!("/integrations/{id}");
    let other = app.entity().await;
    let connection = super::gmail(&app, &other);
    for target in &targets {
        let refused = async |method: &str, path: &str, body: Value, field: &str| {
            let (_, answer) = app.send(method, path, Some(body)).await;
            assert_is_problem(&answer, 422, "invalid_fields");
            let complained = fields(&answer);
            let fits = complained.iter().any(|found| found.starts_with(field));
            assert!(fits, "{target}: {field} is not among {complained:?}");
        };
        let mut body = connection.clone();
        body["credentials"]["token_uri"] = json!(target);
        refused("POST", "/integrations/", body, "credentials").await;
        let credentials = json!({"refresh_token": "x", "token_uri": target});
        let body = json!({"credentials": credentials});
        refused("PATCH", &path, body, "credentials").await;
        for name in ["api_url", "token_url", "webhook_url", "base_url"] {
            let mut body = json!({"sync_settings": {}});
            body["sync_settings"][name] = json!(target);
            refused("PATCH", &path, body, "sync_settings").await;
        }
        let body = json!({"entity_id": entity, "return_to": target});
        refused("POST", "/integrations/gmail/oauth/start", body, "return_to").await;
        // The owner's own settings are kept as they are, and mean nothing to the program.
        let config = json!({
            "api_url": target, "token_uri": target, "token_url": target, "base_url": target,
            "proxy": target, "webhook_url": target, "callback": {"url": target},
        });
        let body = Some(json!({"config": config.clone()}));
        let (status, answer) = app.send("PATCH", &path, body).await;
        assert_eq!((status, &answer["config"]), (200, &config), "{target}");
        // Who answers may name an issuer, which is compared and not asked.
        let body = json!({"entity_id": other});
        let begun = app.post("/integrations/gmail/oauth/start", body).await;
        let answer = json!({"state": begun["state"], "code": "x", "iss": target});
        let callback = "/integrations/gmail/oauth/callback";
        let (status, answer) = app.send("POST", callback, Some(answer)).await;
        assert!((400..500).contains(&status), "{target}: {status} {answer}");
    }
    let asked = app.google.served(Method::Token);
    let (status, tested) = app.send("POST", &format!("{path}/test"), None).await;
    assert_eq!(
        (status, &tested["is_valid"]),
        (200, &json!(true)),
        "{tested}"
    );
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert!(app.google.served(Method::Token) > asked);
    assert_eq!(listener.came.load(Ordering::SeqCst), 0);
    // Whoever had come would have been seen.
    TcpStream::connect(listener.address).await.unwrap();
    let came = async || listener.came.load(Ordering::SeqCst) == 1;
    assert!(happens(PATIENCE, came).await);
}
