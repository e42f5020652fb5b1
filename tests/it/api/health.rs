//! `/livez`, `/readyz` and `/health`, when all is well and when it is not.

use nucleus::db::schema;
use serde_json::{Value, json};

use super::{ask, assert_gives_nothing_away, assert_keys, start};
use crate::harness::TestApp;

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
    assert_keys(&health, &["status", "version", "checks"]);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["checks"], json!({"database": "ok", "secrets": "ok"}));
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
        json!({"database": "unavailable", "secrets": "ok"})
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
async fn a_program_whose_schema_is_behind_is_not_ready() {
    let app = start().await;
    let file = app.folder.path().join("nucleus.db");
    schema::migrate_down(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    assert_eq!(look(&app, "/livez").await.0, 200);
    assert_eq!(look(&app, "/readyz").await.0, 503);
}
