//! Everything at once: faults at random, mail that arrives, changes and goes, before and between
//! calls, histories, page tokens and access tokens that expire. Then it is calm, and the records must
//! be the mailbox, by themselves.
//!
//! `NUCLEUS_SEED` replays one seed; every failure names the seed it came from.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use nucleus::demo::{Fault, Mailbox, Match, Method};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::{
    doubles::{mail, small_mailbox},
    harness::{Setting, TestApp, assert_adds_up},
};

/// Syncs of one seed before it is calm.
const ROUNDS: usize = 14;
/// Methods whose calls the mailbox may change just before.
const WATCHED: [Method; 4] = [
    Method::MessagesList,
    Method::MessagesGet,
    Method::HistoryList,
    Method::LabelsList,
];

/// What a seed did, so that one that did nothing is found out.
#[derive(Debug, Default)]
struct Done {
    faults: usize,
    resyncs: usize,
    partial: usize,
    failed: usize,
    cancelled: usize,
    deleted: i64,
    updated: i64,
    gone: i64,
}

/// One change of the mailbox, drawn from `seed`.
fn change(mailbox: &mut Mailbox, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let ids = mailbox.ids();
    for _ in 0..random.random_range(1..4) {
        let Some(id) = ids.choose(&mut random) else {
            return;
        };
        match random.random_range(0..10) {
            0..3 => drop(mailbox.deliver(mail(random.random()), &["INBOX", "UNREAD"])),
            3 => drop(mailbox.deliver(mail(random.random()), &["SPAM"])),
            4 => drop(mailbox.relabel(id, &["STARRED"], &["UNREAD"])),
            5 => drop(mailbox.relabel(id, &["UNREAD"], &["STARRED", "INBOX"])),
            6 => drop(mailbox.relabel(id, &["TRASH"], &["INBOX"])),
            7 => drop(mailbox.relabel(id, &["INBOX"], &["TRASH", "SPAM"])),
            _ => drop(mailbox.delete(id)),
        }
    }
}

/// Makes a round's trouble: faults by chance and changes just before some calls.
fn trouble(app: &TestApp, random: &mut StdRng, faults: &[Fault], per_mille: &[u32]) {
    let rate = *per_mille.choose(random).unwrap();
    app.google.calm();
    app.google.chaos(random.random(), rate, faults.to_vec());
    for _ in 0..random.random_range(0..6) {
        let method = *WATCHED.choose(random).unwrap();
        let nth = random.random_range(1..30);
        let (seed, forget) = (random.random(), random.random_bool(0.15));
        app.google
            .on(Match::method(method).nth(nth), move |mailbox| {
                change(mailbox, seed);
                if forget {
                    mailbox.expire_history();
                }
            });
    }
    for _ in 0..random.random_range(0..8) {
        let seed = random.random();
        app.google.with_mailbox(|mailbox| change(mailbox, seed));
    }
    match random.random_range(0..10) {
        0 | 1 => app.google.with_mailbox(Mailbox::expire_history),
        2 => app.google.expire_access_tokens(),
        3 => app.google.expire_page_tokens(),
        4 => {
            let fault = Fault::status(503, "internal_failure");
            app.google
                .inject_times(Match::method(Method::Token), fault, 2);
            app.google.expire_access_tokens();
        }
        _ => {}
    }
    app.clock
        .advance(TimeDelta::minutes(random.random_range(0..90)));
}

fn note(done: &mut Done, run: &Value) {
    assert_adds_up(run);
    match run["status"].as_str().unwrap() {
        "success" => {}
        "cancelled" => done.cancelled += 1,
        "partial" => done.partial += 1,
        "failed" => {
            // A service that is out for long fails a run, and one that forgets its history again and
            // again while everything is listed; nothing else may.
            let code = run["error"]["code"].as_str().unwrap();
            assert!(["unavailable", "cursor_refused"].contains(&code), "{run}");
            done.failed += 1;
        }
        other => panic!("a run is {other}: {run}"),
    }
    done.resyncs += usize::from(run["mode"] == "resync");
    done.deleted += run["counts"]["deleted"].as_i64().unwrap();
    done.updated += run["counts"]["updated"].as_i64().unwrap();
    done.gone += run["counts"]["skipped"]["deleted"].as_i64().unwrap_or(0);
}

/// Syncs; the program dies somewhere in it and starts again, or somebody cancels the run.
async fn sync_with_a_kill(app: &mut TestApp, id: &str, random: &mut StdRng) -> Value {
    let run = app.request_sync(id).await;
    let method = *WATCHED.choose(random).unwrap();
    let served = app.google.served(method) + random.random_range(1..25);
    let killed = tokio::select! {
        () = app.drain() => false,
        () = app.google.wait_for(method, served) => true,
    };
    if killed {
        if random.random_bool(0.3) {
            app.post(&format!("/runs/{run}/cancel"), json!({})).await;
        }
        app.restart().await;
        app.drain().await;
    }
    app.get(&format!("/runs/{run}")).await
}

/// Lives through a seed; gives what it did and the app, synced.
async fn live(seed: u64, faults: &[Fault], per_mille: &[u32], kills: bool) -> (Done, TestApp) {
    let mut random = StdRng::seed_from_u64(seed);
    let count = random.random_range(60..160);
    let mut app = Setting::new(small_mailbox(count))
        .options(|options| options.page_size_cap = Some(25))
        // A small quota makes runs last: they are handed over, and look at the history in between.
        .variable(
            "NUCLEUS_SERVICES__GMAIL__QUOTA",
            *["2026", "off", "user_minute=200"]
                .choose(&mut random)
                .unwrap(),
        )
        .start()
        .await;
    let id = app.connect().await;
    let mut done = Done::default();
    for _ in 0..ROUNDS {
        trouble(&app, &mut random, faults, per_mille);
        let run = if kills && random.random_bool(0.4) {
            sync_with_a_kill(&mut app, &id, &mut random).await
        } else {
            app.sync(&id).await
        };
        note(&mut done, &run);
    }
    app.google.calm();
    let runs = app.sync_until_success(&id, 6).await;
    for run in &runs {
        note(&mut done, run);
    }
    // Hooks may have changed the mailbox in the last moment of the last run.
    while app.sync(&id).await["counts"]["listed"] != 0 {}
    app.assert_matches_ledger(&id).await;
    for run in app.all(&format!("/integrations/{id}/runs")).await {
        assert_adds_up(&run);
    }
    let log = app.google.requests();
    done.faults = log.iter().filter(|request| request.status >= 403).count();
    (done, app)
}

/// A message is asked for again only after an answer that failed, or where it was in spam or trash or
/// gone in between.
fn assert_no_get_in_vain(app: &TestApp) {
    let hidden: HashSet<String> = app
        .google
        .with_mailbox(|mailbox| mailbox.ledger())
        .into_iter()
        .filter(|entry| {
            entry
                .labels
                .iter()
                .any(|label| label == "SPAM" || label == "TRASH")
        })
        .map(|entry| entry.id)
        .collect();
    let mut had: HashMap<String, usize> = HashMap::new();
    for request in app.google.requests() {
        let Some(id) = request.id else { continue };
        if request.status == 200 && !hidden.contains(&id) {
            *had.entry(id).or_default() += 1;
        }
    }
    let twice: Vec<_> = had.iter().filter(|(_, count)| **count > 2).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let again = had.values().filter(|count| **count > 1).count();
    // Those that were fetched while in trash and came back later.
    assert!(
        again * 20 <= had.len(),
        "{again} of {} were had twice",
        had.len()
    );
}

fn seeds(first: u64, count: u64) -> Vec<u64> {
    match std::env::var("NUCLEUS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (first..first + count).collect(),
    }
}

#[expect(clippy::print_stdout, reason = "a failure has to be replayed")]
async fn live_through(
    seeds: Vec<u64>,
    faults: Vec<Fault>,
    per_mille: &[u32],
    kills: bool,
) -> Vec<TestApp> {
    let mut apps = Vec::new();
    let mut all = Done::default();
    for seed in seeds {
        println!("NUCLEUS_SEED={seed}");
        let (done, app) = live(seed, &faults, per_mille, kills).await;
        println!("{done:?}");
        all.faults += done.faults;
        all.deleted += done.deleted;
        all.updated += done.updated;
        all.resyncs += done.resyncs;
        all.gone += done.gone;
        apps.push(app);
    }
    let lived = apps.len();
    assert!(all.faults > 5 * lived, "too little went wrong: {all:?}");
    let happened = usize::try_from(all.deleted + all.updated).unwrap();
    assert!(happened > 20 * lived, "too little happened: {all:?}");
    if lived > 1 {
        assert!(all.resyncs > 0, "no cursor expired: {all:?}");
        assert!(all.gone > 0, "nothing went between list and get: {all:?}");
    }
    apps
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_passes_the_table_ends_as_the_mailbox() {
    live_through(seeds(100, 4), Fault::passing(), &[100, 200, 400], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_passes_nothing_is_fetched_in_vain() {
    let refusals = Fault::passing()
        .into_iter()
        .filter(|fault| matches!(fault, Fault::Status { .. }))
        .collect();
    for app in live_through(seeds(200, 4), refusals, &[50, 100], false).await {
        assert_no_get_in_vain(&app);
    }
}
