//! Who calls: one good header, or 401 before anything else is looked at.

use nucleus::{
    app,
    db::api_key::{self, KeyScope},
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    ask, assert_is_problem, bearer,
    good_requests::{self, Watch},
    key_of, start_embedded as start,
};
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
}

/// The values of the `Authorization` headers of requests that are nobody's.
fn nobodys_headers(entity_key: &str) -> Vec<Vec<String>> {
    let operator = bearer(OPERATOR_KEY);
    let entity = bearer(entity_key);
    let own = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let mut headers: Vec<Vec<String>> = [
        &[][..],
        // Blank.
        &[""],
        &[" "],
        &["Bearer"],
        &["Bearer "],
        &["Bearer \t "],
        // Doubled.
        &[&operator, &operator],
        &[&operator, &entity],
        &[&entity, &operator],
        &[&operator, ""],
        &["", &operator],
        &[&operator, "Basic eDp4"],
        // Wrong.
        &[OPERATOR_KEY],
        &["Bearer null"],
        &["Bearer undefined"],
        &["Bearer operator"],
        &["Bearer nk_"],
        &["Bearer nk_0000000000000000000000000000000000"],
        &["Bearer ' OR 1=1 --"],
        &["Bearer \u{fc}"],
    ]
    .into_iter()
    .map(own)
    .collect();
    for value in [
        format!("{operator}x"),
        format!("x{operator}"),
        operator[..operator.len() - 1].to_owned(),
        format!("{operator}, {operator}"),
        format!("{operator},"),
        format!("Basic {OPERATOR_KEY}"),
        format!("Token {OPERATOR_KEY}"),
        format!("Bearer={OPERATOR_KEY}"),
        format!("Bearer \"{OPERATOR_KEY}\""),
        format!("Bearer Bearer {OPERATOR_KEY}"),
    ] {
        headers.push(vec![value]);
    }
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn on_no_route_is_there_an_identity_to_fall_back_on() {
    let (app, good) = good_requests::start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    // Keys are taken from the header alone.
    let query = format!("access_token={OPERATOR_KEY}&key={OPERATOR_KEY}&api_key={key}");
    let elsewhere = [
        ("x-api-key", OPERATOR_KEY),
        ("x-authorization", &bearer(OPERATOR_KEY)),
        ("proxy-authorization", &bearer(OPERATOR_KEY)),
        ("x-forwarded-user", "operator"),
        ("cookie", &format!("authorization=Bearer {OPERATOR_KEY}")),
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    let mut watch = Watch::begin(&app).await;
    let mut refused = 0;
    for operation in operations().iter().filter(|o| o.is_for_callers()) {
        let request = good
            .iter()
            .find(|good| (good.method, good.route) == (&operation.method, &operation.path));
        let (path, body) = match request {
            Some(good) => (good.path.clone(), good.body.to_string()),
            None => (operation.at(&entity), String::new()),
        };
        for values in nobodys_headers(&key) {
            let values = values.iter().map(|value| ("authorization", value.as_str()));
            let headers: Vec<_> = values.chain(elsewhere).collect();
            let path = format!("{path}?{query}");
            let answer = ask(&app, &operation.method, &path, &headers, body.as_bytes()).await;
            answer.assert_problem(401, "unauthorized");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer"), "{path}");
            refused += 1;
        }
    }
    assert!(refused >= 500, "{refused}");
    assert!(
        !watch.has_seen(&app).await,
        "something was done all the same"
    );
    // Where nobody has to say who they are, a wrong word is no harm and no help.
    for operation in operations() {
        if operation.is_for_callers() || operation.is_callback() {
            continue;
        }
        for values in nobodys_headers(&key) {
            let values = values.iter().map(|value| ("authorization", value.as_str()));
            let headers: Vec<_> = values.collect();
            let answer = ask(&app, &operation.method, &operation.at("x"), &headers, b"").await;
            assert_eq!(answer.status, 200, "{}", operation.path);
        }
    }
    app.drain().await;
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
    let key = app.app.create_key(None, KeyScope::Write).await.unwrap();
    let key = Some(key.expose_secret());
    let body = Some(json!({"name": "Another"}));
    let (status, _) = app.send_as(key, "POST", "/entities", body).await;
    assert_eq!(status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_has_two_keys_of_a_scope_so_that_one_can_take_the_others_place() {
    let app = start().await;
    let entity = app.entity().await;
    let first = key_of(&app, &entity).await;
    let second = key_of(&app, &entity).await;
    let owner = Some(entity.parse().unwrap());
    let refused = app.app.create_key(owner, KeyScope::Write).await;
    let refused = refused.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("nucleus key revoke"), "{refused}");
    for key in [&first, &second] {
        let (status, _) = app.send_as(Some(key), "GET", "/integrations", None).await;
        assert_eq!(status, 200);
    }
    // Keys that only read are counted apart, and a revoked one makes room.
    app.app.create_key(owner, KeyScope::Read).await.unwrap();
    let db = &app.app.engine.db;
    let row = api_key::find(db, &nucleus::keys::hash(&first)).await;
    let tx = db.begin().await.unwrap();
    let id = row.unwrap().unwrap().id;
    api_key::revoke(&tx, id, app.app.now()).await.unwrap();
    tx.commit().await.unwrap();
    app.app.create_key(owner, KeyScope::Write).await.unwrap();
    let nobody = Some(super::NOBODY.parse().unwrap());
    assert!(app.app.create_key(nobody, KeyScope::Write).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_made_at_once_two_are_made() {
    let app = super::start().await;
    let entity = app.entity().await;
    let owner = Some(entity.parse().unwrap());
    let making = (0..8).map(|_| app.app.create_key(owner, KeyScope::Write));
    let made = futures_util::future::join_all(making).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_key_was_used_is_known_to_the_minute() {
    let app = super::start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let db = &app.app.engine.db;
    let used = async || {
        app.app.save_key_uses().await.unwrap();
        let row = api_key::find(db, &nucleus::keys::hash(&key)).await.unwrap();
        row.unwrap().last_used_at
    };
    assert_eq!(used().await, None);
    let first = app.app.now();
    app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(used().await, Some(first));
    app.clock.advance(chrono::TimeDelta::seconds(50));
    app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(used().await, Some(first));
    app.clock.advance(chrono::TimeDelta::seconds(10));
    let last = app.app.now();
    app.send_as(Some(&key), "GET", "/integrations", None).await;
    assert_eq!(used().await, Some(last));
}
