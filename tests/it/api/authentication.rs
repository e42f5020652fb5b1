//! Who calls: one good header, or 401 before anything else is looked at.

use nucleus::{app, db::api_key};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{ask, assert_is_problem, bearer, key_of, start};
use crate::{contract::operations, harness::OPERATOR_KEY};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_needs_exactly_one_good_bearer_header() {
    let app = start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    for value in [
        bearer(OPERATOR_KEY),
        format!("bearer {OPERATOR_KEY}"),
        format!("BEARER   {OPERATOR_KEY} "),
        bearer(&key),
    ] {
        let headers = [("authorization", value.as_str())];
        let answer = ask(&app, "GET", "/integrations", &headers, b"").await;
        assert_eq!(answer.status, 200, "{value:?}: {answer:?}");
    }
    let good = bearer(OPERATOR_KEY);
    let good = good.as_str();
    let longer = format!("{good}x");
    let shorter = &good[..good.len() - 1];
    let twice = format!("{good}, {good}");
    let basic = format!("Basic {OPERATOR_KEY}");
    let wrong: &[&[&str]] = &[
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer \t "],
        &[OPERATOR_KEY],
        &[&basic],
        &["Bearer null"],
        &["Bearer undefined"],
        &["Bearer nk_"],
        &["Bearer nk_0000000000000000000000000000000000"],
        &["Bearer ' OR 1=1 --"],
        &[&longer],
        &[shorter],
        &[&twice],
        &[good, good],
        &[good, ""],
        &["", good],
        &["Bearer \u{fc}"],
    ];
    for values in wrong {
        let headers: Vec<_> = values
            .iter()
            .map(|value| ("authorization", *value))
            .collect();
        let answer = ask(&app, "GET", "/integrations", &headers, b"").await;
        answer.assert_problem(401, "unauthorized");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer"),
            "{values:?}"
        );
    }
    // Keys are taken from the header alone.
    for path in [
        format!("/integrations?access_token={OPERATOR_KEY}"),
        format!("/integrations?key={OPERATOR_KEY}"),
    ] {
        let answer = ask(&app, "GET", &path, &[("x-api-key", OPERATOR_KEY)], b"").await;
        answer.assert_problem(401, "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nobody_learns_what_is_wrong_with_a_request() {
    let app = start().await;
    let huge = vec![b'x'; 2 * 1024 * 1024];
    let json = ("content-type", "application/json");
    let text = ("content-type", "text/plain");
    for operation in operations() {
        let method = operation.method.as_str();
        let path = operation.at("no-id") + "?limit=abc&cursor=%00";
        for (header, body) in [
            (json, b"{".as_slice()),
            (json, b"{\"unknown\": 1}"),
            (text, b"{}"),
            (json, &huge[..]),
        ] {
            // Whoever reads no body may close before it has come, and cut a long answer off.
            if !operation.is_for_callers() && body.len() == huge.len() {
                continue;
            }
            let answer = ask(&app, method, &path, &[header], body).await;
            // Browsers come to the callback without a key; whoever has no answer learns nothing.
            if operation.is_callback() {
                assert_eq!(answer.status, 422, "{method} {path}");
            } else if operation.is_for_callers() {
                answer.assert_problem(401, "unauthorized");
            } else {
                assert_eq!(answer.status, 200, "{method} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_opens_nothing() {
    let app = start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let (status, _) = app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(status, 200);
    let db = &app.app.engine.db;
    let row = api_key::list(db).await.unwrap().remove(0);
    let tx = db.begin().await.unwrap();
    api_key::revoke(&tx, row.id, app.app.now()).await.unwrap();
    tx.commit().await.unwrap();
    let (status, body) = app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(status, 401);
    assert_is_problem(&body, 401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_removed_entity_opens_nothing() {
    let app = start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let (status, _) = app
        .send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(status, 200);
    let (status, _) = app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_costs_no_look_up() {
    let app = start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let mistyped = format!(
        "{}{}",
        &key[..35],
        if key.ends_with('0') { '1' } else { '0' }
    );
    // Whatever asks the database from here on fails, and says so.
    app.app.engine.db.clone().close().await.unwrap();
    let (status, body) = app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(status, 503, "{body}");
    assert_is_problem(&body, 503, "unavailable");
    for wrong in [mistyped.as_str(), "nk_", "something else", &key[1..]] {
        let (status, body) = app.send_as(Some(wrong), "GET", "/integrations", None).await;
        assert_eq!(status, 401, "{wrong}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_key_only_the_hash_is_kept() {
    let app = start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    assert!(key.starts_with("nk_") && key.len() == 36, "{key}");
    let mut bytes = Vec::new();
    for file in ["nucleus.db", "nucleus.db-wal"] {
        bytes.extend(std::fs::read(app.folder.path().join(file)).unwrap());
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(&nucleus::keys::hash(&key)));
    assert!(!holds(&key) && !holds(&key[3..30]) && !holds(OPERATOR_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_entity_is_the_operators() {
    let app = start().await;
    // One is configured, so none is made.
    let first = app::first_operator_key(&app.app).await.unwrap();
    assert!(first.is_none());
    let key = app.app.create_key(None).await.unwrap();
    let key = Some(key.expose_secret());
    let body = Some(json!({"name": "Another"}));
    let (status, _) = app.send_as(key, "POST", "/entities", body).await;
    assert_eq!(status, 201);
}
