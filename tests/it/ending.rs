//! How runs are ended from outside: cancelled, shut down, handed over, killed. What was fetched is
//! kept and not fetched again.

use std::collections::HashSet;

use chrono::TimeDelta;
use nucleus::{
    demo::{Fault, Match, Method},
    worker,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    doubles::small_mailbox,
    harness::{Setting, TestApp, assert_adds_up},
};

/// Fails if a stored message was asked for a second time.
async fn assert_no_get_of(app: &TestApp, stored: &HashSet<String>) {
    for request in app.google.requests() {
        let Some(id) = request.id else { continue };
        assert!(!stored.contains(&id), "{id} was fetched again");
    }
}

async fn stored_ids(app: &TestApp, id: &str) -> HashSet<String> {
    let records = app.records(id).await;
    records
        .iter()
        .map(|record| record["external_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_run_is_cancelled_at_once() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let answer = app.post(&format!("/runs/{run}/cancel"), json!({})).await;
    assert_eq!(answer["status"], "cancelled");
    assert!(answer["finished_at"].is_string());
    app.drain().await;
    assert_eq!(app.google.requests(), []);
    let (status, _) = app.send("POST", &format!("/runs/{run}/cancel"), None).await;
    assert_eq!(status, 409);
    let next = app.sync(&id).await;
    assert_ne!(next["run_id"], json!(run));
    assert_eq!(next["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_run_is_cancelled_and_the_next_goes_on() {
    let app = Setting::new(small_mailbox(350))
        .options(|options| options.page_size_cap = Some(100))
        .start()
        .await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let cancelling = async {
        app.google.wait_for(Method::MessagesGet, 230).await;
        app.google.hold(Method::MessagesGet);
        let answer = app.post(&format!("/runs/{run}/cancel"), json!({})).await;
        assert_eq!(answer["status"], "running");
    };
    tokio::join!(app.drain(), cancelling);
    app.google.release(Method::MessagesGet);
    let cancelled = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["error"]),
        (&json!("cancelled"), &json!(null))
    );
    assert_adds_up(&cancelled);
    let stored = stored_ids(&app, &id).await;
    assert!(stored.len() >= 200, "{}", stored.len());
    assert_eq!(cancelled["counts"]["stored"], stored.len());
    assert_eq!(app.integration(&id).await["status"], "active");
    app.google.clear_requests();
    let next = app.sync(&id).await;
    assert_eq!(
        (&next["status"], &next["mode"]),
        (&json!("success"), &json!("full"))
    );
    assert_no_get_of(&app, &stored).await;
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_the_batch_and_the_run_goes_on_after_it() {
    let mut app = Setting::new(small_mailbox(300)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let shutdown = CancellationToken::new();
    let ending = async {
        app.google.wait_for(Method::MessagesGet, 150).await;
        app.google.hold(Method::MessagesGet);
        shutdown.cancel();
    };
    let begin = app.real_time();
    let (delivered, ()) = tokio::join!(worker::drain(&app.app, &shutdown), ending);
    assert_eq!(delivered.unwrap(), 1);
    assert!((app.real_time() - begin).as_secs() < 60);
    app.google.release(Method::MessagesGet);
    let waiting = app.get(&format!("/runs/{run}")).await;
    assert_eq!(waiting["status"], "queued");
    let stored = stored_ids(&app, &id).await;
    // Everything that came is kept: all but what was on its way.
    assert!(stored.len() >= 100, "{}", stored.len());
    assert_eq!(waiting["counts"]["stored"], stored.len());
    app.restart().await;
    app.google.clear_requests();
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("full"))
    );
    assert_eq!(run["counts"]["stored"], 300);
    assert_no_get_of(&app, &stored).await;
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_at_most_what_it_had_not_written() {
    let mut app = Setting::new(small_mailbox(300)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    for served in [40, 180, 240] {
        app.drain_until_served(Method::MessagesGet, served).await;
        app.restart().await;
    }
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success");
    assert_eq!(
        (&run["counts"]["listed"], &run["counts"]["stored"]),
        (&json!(300), &json!(300))
    );
    assert_adds_up(&run);
    app.assert_matches_ledger(&id).await;
}

/// A run that is cancelled while its gets are held, and whose worker goes there and then; gives the
/// integration and the run.
async fn cancelled_without_its_worker() -> (TestApp, String, String) {
    let mut app = Setting::new(small_mailbox(30)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    app.google.hold(Method::MessagesGet);
    let cancelling = async {
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        app.post(&format!("/runs/{run}/cancel"), json!({})).await;
    };
    tokio::select! {
        () = app.drain() => {}
        () = cancelling => {}
    }
    app.restart().await;
    (app, id, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_outlives_the_worker_it_was_meant_for() {
    let (app, _, run) = cancelled_without_its_worker().await;
    // The gets stay held: one that were made now would end nothing.
    app.drain().await;
    assert_eq!(
        app.get(&format!("/runs/{run}")).await["status"],
        "cancelled"
    );
    assert_eq!(app.calls(Method::MessagesGet), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_asked_for_while_a_cancelled_run_waits_for_a_worker_follows_it() {
    let (app, id, run) = cancelled_without_its_worker().await;
    app.google.release(Method::MessagesGet);
    assert_eq!(app.request_sync(&id).await, run);
    app.drain().await;
    let runs = app.all(&format!("/integrations/{id}/runs")).await;
    let statuses: Vec<_> = runs.iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, ["success", "cancelled"]);
    app.assert_matches_ledger(&id).await;
}

/// A run whose list of messages is held while `meanwhile` happens, and then answered.
async fn with_a_run_held(app: &TestApp, id: &str, meanwhile: impl AsyncFnOnce()) -> String {
    let run = app.request_sync(id).await;
    app.google.hold(Method::MessagesList);
    let held = async {
        app.google.wait_for_held(Method::MessagesList, 1).await;
        meanwhile().await;
        app.google.release(Method::MessagesList);
    };
    tokio::join!(app.drain(), held);
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_asked_for_during_a_run_that_fails_follows_it() {
    let app = Setting::new(small_mailbox(30)).start().await;
    let id = app.connect().await;
    let refused = Fault::status(403, "insufficientPermissions");
    app.google
        .inject(Match::method(Method::MessagesList), refused);
    let run = with_a_run_held(&app, &id, async || {
        app.request_sync(&id).await;
    })
    .await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "failed", "{run}");
    let runs = app.all(&format!("/integrations/{id}/runs")).await;
    let statuses: Vec<_> = runs.iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, ["success", "failed"]);
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_takes_longer_than_its_interval_ends() {
    let app = Setting::new(small_mailbox(30)).start().await;
    let entity = app.entity().await;
    let id = app
        .connect_for(&entity, json!({"interval_minutes": 1}))
        .await;
    let run = with_a_run_held(&app, &id, async || {
        for _ in 0..2 {
            app.clock.advance(TimeDelta::minutes(2));
            assert_eq!(app.tick().await.requested, 1);
        }
    })
    .await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(app.calls(Method::HistoryList), 1, "one pass was enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_given_during_a_run_count_from_its_end() {
    let app = Setting::new(small_mailbox(30)).start().await;
    let entity = app.entity().await;
    let id = app
        .connect_for(&entity, json!({"interval_minutes": 10_080}))
        .await;
    with_a_run_held(&app, &id, async || {
        let body = json!({"sync_settings": {"interval_minutes": 5}});
        let path = format!("/integrations/{id}");
        assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    })
    .await;
    let next = app.integration(&id).await["next_sync_at"].clone();
    let next: chrono::DateTime<chrono::Utc> = next.as_str().unwrap().parse().unwrap();
    assert!(next - app.app.now() <= TimeDelta::minutes(6), "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_a_chain_of_short_ones() {
    // 15 gets a minute: the mailbox takes 20 minutes, within one page.
    let app = Setting::new(small_mailbox(300))
        .variable("NUCLEUS_SERVICES__GMAIL__QUOTA", "user_minute=300")
        .start()
        .await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let never = CancellationToken::new();
    let before = app.app.now();
    let delivered = worker::drain(&app.app, &never).await.unwrap();
    let minutes = (app.app.now() - before).num_minutes();
    assert!((18..40).contains(&minutes), "{minutes}");
    assert!(
        (2..=4).contains(&delivered),
        "{delivered} deliveries in {minutes} minutes"
    );
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("full"))
    );
    assert_adds_up(&run);
    assert_eq!(app.all(&format!("/integrations/{id}/runs")).await.len(), 1);
    // What was on its way when a worker let go is asked for again; nothing else.
    let gets = app.calls(Method::MessagesGet);
    assert!(gets <= 300 + 10 * (delivered - 1), "{gets}");
    app.assert_matches_ledger(&id).await;
}
