//! Clients that hang up in the middle: what a request changes is done whole or not at all, and who
//! repeats it under its key finds it done once.
//!
//! `NUCLEUS_HANG_UPS` says how many clients hang up; 2,000 are the full run. `NUCLEUS_SEED` says when
//! they do; the seed is printed.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use nucleus::db::secret_intent;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Answer, bearer, by_token, exchange, pinned, request, start, versions};
use crate::{
    child::{PATIENCE, in_time},
    harness::{OPERATOR_KEY, TestApp},
    kills::seed,
};

/// How many clients hang up, if the tester does not say.
const CLIENTS: usize = 400;
/// How many are there at the same time.
const AT_ONCE: usize = 16;
/// One of so many hangs up on its answer only, so that some are carried out however slow the machine is.
const HEARS_ONE_IN: usize = 8;
/// The others hang up within so many microseconds.
const MOST_MICROSECONDS: u64 = 50_000;
/// Services that are connected by a token.
const SERVICES: [&str; 8] = [
    "github",
    "google_calendar",
    "notion",
    "slack",
    "google_drive",
    "linkedin",
    "twitter",
    "spotify",
];

#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn clients() -> usize {
    let given = std::env::var("NUCLEUS_HANG_UPS").ok();
    given.map_or(CLIENTS, |text| text.parse().unwrap())
}

/// A request that connects a service.
struct Client {
    bytes: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// How long after that the client hangs up; otherwise it does when its answer begins.
    after: Option<Duration>,
    /// Whether it has a key to be repeated under.
    has_key: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client's patience is on the machine's clock"
)]
async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Sends so many bytes, waits and hangs up without reading the answer.
async fn hang_up(address: &str, client: &Client) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(&client.bytes[..client.sent]).await;
    match client.after {
        Some(after) => wait(after).await,
        None => {
            let begun = in_time(PATIENCE, socket.read(&mut [0])).await;
            assert_eq!(begun.unwrap(), 1, "no answer");
        }
    }
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

/// Each with a service of an entity of its own.
async fn make_clients(app: &TestApp, number: usize, random: &mut StdRng) -> Vec<Client> {
    let operator = bearer(OPERATOR_KEY);
    let mut entity = String::new();
    let mut clients = Vec::new();
    for index in 0..number {
        let service = SERVICES[index % SERVICES.len()];
        if index % SERVICES.len() == 0 {
            entity = app.entity().await;
        }
        let key = index.to_string();
        let mut headers = vec![
            ("authorization", operator.as_str()),
            ("content-type", "application/json"),
        ];
        let has_key = random.random_bool(0.5);
        if has_key {
            headers.push(("idempotency-key", &key));
        }
        let body = by_token(&entity, service).to_string();
        let bytes = request("POST", "/integrations", &headers, body.as_bytes());
        let hears = index % HEARS_ONE_IN == 0;
        // Most send everything, some break off.
        let sent = match !hears && random.random_ratio(1, 5) {
            true => random.random_range(1..bytes.len()),
            false => bytes.len(),
        };
        // Half of them are gone while their request is at work, most of the others after it.
        let most = match random.random_bool(0.5) {
            true => MOST_MICROSECONDS / 10,
            false => MOST_MICROSECONDS,
        };
        clients.push(Client {
            bytes,
            sent,
            after: (!hears).then(|| Duration::from_micros(random.random_range(0..most))),
            has_key,
        });
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_an_integration_or_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let app = start().await;
    let address = app.url.strip_prefix("http://").unwrap();
    let clients = make_clients(&app, clients(), &mut random).await;
    stream::iter(&clients)
        .for_each_concurrent(AT_ONCE, |client| hang_up(address, client))
        .await;
    settle(&app).await;
    let whole = clients
        .iter()
        .filter(|client| client.sent == client.bytes.len())
        .count();
    let rows = pinned(&app).await;
    println!("{} of {whole} whole requests were carried out", rows.len());
    // On a machine with other work, and with databases far away, most others are gone before theirs begins.
    let heard = clients.iter().filter(|client| client.after.is_none());
    assert!(rows.len() >= heard.count() && rows.len() <= whole);
    assert_no_row_without_its_secret(&app).await;

    // Who comes again with the key gets an integration, whatever became of the first request.
    let mut replayed = 0;
    let with_key = || clients.iter().filter(|client| client.has_key);
    let mut repeats = stream::iter(with_key())
        .map(|client| exchange(&app, &client.bytes))
        .buffer_unordered(AT_ONCE);
    let mut ids = BTreeSet::new();
    while let Some(answer) = repeats.next().await {
        let answer: Answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        replayed += usize::from(answer.header("idempotent-replayed").is_some());
        ids.insert(answer.body()["id"].to_string());
    }
    println!("{replayed} of {} answers were kept", with_key().count());
    assert!(replayed > 0 && replayed < with_key().count());
    assert_eq!(ids.len(), with_key().count());
    let known: BTreeSet<String> = app
        .all("/integrations")
        .await
        .iter()
        .map(|integration: &Value| integration["id"].to_string())
        .collect();
    assert!(ids.is_subset(&known));
    assert_no_row_without_its_secret(&app).await;
    let rows = pinned(&app).await;
    assert_eq!(rows.len(), known.len());

    app.clock.advance(TimeDelta::hours(2));
    app.tick().await;
    assert_eq!(versions(&app).await, rows);
    assert!(intents(&app).await.is_empty());
}

/// And no secret without its row, but for what is announced to the sweep.
async fn assert_no_row_without_its_secret(app: &TestApp) {
    let rows = pinned(app).await;
    let kept = versions(app).await;
    let without_secret: Vec<_> = rows.difference(&kept).collect();
    assert!(without_secret.is_empty(), "{without_secret:?}");
    let intents = intents(app).await;
    for path in kept.difference(&rows) {
        let name = path.split('/').next().unwrap();
        assert!(intents.contains(name), "{path}");
    }
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
