//! `DELETE /integrations/{id}`: the grant, the credentials, the records.

use nucleus::{
    db::{DbError, integration},
    demo::{Fault, Match, Method, generate},
    domain::sync::Scope,
    integrations::{IntegrationError, Records},
};
use serde_json::{Value, json};

use super::{
    assert_gives_nothing_away, assert_is_problem, assert_keys, by_token, fields, pinned, start,
    start_in_vault, versions,
};
use crate::harness::{Setting, TestApp};

async fn remove(app: &TestApp, id: &str, query: &str) -> Value {
    let path = format!("/integrations/{id}{query}");
    let (status, answer) = app.send("DELETE", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["integration_id"], id);
    assert_gives_nothing_away(&answer.to_string());
    assert_eq!(versions(app).await, pinned(app).await);
    let (status, gone) = app.send("DELETE", &path, None).await;
    assert_eq!(status, 404);
    assert_is_problem(&gone, 404, "not_found");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_the_records_stay_without_their_integration() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    let records = app.records(&id).await;
    let removed = remove(&app, &id, "").await;
    assert_keys(&removed, &["integration_id", "revoked", "records"]);
    assert_eq!(removed["revoked"], true);
    assert_eq!(removed["records"], records.len());
    assert_eq!(app.google.refresh_token(), None);
    for record in &records {
        let kept = app
            .get(&format!("/records/{}", record["id"].as_str().unwrap()))
            .await;
        assert_eq!(kept["integration_id"], Value::Null);
        assert_eq!(kept["data_content"], record["data_content"]);
    }
    let run = run["run_id"].as_str().unwrap();
    for path in [
        format!("/integrations/{id}"),
        format!("/integrations/{id}/runs"),
        format!("/integrations/{id}/records"),
        format!("/runs/{run}"),
    ] {
        assert_eq!(app.send("GET", &path, None).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_stayed_are_adopted_by_the_same_account() {
    let app = Setting::new(generate::mailbox(8, 2)).start().await;
    let entity = app.entity().await;
    let id = app.connect_for(&entity, json!({})).await;
    app.sync(&id).await;
    let before: Vec<Value> = app
        .records(&id)
        .await
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    remove(&app, &id, "?data=keep").await;
    app.google.set_refresh_token("1//anew");
    let again = app.connect_for(&entity, json!({})).await;
    let run = app.sync(&again).await;
    assert_eq!(run["status"], "success", "{run}");
    let after: Vec<Value> = app
        .records(&again)
        .await
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    assert_eq!(before, after);
    assert_eq!(after.len(), app.ledger().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_request_the_records_go_and_events_say_so() {
    let app = Setting::new(generate::mailbox(8, 3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let records = app.records(&id).await;
    let removed = remove(&app, &id, "/?data=delete").await;
    assert_eq!(removed["records"], records.len());
    let told = app.told(&id).await;
    assert_eq!(told.len(), records.len());
    for record in &records {
        let record = record["id"].as_str().unwrap();
        assert_eq!(
            app.send("GET", &format!("/records/{record}"), None).await.0,
            404
        );
        assert_eq!(told[record], "deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_word_for_the_records_removes_nothing() {
    let app = start().await;
    let id = app.connect().await;
    for (query, field) in [
        ("data=drop", "data"),
        ("data=", "data"),
        ("data=keep&data=delete", "data"),
        ("date=delete", "date"),
    ] {
        let path = format!("/integrations/{id}?{query}");
        let (status, answer) = app.send("DELETE", &path, None).await;
        assert_eq!(status, 422, "{query}");
        assert_is_problem(&answer, 422, "invalid_fields");
        assert_eq!(fields(&answer), [field.to_owned()].into());
    }
    assert_eq!(app.integration(&id).await["status"], "active");
    assert!(app.google.refresh_token().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_does_not_stop_the_removal() {
    let app = start().await;
    for fault in [
        Fault::status(503, "backendError"),
        Fault::ResetConnection,
        Fault::EmptyBody,
    ] {
        let id = app.connect().await;
        let may_revoke = fault == Fault::EmptyBody;
        app.google
            .inject_times(Match::method(Method::Revoke), fault, 10);
        let removed = remove(&app, &id, "").await;
        assert_eq!(removed["revoked"], may_revoke, "{removed}");
        assert_eq!(removed["reason"].is_string(), !may_revoke, "{removed}");
        app.google.calm();
        app.google.set_refresh_token("1//again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_another_integration_lives_on_is_not_revoked() {
    let app = Setting::new(generate::mailbox(3, 4)).start().await;
    let (one, other) = (app.connect().await, app.connect().await);
    app.sync(&one).await;
    app.sync(&other).await;
    let removed = remove(&app, &one, "").await;
    assert_eq!(
        (&removed["revoked"], &removed["reason"]),
        (&json!(false), &json!("shared_grant"))
    );
    assert_eq!(app.sync(&other).await["status"], "success");
    assert_eq!(remove(&app, &other, "").await["revoked"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_revoked_is_removed_all_the_same() {
    let app = start_in_vault().await;
    let entity = app.entity().await;
    let made = app.post("/integrations", by_token(&entity, "github")).await;
    let removed = remove(&app, made["id"].as_str().unwrap(), "").await;
    assert_eq!(
        (&removed["revoked"], &removed["reason"]),
        (&json!(false), &json!("not_supported"))
    );
    let id = app.connect().await;
    let path = pinned(&app)
        .await
        .pop_first()
        .unwrap()
        .replace("versions/", "");
    std::fs::write(app.folder.path().join("vault").join(path), b"damaged").unwrap();
    let removed = remove(&app, &id, "").await;
    assert_eq!(removed["revoked"], false);
    assert!(
        removed["reason"]
            .as_str()
            .unwrap()
            .contains("cannot be read"),
        "{removed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_and_replacing_at_the_same_time_leaves_no_secret() {
    let app = start().await;
    let entity = app.entity().await;
    for _ in 0..20 {
        let made = app.post("/integrations", by_token(&entity, "github")).await;
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        let change = json!({"credentials": {"token": "another"}});
        let (removed, changed) = futures_util::join!(
            app.send("DELETE", &path, None),
            app.send("PATCH", &path, Some(change)),
        );
        assert_eq!(removed.0, 200, "{removed:?}");
        assert!(matches!(changed.0, 200 | 404 | 409), "{changed:?}");
        assert!(versions(&app).await.is_empty(), "{changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_can_be_removed_in_the_middle_of_a_run() {
    for data in ["keep", "delete"] {
        let app = Setting::new(generate::mailbox(300, 5)).start().await;
        let id = app.connect().await;
        app.request_sync(&id).await;
        app.google.hold(Method::MessagesGet);
        let removing = async {
            app.google.wait_for_held(Method::MessagesGet, 1).await;
            remove(&app, &id, &format!("?data={data}")).await;
            app.google.release(Method::MessagesGet);
        };
        futures_util::join!(app.drain(), removing);
        // What the run would have stored after that was not stored.
        let told = app.told(&id).await;
        let all_gone = told.values().all(|change| change == "deleted");
        assert!(data == "keep" || all_gone, "{told:?}");
        assert_eq!(versions(&app).await, pinned(&app).await);
        assert_eq!(app.tick().await.requested, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_came_since_the_row_was_read_go_too() {
    let app = start().await;
    let entity = app.entity().await;
    let made = app.post("/integrations", by_token(&entity, "github")).await;
    let id = made["id"].as_str().unwrap();
    let db = &app.app.engine.db;
    let read = integration::find(db, Scope::Operator, id.parse().unwrap())
        .await
        .unwrap();
    let change = json!({"credentials": {"token": "another"}});
    let (status, _) = app
        .send("PATCH", &format!("/integrations/{id}"), Some(change))
        .await;
    assert_eq!(status, 200);
    let removed = app.app.integrations.remove(&read, Records::Keep).await;
    assert_eq!(removed.unwrap().integration_id, read.id);
    assert!(versions(&app).await.is_empty());
    // Of two who remove it at the same time one finds nothing.
    let again = app.app.integrations.remove(&read, Records::Keep).await;
    assert!(
        matches!(again, Err(IntegrationError::Db(DbError::NotFound))),
        "{again:?}"
    );
}
