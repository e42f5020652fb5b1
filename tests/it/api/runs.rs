//! Asking for syncs, looking at runs, ending them.

use nucleus::demo::{Method, generate};
use serde_json::{Value, json};

use super::{NOBODY, assert_id, assert_is_problem, assert_keys, assert_time, fields, start};
use crate::harness::{Setting, TestApp, assert_adds_up};

const RUN: [&str; 15] = [
    "run_id",
    "integration_id",
    "entity_id",
    "service_name",
    "kind",
    "trigger",
    "mode",
    "status",
    "counts",
    "quota_units",
    "events",
    "requested_at",
    "started_at",
    "finished_at",
    "error",
];

async fn request(app: &TestApp, id: &str) -> Value {
    let (status, answer) = app
        .send("POST", &format!("/integrations/{id}/sync/"), None)
        .await;
    assert_eq!(status, 202, "{answer}");
    answer
}

async fn cancel(app: &TestApp, run: &str) -> (u16, Value) {
    app.send("POST", &format!("/runs/{run}/cancel"), None).await
}

fn assert_shape(run: &Value) {
    assert_keys(run, &RUN);
    let counts = [
        "listed",
        "fetched",
        "stored",
        "updated",
        "unchanged",
        "deleted",
        "skipped",
        "failed",
    ];
    assert_keys(&run["counts"], &counts);
    for count in counts {
        let value = &run["counts"][count];
        assert!(
            if count == "skipped" {
                value.is_object()
            } else {
                value.is_u64()
            },
            "{run}"
        );
    }
    assert!(
        run["quota_units"].is_u64() && run["events"].is_u64(),
        "{run}"
    );
    for id in ["run_id", "integration_id", "entity_id"] {
        assert_id(&run[id]);
    }
    assert_time(&run["requested_at"]);
    if !run["error"].is_null() {
        assert_keys(&run["error"], &["code", "detail"]);
    }
    assert_adds_up(run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_accepted_once_and_carried_out_later() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let id = app.connect().await;
    let first = request(&app, &id).await;
    assert_keys(
        &first,
        &[
            "run_id",
            "integration_id",
            "service_name",
            "status",
            "requested_at",
        ],
    );
    assert_id(&first["run_id"]);
    assert_time(&first["requested_at"]);
    assert_eq!(first["integration_id"], id);
    assert_eq!(first["service_name"], "gmail");
    assert_eq!(first["status"], "queued");
    // Asked again, it is the one that is queued.
    app.clock.advance(chrono::TimeDelta::seconds(1));
    for _ in 0..3 {
        assert_eq!(request(&app, &id).await, first);
    }
    let path = format!("/runs/{}", first["run_id"].as_str().unwrap());
    let queued = app.get(&path).await;
    assert_shape(&queued);
    assert_eq!(
        (&queued["started_at"], &queued["finished_at"]),
        (&Value::Null, &Value::Null)
    );
    for (field, value) in [
        ("kind", "sync"),
        ("trigger", "manual"),
        ("mode", "full"),
        ("status", "queued"),
    ] {
        assert_eq!(queued[field], value);
    }
    app.drain().await;
    let done = app.get(&path).await;
    assert_shape(&done);
    assert_eq!(
        (&done["status"], &done["error"]),
        (&json!("success"), &Value::Null),
        "{done}"
    );
    assert_time(&done["started_at"]);
    assert_time(&done["finished_at"]);
    assert!(done["events"].as_u64() > Some(0) && done["quota_units"].as_u64() > Some(0));
    assert_eq!(app.all(&format!("/integrations/{id}/runs")).await, [done]);
    let next = request(&app, &id).await;
    assert_ne!(next["run_id"], first["run_id"]);
    app.drain().await;
    let path = format!("/runs/{}", next["run_id"].as_str().unwrap());
    assert_eq!(app.get(&path).await["mode"], "incremental");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_run_is_asked_for_one_more_pass() {
    for asked_again in [false, true] {
        let app = Setting::new(generate::mailbox(8, 2)).start().await;
        let id = app.connect().await;
        let first = request(&app, &id).await;
        app.google.hold(Method::MessagesGet);
        let meanwhile = async {
            app.google.wait_for_held(Method::MessagesGet, 1).await;
            if asked_again {
                let again = request(&app, &id).await;
                assert_eq!(again["run_id"], first["run_id"]);
                assert_eq!(again["status"], "running");
                assert_eq!(again["requested_at"], first["requested_at"]);
            }
            app.google.release(Method::MessagesGet);
        };
        futures_util::join!(app.drain(), meanwhile);
        let runs = app.all(&format!("/integrations/{id}/runs")).await;
        assert_eq!((runs.len(), &runs[0]["status"]), (1, &json!("success")));
        // A full sync is followed by one incremental pass; the request adds another.
        let passes = app.google.served(Method::HistoryList);
        assert_eq!(passes, if asked_again { 2 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_run_ends_at_once_and_a_finished_one_not_again() {
    let app = start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let (status, ended) = cancel(&app, &run).await;
    assert_eq!(status, 202);
    assert_shape(&ended);
    assert_eq!(ended["status"], "cancelled");
    assert_time(&ended["finished_at"]);
    let (status, answer) = cancel(&app, &run).await;
    assert_eq!(status, 409);
    assert_is_problem(&answer, 409, "run_finished");
    app.drain().await;
    assert_eq!(app.get(&format!("/runs/{run}")).await, ended);
    let other = app.sync(&id).await;
    let (status, answer) = cancel(&app, other["run_id"].as_str().unwrap()).await;
    assert_eq!(status, 409);
    assert_is_problem(&answer, 409, "run_finished");
    let (status, answer) = cancel(&app, NOBODY).await;
    assert_eq!(status, 404);
    assert_is_problem(&answer, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_run_ends_soon() {
    let app = Setting::new(generate::mailbox(300, 3)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    app.google.hold(Method::MessagesGet);
    let meanwhile = async {
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        let (status, answer) = cancel(&app, &run).await;
        assert_eq!((status, &answer["status"]), (202, &json!("running")));
        app.google.release(Method::MessagesGet);
    };
    futures_util::join!(app.drain(), meanwhile);
    let ended = app.get(&format!("/runs/{run}")).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_shape(&ended);
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success");
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_asked_for_before_a_cancellation_ends_with_the_run_and_one_after_it_follows() {
    for asked_after in [false, true] {
        let app = Setting::new(generate::mailbox(300, 4)).start().await;
        let id = app.connect().await;
        let run = app.request_sync(&id).await;
        app.google.hold(Method::MessagesGet);
        let meanwhile = async {
            app.google.wait_for_held(Method::MessagesGet, 1).await;
            assert_eq!(request(&app, &id).await["run_id"], run);
            assert_eq!(cancel(&app, &run).await.0, 202);
            if asked_after {
                assert_eq!(request(&app, &id).await["run_id"], run);
            }
            app.google.release(Method::MessagesGet);
        };
        futures_util::join!(app.drain(), meanwhile);
        let runs = app.all(&format!("/integrations/{id}/runs")).await;
        let statuses: Vec<_> = runs.iter().map(|run| &run["status"]).collect();
        match asked_after {
            true => {
                assert_eq!(statuses, ["success", "cancelled"]);
                app.assert_matches_ledger(&id).await;
            }
            false => assert_eq!(statuses, ["cancelled"]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_sync_says_nothing_but_what_it_may() {
    let app = start().await;
    let id = app.connect().await;
    for (body, field) in [
        (json!({"mode": "full"}), "mode"),
        (
            json!({"confirm_mass_deletion": "yes"}),
            "confirm_mass_deletion",
        ),
        (
            json!({"confirm_mass_deletion": null}),
            "confirm_mass_deletion",
        ),
    ] {
        let path = format!("/integrations/{id}/sync");
        let (status, answer) = app.send("POST", &path, Some(body)).await;
        assert_eq!(status, 422);
        assert_eq!(fields(&answer), [field.to_owned()].into());
    }
    assert!(
        app.all(&format!("/integrations/{id}/runs"))
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_says_why() {
    let app = start().await;
    let id = app.connect().await;
    app.google.revoke_grant();
    let run = app.sync(&id).await;
    assert_shape(&run);
    assert_eq!(run["status"], "failed");
    assert!(run["error"]["code"].is_string() && run["error"]["detail"].is_string());
    super::assert_gives_nothing_away(&run.to_string());
    assert_eq!(app.integration(&id).await["last_sync_status"], "failed");
}
