//! What every connector is held to, whatever its service: each test goes through the registry, and a
//! connector for which there is no stand-in here fails all of them.

mod rig;

use std::collections::HashSet;

use chrono::TimeDelta;
use nucleus::{
    connectors, demo,
    domain::{Clock, QuotaTable, ServiceName},
    worker,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::kills::seed;
use rig::{PAGE, Rig, Trouble};
pub use rig::{connect_github, with_github};

/// Items of an account that is neither empty nor large.
const SOME: usize = 60;

/// Items of the account that is killed again and again, where nothing else is said: so many that it takes
/// seconds.
const MANY: usize = 300;

/// Items of the account that is killed again and again, from `NUCLEUS_CONTRACT_ITEMS` or [`MANY`].
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn many() -> usize {
    let given = std::env::var("NUCLEUS_CONTRACT_ITEMS").ok();
    given.map_or(MANY, |text| text.parse().unwrap())
}

/// Every service that has a connector.
fn services() -> Vec<ServiceName> {
    let registry = connectors::registry(QuotaTable::OFF, 8);
    assert!(registry.len() > 1, "the contract is asked of nobody");
    registry.into_keys().collect()
}

fn assert_success(run: &Value) {
    assert_eq!(run["status"], "success", "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_stored_once_over_many_pages_and_then_nothing_is_new() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "full", "{run}");
        assert_eq!(run["counts"]["stored"], rig.ledger().len(), "{run}");
        rig.assert_same().await;
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "incremental", "{run}");
        assert_eq!(run["counts"]["listed"], 0, "{service}: {run}");
        assert_eq!(
            (&run["counts"]["fetched"], &run["events"]),
            (&json!(0), &json!(0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_holds_next_to_nothing_of_each_item() {
    /// Of a page that is read whole whenever it changed: its entity tag and the address of the next.
    const BYTES_OF_PAGE: usize = 250;
    for service in services() {
        let mut lengths = Vec::new();
        for items in [SOME, 10 * SOME] {
            let rig = Rig::start(service, items).await;
            assert_success(&rig.sync().await);
            let cursors = |table| format!("SELECT CAST(cursor_value AS TEXT) FROM {table}");
            let (sqlite, postgres) = (cursors("sync_cursors"), cursors("dna.sync_cursors"));
            let rows = rig.app.rows(&sqlite, &postgres).await;
            lengths.push(rows.iter().map(String::len).sum::<usize>());
        }
        let allowed = 9 * SOME / 5 / PAGE * BYTES_OF_PAGE;
        assert!(lengths[1] <= lengths[0] + allowed, "{service}: {lengths:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_followed_and_no_more_is_written() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        let run = rig.sync().await;
        assert_success(&run);
        rig.assert_same().await;
        let written = |name: &str| run["counts"][name].as_u64().unwrap();
        let written = written("stored") + written("updated") + written("deleted");
        assert!((3..15).contains(&written), "{service}: {run}");
        assert_eq!(rig.sync().await["counts"]["listed"], 0, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_is_a_success() {
    for service in services() {
        let rig = Rig::start(service, 0).await;
        for _ in 0..2 {
            assert_success(&rig.sync().await);
            rig.assert_same().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_and_one_that_is_refused_again_ends_the_connection() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        rig.once(Trouble::Unauthorized, 3);
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        rig.lasting(Trouble::Unauthorized);
        let run = rig.sync().await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("access_revoked")),
            "{service}: {run}"
        );
        assert_eq!(rig.status().await, "revoked", "{service}");
        rig.calm();
        rig.assert_same().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_fails_the_run_with_a_reason_that_says_the_mend() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        rig.lasting(Trouble::Forbidden);
        let run = rig.sync().await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("insufficient_permissions")),
            "{service}: {run}"
        );
        assert!(
            run["error"]["detail"].as_str().unwrap().contains("connect"),
            "{run}"
        );
        assert_eq!(rig.status().await, "error", "{service}");
        rig.calm();
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        assert_eq!(rig.status().await, "active", "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_its_rate_is_waited_out_as_long_as_the_service_says() {
    for service in services() {
        for seconds in [30, 3600] {
            let rig = Rig::start(service, SOME).await;
            rig.once(Trouble::TooMany(seconds), 5);
            let before = rig.app.clock.now();
            let run = rig.sync().await;
            assert_success(&run);
            let waited = rig.app.clock.now() - before;
            assert!(
                waited >= TimeDelta::seconds(seconds.into()),
                "{service}: {waited}"
            );
            rig.assert_same().await;
            let runs = format!("/integrations/{}/runs", rig.integration);
            assert_eq!(rig.app.all(&runs).await.len(), 1);
            assert_eq!(rig.status().await, "active", "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_not_noticed() {
    for service in services() {
        for trouble in [Trouble::Failing, Trouble::Truncated] {
            for after in [0, 4, 11] {
                let rig = Rig::start(service, SOME).await;
                rig.once(trouble, after);
                assert_success(&rig.sync().await);
                rig.assert_same().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_changes_no_status_and_heals() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        for trouble in [Trouble::Failing, Trouble::Truncated] {
            rig.lasting(trouble);
            let run = rig.sync().await;
            assert_eq!(
                (&run["status"], &run["error"]["code"]),
                (&json!("failed"), &json!("unavailable")),
                "{service}: {run}"
            );
            assert_eq!(rig.status().await, "active", "{service}");
            rig.calm();
        }
        assert_success(&rig.sync().await);
        rig.assert_same().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_not_accepted_heals_by_a_listing_that_changes_nothing() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        match &rig.github {
            // GitHub's cursors do not expire; another version's are not accepted.
            Some(_) => {
                let forget = |table| {
                    format!("UPDATE {table} SET cursor_value = '{{\"other\": 1}}' RETURNING stream")
                };
                let (sqlite, postgres) = (forget("sync_cursors"), forget("dna.sync_cursors"));
                let forgotten = rig.app.rows(&sqlite, &postgres).await;
                assert!(forgotten.len() > 1, "{forgotten:?}");
            }
            None => rig.app.google.with_mailbox(demo::Mailbox::expire_history),
        }
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "resync", "{service}");
        rig.assert_same().await;
        let written = |name: &str| run["counts"][name].as_u64().unwrap();
        assert!(
            written("stored") + written("updated") < 20,
            "{service}: {run}"
        );
        let run = rig.sync().await;
        assert_eq!(
            (&run["mode"], &run["counts"]["listed"]),
            (&json!("incremental"), &json!(0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_in_the_middle_of_a_page_leaves_the_rest_to_the_next() {
    for service in services() {
        for answers in [1, 7, 15] {
            let rig = Rig::start(service, SOME).await;
            let run = rig.app.request_sync(&rig.integration).await;
            let shutdown = CancellationToken::new();
            let ending = async {
                rig.wait_for_answers(answers).await;
                shutdown.cancel();
            };
            let (drained, ()) = tokio::join!(worker::drain(&rig.app.app, &shutdown), ending);
            drained.unwrap();
            let left = rig.app.get(&format!("/runs/{run}")).await;
            assert_eq!(left["status"], "queued", "{service}: {left}");
            rig.app.drain().await;
            let ended = rig.app.get(&format!("/runs/{run}")).await;
            assert_success(&ended);
            assert_eq!(ended["counts"]["stored"], rig.ledger().len(), "{ended}");
            rig.assert_same().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_lose_and_double_nothing_and_what_is_in_hand_is_bounded() {
    let seed = seed();
    let items = many();
    // About as many kills in a large account as in a small one: after each, all that is stored is read.
    let times_longer = items.div_ceil(MANY);
    for service in services() {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::start(service, items).await;
        let longest_life = rig.answers_of_a_life() * times_longer;
        let run = rig.app.request_sync(&rig.integration).await;
        let (mut kills, mut most) = (0, 0);
        loop {
            rig.received();
            let until = rig.answers() + random.random_range(1..longest_life);
            let killed = tokio::select! {
                () = rig.app.drain() => false,
                () = rig.wait_for_answers(until) => true,
            };
            if !killed {
                break;
            }
            kills += 1;
            rig.app.restart().await;
            let stored = rig.app.records(&rig.integration).await;
            let stored: HashSet<&str> = stored
                .iter()
                .map(|record| {
                    let id = record["external_id"].as_str().unwrap();
                    id.rsplit(':').next().unwrap()
                })
                .collect();
            let received = rig.received();
            let in_hand = received
                .iter()
                .filter(|id| !stored.contains(id.as_str()))
                .count();
            most = most.max(in_hand);
            assert!(
                in_hand <= rig.in_hand(),
                "{service}: {in_hand} items received, not stored"
            );
        }
        assert!(kills >= 5, "{service}: {kills} kills prove nothing");
        let ended = rig.app.get(&format!("/runs/{run}")).await;
        assert_success(&ended);
        assert_eq!(ended["counts"]["stored"], rig.ledger().len(), "{ended}");
        rig.assert_same().await;
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        assert!(most > 0, "{service}: no kill met an item in hand");
    }
}
