//! The audit log: what is written down of requests, who may read it, and that nothing is done where it
//! cannot be written down.

use std::collections::BTreeSet;

use nucleus::{
    audit::{self, Attempt},
    db::audit_log,
    domain::audit::Action,
};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use super::{
    NOBODY, ask, bearer, by_token, good_requests, key_of, start, start_embedded, versions,
};
use crate::{
    contract,
    harness::{OPERATOR_KEY, TestApp},
};

async fn entries(app: &TestApp) -> Vec<Value> {
    app.all("/audit").await
}

/// What was done, without what it did with credentials.
fn actions(entries: &[Value]) -> BTreeSet<String> {
    let actions = entries
        .iter()
        .map(|entry| entry["action"].as_str().unwrap());
    let acts = actions.filter(|action| !action.starts_with("secret."));
    acts.map(str::to_owned).collect()
}

/// As what the document says that an operation is written down.
fn described(method: &str, path: &str) -> BTreeSet<String> {
    let operation = contract::operation(method, path).unwrap();
    let actions = operation.described["x-audit"].as_array();
    let actions = actions.into_iter().flatten();
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_says_is_written_down_is_and_nothing_else() {
    let (app, good) = good_requests::start().await;
    let entity = app.entity().await;
    let gone = app.connect_for(&entity, json!({})).await;
    let mut requests: Vec<(&str, String, Value, u16)> = good
        .into_iter()
        .map(|good| (good.method, good.path, good.body, good.status))
        .collect();
    requests.push(("DELETE", format!("/integrations/{gone}"), Value::Null, 200));
    requests.push(("DELETE", format!("/entities/{entity}"), Value::Null, 200));
    for path in [
        "/entities",
        "/integrations",
        "/events",
        "/audit",
        "/services",
        "/metrics",
    ] {
        requests.push(("GET", path.to_owned(), Value::Null, 200));
    }
    let mut before = entries(&app).await.len();
    for (method, path, body, status) in requests {
        let key = bearer(OPERATOR_KEY);
        let headers = [
            ("authorization", key.as_str()),
            ("content-type", "application/json"),
            ("x-request-id", "asked-for"),
        ];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let answer = ask(&app, method, &path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let all = entries(&app).await;
        let new = &all[..all.len() - before];
        before = all.len();
        let (done, expected) = (actions(new), described(method, &path));
        let extra: Vec<_> = done.difference(&expected).collect();
        // Removing revokes the grant.
        assert!(
            extra.iter().all(|action| *action == "grant.revoke"),
            "{path}: {extra:?}"
        );
        assert_eq!(
            done.is_disjoint(&expected),
            expected.is_empty(),
            "{path}: {done:?}"
        );
        for entry in new {
            assert_eq!(entry["interface"], "api", "{entry}");
            assert_eq!(entry["actor"], "operator", "{entry}");
            assert_eq!(entry["request_id"], "asked-for", "{entry}");
            assert_eq!(entry["address"], "127.0.0.1", "{entry}");
        }
    }
    let verified = audit::verify(&app.app.engine.db, Vec::new()).await.unwrap();
    assert!(
        verified.findings.is_empty() && verified.rows > 20,
        "{verified:?}"
    );
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_use_of_a_secret_has_an_attempt_and_an_end() {
    let app = start().await;
    let integration = app.connect().await;
    app.sync(&integration).await;
    let (status, _) = app
        .send("DELETE", &format!("/integrations/{integration}"), None)
        .await;
    assert_eq!(status, 200);
    let all = entries(&app).await;
    let of = |action: &str, outcome: &str| -> Vec<&Value> {
        let fitting = all.iter();
        fitting
            .filter(|entry| entry["action"] == action && entry["outcome"] == outcome)
            .collect()
    };
    for action in [
        "secret.write",
        "secret.read",
        "secret.destroy",
        "grant.revoke",
    ] {
        let (attempts, ends) = (of(action, "attempt"), of(action, "success"));
        assert!(!ends.is_empty(), "{action}: {all:#?}");
        let attempts: BTreeSet<_> = attempts.iter().map(|entry| entry["id"].as_str()).collect();
        let ended: BTreeSet<_> = ends
            .iter()
            .map(|entry| entry["attempt_id"].as_str())
            .collect();
        assert_eq!(attempts, ended, "{action}");
    }
    // The run is the worker's, the removal the operator's.
    let readers: BTreeSet<_> = of("secret.read", "success")
        .iter()
        .map(|entry| {
            (
                entry["actor"].as_str().unwrap(),
                entry["interface"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        readers,
        BTreeSet::from([("system", "worker"), ("operator", "api")])
    );
    assert!(of("secret.read", "unknown").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_without_an_end_is_unknown() {
    let app = start().await;
    let entity = app.entity().await;
    let db = &app.app.engine.db;
    let owner = Some(entity.parse().unwrap());
    let attempt = Attempt::begin(db, app.clock.as_ref(), owner, Action::SecretWrite, "a").await;
    // Its process dies.
    assert!(attempt.is_ok());
    let attempt = Attempt::begin(db, app.clock.as_ref(), owner, Action::SecretWrite, "b").await;
    attempt.unwrap().end(false, "b").await;
    let all = app.all(&format!("/audit?entity_id={entity}")).await;
    let outcomes: Vec<_> = all
        .iter()
        .map(|entry| entry["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["failure", "attempt", "unknown", "success"]);
    let later = app.app.now() + chrono::TimeDelta::minutes(1);
    assert_eq!(audit_log::unknown_attempts(db, later).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_reads_its_own_and_not_where_secrets_lie() {
    let app = start().await;
    let (entity, other) = (app.entity().await, app.entity().await);
    let integration = app.connect_for(&entity, json!({})).await;
    app.connect_for(&other, json!({})).await;
    let key = key_of(&app, &entity).await;
    let path = format!("/integrations/{integration}");
    let change = Some(json!({"description": "mine"}));
    assert_eq!(app.send_as(Some(&key), "PATCH", &path, change).await.0, 200);
    for path in ["/audit".to_owned(), format!("/audit?entity_id={entity}")] {
        let (status, body) = app.send_as(Some(&key), "GET", &path, None).await;
        assert_eq!(status, 200);
        let own = body["items"].as_array().unwrap();
        assert!(own.len() > 4, "{own:#?}");
        for entry in own {
            assert_eq!(entry["entity_id"], entity.as_str(), "{entry}");
            let is_place = entry["action"].as_str().unwrap().starts_with("secret.");
            assert_eq!(entry["target"].is_null(), is_place, "{entry}");
            let by_itself = entry["actor"] == "entity";
            assert_eq!(entry["address"].is_string(), by_itself, "{entry}");
        }
        assert_eq!(own[0]["action"], "integration.change");
        assert_eq!(own[0]["actor"], "entity");
        assert!(own[0]["key_id"].is_string());
    }
    let path = format!("/audit?entity_id={other}");
    let (status, body) = app.send_as(Some(&key), "GET", &path, None).await;
    assert_eq!((status, &body["items"]), (200, &json!([])));
    let operators = app.all("/audit").await;
    let places = operators.iter().filter(|entry| entry["target"].is_null());
    assert_eq!(places.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_not_done() {
    let app = start_embedded().await;
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    let look = async || {
        json!({
            "entities": app.all("/entities").await,
            "integrations": app.all("/integrations").await,
            "versions": versions(&app).await,
            "audit": app.all("/audit").await,
        })
    };
    let before = look().await;
    let mut database = good_requests::database(&app).await;
    let fail = "CREATE TRIGGER no_audit BEFORE INSERT ON audit_log \
                BEGIN SELECT RAISE(ABORT, 'the audit log is broken'); END";
    sqlx::query(fail).execute(&mut database).await.unwrap();
    let revoked = app.calls(nucleus::demo::Method::Revoke);
    for (method, path, body) in [
        ("POST", "/entities".to_owned(), Some(json!({"name": "x"}))),
        ("DELETE", format!("/entities/{entity}"), None),
        (
            "POST",
            "/integrations".to_owned(),
            Some(by_token(&entity, "github")),
        ),
        (
            "PATCH",
            format!("/integrations/{integration}"),
            Some(json!({"description": "x"})),
        ),
        ("DELETE", format!("/integrations/{integration}"), None),
    ] {
        let (status, answer) = app.send(method, &path, body).await;
        assert!(
            matches!(status, 500 | 503),
            "{method} {path}: {status} {answer}"
        );
        assert_eq!(look().await, before, "{method} {path}");
    }
    // Nor is a secret read: the provider was asked nothing.
    assert_eq!(app.calls(nucleus::demo::Method::Revoke), revoked);
    let owner = Some(entity.parse().unwrap());
    let key = app
        .app
        .create_key(owner, nucleus::db::api_key::KeyScope::Read);
    assert!(key.await.is_err());
    sqlx::query("DROP TRIGGER no_audit")
        .execute(&mut database)
        .await
        .unwrap();
    let (status, _) = app
        .send("DELETE", &format!("/integrations/{integration}"), None)
        .await;
    assert_eq!(status, 200);
}

/// One thing done to the tables, and where it is found.
async fn is_found(database: &mut SqliteConnection, app: &TestApp, change: &str) -> usize {
    let mut tx = database.begin().await.unwrap();
    let changed = sqlx::raw_sql(sqlx::AssertSqlSafe(change.to_owned()))
        .execute(&mut *tx)
        .await;
    assert!(changed.unwrap().rows_affected() > 0, "{change}");
    tx.commit().await.unwrap();
    let verified = audit::verify(&app.app.engine.db, Vec::new()).await.unwrap();
    verified.findings.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_a_gap_and_a_cut_tail_are_found() {
    let app = start_embedded().await;
    let entity = app.entity().await;
    app.connect_for(&entity, json!({})).await;
    app.app
        .create_key(None, nucleus::db::api_key::KeyScope::Read)
        .await
        .unwrap();
    let db = &app.app.engine.db;
    let clean = audit::verify(db, Vec::new()).await.unwrap();
    assert!(clean.findings.is_empty() && clean.chains == 2, "{clean:?}");
    let tx = db.begin().await.unwrap();
    let now = app.app.now();
    let logged = audit_log::take_unlogged(&tx, now, now, 9).await.unwrap();
    assert_eq!(logged.len(), 2);
    assert!(
        audit_log::take_unlogged(&tx, now, now, 9)
            .await
            .unwrap()
            .is_empty()
    );
    tx.commit().await.unwrap();
    let kept = audit::verify(db, logged.clone()).await.unwrap();
    assert!(
        kept.findings.is_empty() && kept.logged_heads == 2,
        "{kept:?}"
    );

    let mut database = good_requests::database(&app).await;
    sqlx::raw_sql("CREATE TABLE log AS SELECT * FROM audit_log; CREATE TABLE heads AS SELECT * FROM audit_heads")
        .execute(&mut database)
        .await
        .unwrap();
    let columns = [
        ("at", "'2020-01-01T00:00:00+00:00'"),
        ("actor", "'entity'"),
        ("key_id", "entity_id"),
        ("entity_id", "NULL"),
        ("action", "'secret.delete'"),
        ("target", "'another'"),
        ("outcome", "'failure'"),
        ("attempt_id", "id"),
        ("request_id", "'another'"),
        ("interface", "'cli'"),
        ("address", "'192.0.2.1'"),
        ("previous_hash", "'0'"),
        ("hash", "'0'"),
    ];
    let edits = columns.map(|(column, value)| {
        format!("UPDATE audit_log SET {column} = {value} WHERE chain = '{entity}' AND position = 2")
    });
    let mut changes = edits.to_vec();
    let of_chain = format!("WHERE chain = '{entity}'");
    let last = format!("(SELECT max(position) FROM audit_log {of_chain})");
    for change in [
        format!("DELETE FROM audit_log {of_chain} AND position = 2"),
        format!("DELETE FROM audit_log {of_chain} AND position = 1"),
        format!("DELETE FROM audit_log {of_chain} AND position = {last}"),
        format!("DELETE FROM audit_log {of_chain}"),
        "DELETE FROM audit_heads WHERE chain = 'operator'".to_owned(),
        "UPDATE audit_heads SET hash = '0' WHERE chain = 'operator'".to_owned(),
        format!("UPDATE audit_log SET position = position + 100 {of_chain} AND position = {last}"),
    ] {
        changes.push(change);
    }
    for change in changes {
        let findings = is_found(&mut database, &app, &change).await;
        assert!(findings > 0, "not found: {change}");
        sqlx::raw_sql(
            "DELETE FROM audit_log; INSERT INTO audit_log SELECT * FROM log;
             DELETE FROM audit_heads; INSERT INTO audit_heads SELECT * FROM heads",
        )
        .execute(&mut database)
        .await
        .unwrap();
    }
    // A whole chain and its head taken away, or cut with its head mended, is told by the logged heads.
    let cut = format!(
        "DELETE FROM audit_log {of_chain} AND position = {last};
         UPDATE audit_heads SET position = {last},
             hash = (SELECT hash FROM audit_log {of_chain} AND position = {last}) {of_chain}"
    );
    let whole = format!("DELETE FROM audit_log {of_chain}; DELETE FROM audit_heads {of_chain}");
    for change in [cut, whole] {
        assert_eq!(is_found(&mut database, &app, &change).await, 0, "{change}");
        let verified = audit::verify(db, logged.clone()).await.unwrap();
        assert_eq!(verified.findings.len(), 1, "{change}");
        assert_eq!(verified.findings[0].chain, entity);
    }
    assert_ne!(entity, NOBODY);
}
