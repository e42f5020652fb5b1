//! `PATCH /integrations/{id}`: what is absent stays, a null clears, credentials are replaced.

use chrono::{DateTime, TimeDelta, Utc};
use nucleus::{
    db::{integration, standing},
    demo::generate,
    domain::sync::{IntegrationStatus, Scope},
};
use serde_json::{Value, json};

use super::{assert_is_problem, by_token, fields, pinned, start, start_in_vault, versions};
use crate::harness::{Setting, TestApp};

async fn change(app: &TestApp, id: &str, body: Value) -> Value {
    let (status, answer) = app
        .send("PATCH", &format!("/integrations/{id}"), Some(body))
        .await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn refused(app: &TestApp, id: &str, body: &Value) -> (u16, Value) {
    app.send("PATCH", &format!("/integrations/{id}/"), Some(body.clone()))
        .await
}

/// The service says how the connection stands.
async fn set_status(app: &TestApp, id: &str, status: IntegrationStatus) {
    let db = &app.app.engine.db;
    let found = integration::find(db, Scope::Operator, id.parse().unwrap());
    let found = found.await.unwrap();
    let tx = db.begin().await.unwrap();
    let set = standing::set_status(&tx, &found, status, Some("why"), app.app.now());
    assert!(set.await.unwrap());
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_absent_stays_and_a_null_clears() {
    let app = start().await;
    let id = app.connect().await;
    let full = json!({
        "display_name": "Work",
        "description": "words",
        "config": {"a": 1},
        "sync_settings": {"interval_minutes": 5, "include_spam_trash": true},
    });
    let first = change(&app, &id, full.clone()).await;
    for field in ["display_name", "description", "config", "sync_settings"] {
        assert_eq!(first[field], full[field], "{field}");
    }
    let untouched = change(&app, &id, json!({})).await;
    for field in [
        "display_name",
        "description",
        "config",
        "sync_settings",
        "status",
        "next_sync_at",
    ] {
        assert_eq!(untouched[field], first[field], "{field}");
    }
    for (field, cleared) in [
        ("display_name", Value::Null),
        ("description", Value::Null),
        ("config", json!({})),
        (
            "sync_settings",
            json!({"interval_minutes": 60, "include_spam_trash": false}),
        ),
    ] {
        let before = app.integration(&id).await;
        let after = change(&app, &id, json!({field: null})).await;
        assert_eq!(after[field], cleared);
        for other in ["display_name", "description", "config", "sync_settings"] {
            if other != field {
                assert_eq!(after[other], before[other], "{field} touched {other}");
            }
        }
        assert_eq!(app.integration(&id).await, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_change_changes_nothing() {
    let app = start().await;
    let id = app.connect().await;
    let before = app.integration(&id).await;
    let secrets = versions(&app).await;
    for (body, field) in [
        (json!({"display_name": 7}), "display_name"),
        (json!({"display_name": "x".repeat(256)}), "display_name"),
        (json!({"description": "a\0"}), "description"),
        (json!({"config": []}), "config"),
        (json!({"config": {"a": "\0"}}), "config"),
        (
            json!({"sync_settings": {"interval_minutes": -1}}),
            "sync_settings.interval_minutes",
        ),
        (json!({"sync_settings": 5}), "sync_settings"),
        (json!({"status": null}), "status"),
        (json!({"status": "expired"}), "status"),
        (json!({"status": "error"}), "status"),
        (json!({"credentials": null}), "credentials"),
        (json!({"credentials": {}}), "credentials.refresh_token"),
        (
            json!({"credentials": {"refresh_token": "r", "client_id": "other"}}),
            "credentials.client_id",
        ),
        (json!({"display_name": "new", "entity": 1}), "entity"),
    ] {
        let (status, answer) = refused(&app, &id, &body).await;
        assert_eq!(status, 422, "{body}");
        assert_is_problem(&answer, 422, "invalid_fields");
        assert_eq!(fields(&answer), [field.to_owned()].into(), "{body}");
    }
    assert_eq!(app.integration(&id).await, before);
    assert_eq!(versions(&app).await, secrets);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inactive_integration_rests_until_it_is_active() {
    let app = Setting::new(generate::mailbox(3, 1)).start().await;
    let id = app.connect().await;
    assert_eq!(
        change(&app, &id, json!({"status": "inactive"})).await["status"],
        "inactive"
    );
    let (status, answer) = app
        .send("POST", &format!("/integrations/{id}/sync"), None)
        .await;
    assert_eq!(status, 409);
    assert_is_problem(&answer, 409, "integration_inactive");
    app.clock.advance(TimeDelta::hours(2));
    assert_eq!(app.tick().await.requested, 0);
    assert!(
        app.all(&format!("/integrations/{id}/runs"))
            .await
            .is_empty()
    );
    assert_eq!(
        change(&app, &id, json!({"status": "active"})).await["status"],
        "active"
    );
    assert_eq!(app.tick().await.requested, 1);
    app.drain().await;
    let runs = app.all(&format!("/integrations/{id}/runs")).await;
    assert_eq!((runs.len(), &runs[0]["trigger"]), (1, &json!("schedule")));
    assert_eq!(runs[0]["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_move_the_next_sync() {
    let app = start().await;
    let id = app.connect().await;
    let minutes = |shown: &Value| {
        let time = |field: &str| {
            shown[field]
                .as_str()
                .unwrap()
                .parse::<DateTime<Utc>>()
                .unwrap()
        };
        (time("next_sync_at") - time("created_at")).num_minutes()
    };
    assert!((60..=66).contains(&minutes(&app.integration(&id).await)));
    let sooner = change(&app, &id, json!({"sync_settings": {"interval_minutes": 5}})).await;
    assert_eq!(minutes(&sooner), 5);
    let later = change(
        &app,
        &id,
        json!({"sync_settings": {"interval_minutes": 600}}),
    )
    .await;
    assert!((600..=660).contains(&minutes(&later)));
    // What would have been due long ago is due now, and not before.
    app.clock.advance(TimeDelta::minutes(60));
    let now = change(&app, &id, json!({"sync_settings": {"interval_minutes": 1}})).await;
    assert_eq!(minutes(&now), 60);
    assert_eq!(app.tick().await.requested, 1);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_credentials_take_the_place_of_the_old() {
    let app = Setting::new(generate::mailbox(3, 1)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let old = versions(&app).await;
    app.google.revoke_grant();
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "failed");
    assert_eq!(app.integration(&id).await["status"], "revoked");
    let (status, answer) = refused(&app, &id, &json!({"status": "active"})).await;
    assert_eq!(status, 409);
    assert_is_problem(&answer, 409, "integration_ended");
    app.google.set_refresh_token("1//canary-new");
    let changed = change(
        &app,
        &id,
        json!({"credentials": {"refresh_token": "1//canary-new"}}),
    )
    .await;
    assert_eq!(changed["status"], "active");
    assert!(!changed.to_string().contains("canary"));
    let new = versions(&app).await;
    assert_eq!(new, pinned(&app).await);
    assert!(new.len() == 1 && new.is_disjoint(&old), "{old:?} {new:?}");
    assert_eq!(app.sync(&id).await["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_replaced_at_the_same_time_leave_one_version() {
    let app = start().await;
    let id = app.connect().await;
    let body = json!({"credentials": {"refresh_token": "another"}});
    let answers = futures_util::future::join_all((0..8).map(|_| refused(&app, &id, &body))).await;
    assert!(
        answers.iter().any(|(status, _)| *status == 200),
        "{answers:?}"
    );
    for (status, answer) in answers {
        if status != 200 {
            assert_is_problem(&answer, 409, "conflict");
        }
    }
    assert_eq!(versions(&app).await.len(), 1);
    assert_eq!(versions(&app).await, pinned(&app).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_that_cannot_be_destroyed_is_swept_later() {
    let app = start_in_vault().await;
    let entity = app.entity().await;
    let made = app.post("/integrations", by_token(&entity, "github")).await;
    let id = made["id"].as_str().unwrap();
    let old = pinned(&app).await.pop_first().unwrap();
    let file = app
        .folder
        .path()
        .join("vault")
        .join(old.replace("versions/", ""));
    // A folder in its place cannot be unlinked.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    change(&app, id, json!({"credentials": {"token": "new"}})).await;
    assert_eq!(versions(&app).await.len(), 2);
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, b"sealed").unwrap();
    assert_eq!(app.tick().await.requested, 0);
    assert_eq!(
        versions(&app).await.len(),
        2,
        "an intent younger than an hour may be at work"
    );
    app.clock.advance(TimeDelta::minutes(61));
    app.tick().await;
    assert_eq!(versions(&app).await, pinned(&app).await);
    assert!(!versions(&app).await.contains(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_stands_decides_whether_it_may_sync() {
    let app = start().await;
    for (status, code) in [
        (IntegrationStatus::Expired, Some("integration_expired")),
        (IntegrationStatus::Revoked, Some("integration_revoked")),
        (IntegrationStatus::Error, None),
    ] {
        let id = app.connect().await;
        set_status(&app, &id, status).await;
        let path = format!("/integrations/{id}/sync");
        let (got, answer) = app.send("POST", &path, None).await;
        match code {
            Some(code) => assert_is_problem(&answer, 409, code),
            None => assert_eq!(got, 202, "{answer}"),
        }
    }
    app.drain().await;
    // A success ends the error.
    let all = app.all("/integrations?status=active").await;
    assert_eq!(all.len(), 1);
}
