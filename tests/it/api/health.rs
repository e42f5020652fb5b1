//! `/livez`, `/readyz` and `/health`, when all is well and when it is not.

use std::time::Duration;

use chrono::TimeDelta;
use nucleus::{
    db::schema,
    demo::{Fault, Match, Method},
};
use serde_json::{Value, json};

use super::{ask, assert_gives_nothing_away, assert_keys, start, start_embedded};
use crate::{
    harness::TestApp,
    waiting::{PATIENCE, happens},
};

async fn look(app: &TestApp, path: &str) -> (u16, Value) {
    let answer = ask(app, "GET", path, &[], b"").await;
    assert_gives_nothing_away(&answer.text);
    if answer.status != 200 && path != "/health" {
        answer.assert_problem(503, "unavailable");
    }
    (answer.status, answer.body())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_well_says_so_without_a_key() {
    let app = start().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(look(&app, path).await, (200, json!({"status": "ok"})));
    }
    let (status, health) = look(&app, "/health").await;
    assert_eq!(status, 200);
    assert_keys(&health, &["status", "version", "checks", "services"]);
    assert_eq!(health["status"], "ok");
    assert_eq!(
        health["checks"],
        json!({"database": "ok", "secrets": "ok", "loops": "ok", "queue": "ok"})
    );
    assert_eq!(health["services"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_database_is_gone_lives_and_is_not_ready() {
    let app = start().await;
    let id = app.connect().await;
    app.app.engine.db.clone().close().await.unwrap();
    assert_eq!(look(&app, "/livez").await.0, 200);
    assert_eq!(look(&app, "/readyz").await.0, 503);
    let (status, health) = look(&app, "/health").await;
    assert_eq!((status, &health["status"]), (503, &json!("unavailable")));
    assert_eq!(
        health["checks"],
        json!({"database": "unavailable", "secrets": "ok", "loops": "ok", "queue": "unknown"})
    );
    for (method, path, body) in [
        ("GET", format!("/integrations/{id}"), None),
        ("GET", "/events".to_owned(), None),
        ("POST", "/entities".to_owned(), Some(json!({"name": "x"}))),
        ("POST", format!("/integrations/{id}/sync"), None),
        ("DELETE", format!("/integrations/{id}"), None),
    ] {
        let (status, body) = app.send(method, &path, body).await;
        assert_eq!(status, 503, "{method} {path}: {body}");
        super::assert_is_problem(&body, 503, "unavailable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_that_was_found_is_told_for_a_second() {
    let app = start().await;
    let asked = app.real_time();
    assert_eq!(look(&app, "/readyz").await.0, 200);
    app.app.engine.db.clone().close().await.unwrap();
    let status = look(&app, "/readyz").await.0;
    let is_kept = app.real_time() - asked < Duration::from_secs(1);
    assert!(status == 200 || !is_kept, "the database was asked again");
    let is_found = happens(PATIENCE, async || look(&app, "/readyz").await.0 == 503);
    assert!(is_found.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_schema_is_behind_is_not_ready() {
    let app = start_embedded().await;
    let file = app.folder.path().join("nucleus.db");
    schema::migrate_down(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    assert_eq!(look(&app, "/livez").await.0, 200);
    assert_eq!(look(&app, "/readyz").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_outside_shows_in_health_and_nowhere_else() {
    let app = start().await;
    let id = app.connect().await;
    let services = async || look(&app, "/health").await.1["services"].clone();
    assert_eq!(services().await, json!({"gmail": "ok"}));
    let outage = Fault::status(500, "backendError");
    app.google
        .inject_times(Match::method(Method::GetProfile), outage, 10_000);
    let run = app.sync(&id).await;
    assert_eq!(run["error"]["code"], "unavailable", "{run}");
    assert_eq!(services().await, json!({"gmail": "failing"}));
    // A service that works for somebody is not down.
    app.connect().await;
    assert_eq!(services().await, json!({"gmail": "ok"}));
    app.google.calm();
    app.request_sync(&id).await;
    app.clock.advance(TimeDelta::minutes(11));
    let (status, health) = look(&app, "/health").await;
    assert_eq!(
        (status, &health["checks"]["queue"]),
        (200, &json!("behind"))
    );
    assert_eq!(look(&app, "/readyz").await.0, 200);
    app.drain().await;
    assert_eq!(look(&app, "/health").await.1["checks"]["queue"], "ok");
    assert_eq!(services().await, json!({"gmail": "ok"}));
}
