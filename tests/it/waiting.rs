//! Waiting for other processes, which go by the machine's clock.

use std::{future::Future, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// Nothing here takes that long, even on a machine with much else to do: what does most is the Pub/Sub emulator,
/// which goes on for up to a minute to hand messages to readers that were killed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks until it is so; whether it was in time.
#[expect(
    clippy::disallowed_methods,
    reason = "another process is watched, on the machine's clock"
)]
pub async fn happens(within: Duration, mut look: impl AsyncFnMut() -> bool) -> bool {
    let looks = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, looks).await.is_ok()
}

/// Waits until a server has read the head of a request that expects `100-continue`, and asks for its body.
pub async fn is_asked_for_the_body(socket: &mut TcpStream) {
    const ASKS: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut read = [0; ASKS.len()];
    in_time(PATIENCE, socket.read_exact(&mut read))
        .await
        .unwrap();
    assert_eq!(read, ASKS);
}

/// Lets another process go on for so long, because the moment is what a test is about.
#[expect(
    clippy::disallowed_methods,
    reason = "a random moment is one by the machine's clock"
)]
pub async fn moment(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Fails unless it is done in time.
pub async fn in_time<T>(within: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(within, work)
        .await
        .unwrap_or_else(|_| panic!("not done after {within:?}"))
}
