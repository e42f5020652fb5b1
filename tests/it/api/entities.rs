//! `/entities`: made, listed and removed by the operator.

use nucleus::{
    db::{DbError, integration},
    demo::generate,
    domain::sync::Scope,
    integrations::IntegrationError,
    secrets::Credentials,
};
use serde_json::{Value, json};

use super::{
    NOBODY, assert_id, assert_is_problem, assert_keys, assert_time, by_token, fields, pinned,
    start, versions,
};
use crate::harness::Setting;

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_is_made_with_its_name() {
    let app = start().await;
    let (status, made) = app
        .send(
            "POST",
            "/entities/",
            Some(json!({"name": "  Ada Lovelace\t"})),
        )
        .await;
    assert_eq!(status, 201);
    assert_keys(&made, &["id", "entity_id", "name", "created_at"]);
    assert_id(&made["id"]);
    assert_time(&made["created_at"]);
    assert_eq!(
        (&made["name"], &made["entity_id"]),
        (&json!("Ada Lovelace"), &made["id"])
    );
    assert_eq!(app.all("/entities").await, [made]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_have_1_to_255_characters() {
    let app = start().await;
    for name in [
        "\u{1f9ec}".repeat(255),
        "x".to_owned(),
        "O'Brien \"; DROP TABLE entity".to_owned(),
    ] {
        let made = app.post("/entities", json!({"name": name})).await;
        assert_eq!(made["name"], name);
    }
    for name in [
        json!(""),
        json!(" \n "),
        json!("x".repeat(256)),
        json!("a\0b"),
        json!(7),
    ] {
        let (status, body) = app
            .send("POST", "/entities", Some(json!({"name": name})))
            .await;
        assert_eq!(status, 422, "{name}");
        assert_is_problem(&body, 422, "invalid_fields");
        assert_eq!(fields(&body), ["name".to_owned()].into());
    }
    assert_eq!(app.all("/entities").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_entity_takes_everything_along() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let entity = app.entity().await;
    let other = app
        .connect_for(&app.entity().await, json!({"interval_minutes": 9}))
        .await;
    let gmail = app.connect_for(&entity, json!({})).await;
    app.sync(&gmail).await;
    let github = app.post("/integrations", by_token(&entity, "github")).await;
    let (status, body) = app
        .send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(status, 200, "{body}");
    assert_keys(&body, &["entity_id", "integrations"]);
    assert_eq!(body["entity_id"], entity);
    let removed = body["integrations"].as_array().unwrap();
    assert_eq!(removed.len(), 2);
    for item in removed {
        let is_gmail = item["integration_id"] == gmail;
        assert!(is_gmail || item["integration_id"] == github["id"], "{item}");
        assert_eq!(item["records"].as_i64().unwrap() > 0, is_gmail, "{item}");
    }
    assert_eq!(app.all("/entities").await.len(), 1);
    let left: Vec<Value> = app.all("/integrations").await;
    assert_eq!((left.len(), &left[0]["id"]), (1, &json!(other)));
    assert_eq!(versions(&app).await, pinned(&app).await);
    let (status, body) = app
        .send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(status, 404);
    assert_is_problem(&body, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_for_an_entity_that_goes_meanwhile_leaves_nothing() {
    let app = start().await;
    let entity = app.entity().await;
    let made = app.post("/integrations", by_token(&entity, "github")).await;
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let row = integration::find(&app.app.engine.db, Scope::Operator, id)
        .await
        .unwrap();
    let (status, _) = app
        .send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(status, 200);
    // The entity was there when the handler looked.
    let credentials = Credentials::Fields([("token".to_owned(), "t".to_owned().into())].into());
    let result = app.app.integrations.create(row, credentials).await;
    assert!(
        matches!(result, Err(IntegrationError::Db(DbError::NotFound))),
        "{result:?}"
    );
    assert!(versions(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_connected_for_an_entity_that_is_not_there() {
    let app = start().await;
    let (status, body) = app
        .send("POST", "/integrations", Some(by_token(NOBODY, "github")))
        .await;
    assert_eq!(status, 404);
    assert_is_problem(&body, 404, "not_found");
    assert!(versions(&app).await.is_empty());
}
