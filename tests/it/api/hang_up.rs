//! Clients that hang up in the middle: what a request changes is done whole or not at all.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use nucleus::db::secret_intent;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{bearer, by_token, pinned, request, start, versions};
use crate::harness::{OPERATOR_KEY, TestApp};

/// How many clients hang up.
const CLIENTS: usize = 500;
/// How many are there at the same time.
const AT_ONCE: usize = 16;

#[expect(
    clippy::disallowed_methods,
    reason = "a client's patience is on the machine's clock"
)]
async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Sends so many bytes, waits and hangs up without reading.
async fn hang_up(address: &str, bytes: &[u8], after: Duration) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    wait(after).await;
}

/// Waits until every handler that goes on without a client is done.
async fn settle(app: &TestApp) {
    let mut quiet = 0;
    while quiet < 20 {
        wait(Duration::from_millis(10)).await;
        // The server itself is one.
        quiet = if app.app.tasks.len() <= 1 {
            quiet + 1
        } else {
            0
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_an_integration_or_nothing() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let app = start().await;
    let address = app.url.strip_prefix("http://").unwrap();
    let key = bearer(OPERATOR_KEY);
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ];
    let mut clients = Vec::new();
    for _ in 0..CLIENTS / 8 + 1 {
        let entity = app.entity().await;
        for service in [
            "github",
            "google_calendar",
            "notion",
            "slack",
            "google_drive",
            "linkedin",
            "twitter",
            "spotify",
        ] {
            let body = by_token(&entity, service).to_string();
            let mut bytes = request("POST", "/integrations", &headers, body.as_bytes());
            // Most send everything, some break off.
            if random.random_ratio(1, 5) {
                bytes.truncate(random.random_range(1..bytes.len()));
            }
            // Half of them are gone while their request is at work, most of the others after it.
            let most = if random.random_bool(0.5) {
                2_000
            } else {
                50_000
            };
            clients.push((bytes, Duration::from_micros(random.random_range(0..most))));
        }
    }
    clients.truncate(CLIENTS);
    let whole = clients
        .iter()
        .filter(|(bytes, _)| bytes.ends_with(b"}"))
        .count();
    stream::iter(&clients)
        .for_each_concurrent(AT_ONCE, |(bytes, after)| hang_up(address, bytes, *after))
        .await;
    settle(&app).await;
    let rows = pinned(&app).await;
    let kept = versions(&app);
    println!("{} of {whole} whole requests were carried out", rows.len());
    assert!(
        rows.len() >= CLIENTS / 10 && rows.len() <= whole,
        "seed {seed}"
    );
    let without_secret: Vec<_> = rows.difference(&kept).collect();
    assert!(without_secret.is_empty(), "seed {seed}: {without_secret:?}");
    // A secret without a row is announced by an intent.
    let intents = intents(&app).await;
    for path in kept.difference(&rows) {
        let name = path.split('/').next().unwrap();
        assert!(intents.contains(name), "seed {seed}: {path}");
    }
    app.clock.advance(TimeDelta::hours(2));
    app.tick().await;
    assert_eq!(versions(&app), rows, "seed {seed}");
    assert!(self::intents(&app).await.is_empty(), "seed {seed}");
}

async fn intents(app: &TestApp) -> BTreeSet<String> {
    let later = app.app.now() + TimeDelta::days(1);
    let found = secret_intent::older_than(&app.app.engine.db, later, 10_000).await;
    found
        .unwrap()
        .into_iter()
        .map(|intent| intent.secret_name)
        .collect()
}
