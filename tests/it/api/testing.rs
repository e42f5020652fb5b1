//! `POST /integrations/{id}/test`: what the provider says, and what that changes.

use nucleus::demo::{Fault, Match, Method};
use serde_json::{Value, json};

use super::{
    OWNER, assert_gives_nothing_away, assert_keys, assert_time, pinned, start, start_in_vault,
};
use crate::harness::TestApp;

async fn test(app: &TestApp, id: &str) -> Value {
    let (status, answer) = app
        .send("POST", &format!("/integrations/{id}/test/"), None)
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["integration_id"], id);
    assert_eq!(answer["service_name"], "gmail");
    assert_time(&answer["tested_at"]);
    assert_gives_nothing_away(&answer.to_string());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn good_credentials_name_the_account() {
    let app = start().await;
    let id = app.connect().await;
    let answer = test(&app, &id).await;
    assert_keys(
        &answer,
        &[
            "integration_id",
            "service_name",
            "is_valid",
            "tested_at",
            "account",
        ],
    );
    assert_eq!(
        (&answer["is_valid"], &answer["account"]),
        (&json!(true), &json!(OWNER))
    );
    assert_eq!(app.integration(&id).await["status"], "active");
    // Asking is no sync.
    assert!(
        app.all(&format!("/integrations/{id}/runs"))
            .await
            .is_empty()
    );
    assert_eq!(app.google.served(Method::MessagesList), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_consent_is_told_and_kept() {
    let app = start().await;
    let id = app.connect().await;
    app.google.revoke_grant();
    let answer = test(&app, &id).await;
    assert_keys(
        &answer,
        &[
            "integration_id",
            "service_name",
            "is_valid",
            "tested_at",
            "reason",
        ],
    );
    assert_eq!(answer["is_valid"], false);
    let shown = app.integration(&id).await;
    assert_eq!(shown["status"], "revoked");
    assert_eq!(shown["sync_error_message"], answer["reason"]);
    // Once the consent is there again, the test says so.
    app.google.set_refresh_token("1//demo-refresh-token");
    assert_eq!(test(&app, &id).await["is_valid"], true);
    assert_eq!(app.integration(&id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_says_nothing_about_the_consent() {
    let app = start().await;
    let id = app.connect().await;
    for method in [Method::Token, Method::GetProfile] {
        let fault = Fault::status(503, "backendError");
        app.google.inject_times(Match::method(method), fault, 100);
        let answer = test(&app, &id).await;
        assert_eq!(answer["is_valid"], false, "{method:?}");
        assert!(answer["reason"].is_string());
        assert_eq!(app.integration(&id).await["status"], "active");
        app.google.calm();
        assert_eq!(test(&app, &id).await["is_valid"], true);
        app.google.expire_access_tokens();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_persons_credentials_are_not_valid() {
    let app = start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let tx = app.app.engine.db.begin().await.unwrap();
    let now = app.app.now();
    let other = nucleus::db::integration::Named {
        id: "else",
        name: "else@example.com",
    };
    nucleus::db::integration::set_account(&tx, id.parse().unwrap(), other, now)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let answer = test(&app, &id).await;
    assert_eq!(
        (&answer["is_valid"], &answer["account"]),
        (&json!(false), &json!(OWNER))
    );
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .contains("else@example.com")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inactive_integration_can_be_tested_and_stays_inactive() {
    let app = start().await;
    let id = app.connect().await;
    let body = Some(json!({"status": "inactive"}));
    app.send("PATCH", &format!("/integrations/{id}"), body)
        .await;
    assert_eq!(test(&app, &id).await["is_valid"], true);
    app.google.revoke_grant();
    app.google.expire_access_tokens();
    assert_eq!(test(&app, &id).await["is_valid"], false);
    assert_eq!(app.integration(&id).await["status"], "inactive");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_read_do_not_show_where_they_lie() {
    let app = start_in_vault().await;
    let id = app.connect().await;
    let path = pinned(&app)
        .await
        .pop_first()
        .unwrap()
        .replace("versions/", "");
    let file = app.folder.path().join("vault").join(path);
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(test(&app, &id).await["is_valid"], false);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(test(&app, &id).await["is_valid"], false);
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "failed");
    assert_gives_nothing_away(&run.to_string());
    assert_gives_nothing_away(&app.integration(&id).await.to_string());
}
