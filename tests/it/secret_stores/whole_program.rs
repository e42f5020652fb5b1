//! The program with its credentials in Secret Manager: connected, refreshed, replaced, removed, and what
//! is left when something dies or fails in between.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use nucleus::{demo::Method, domain::IntegrationId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    backends,
    child::{PATIENCE, happens},
    doubles::{
        secret_manager::{Call, Fault, SecretManagerDouble},
        small_mailbox,
    },
    harness::{Setting, TestApp},
};

/// Rotations of a refresh token, in a row.
const ROTATIONS: usize = 1_000;

async fn start(url: &str) -> TestApp {
    Setting::new(small_mailbox(2))
        .options(|options| options.rotate_refresh_tokens = true)
        .in_secret_manager(url)
        .start()
        .await
}

async fn double() -> (SecretManagerDouble, TestApp) {
    let double = SecretManagerDouble::start().await;
    let app = start(&double.url).await;
    (double, app)
}

/// Fails unless so many versions are live.
async fn assert_live(app: &TestApp, count: usize, when: &str) {
    let live = app.live_versions().await;
    assert_eq!(live.len(), count, "{when}: {live:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_s_life_leaves_one_version_and_its_end_none() {
    let app = start(&backends::secret_manager_url()).await;
    let entity = app.entity().await;
    let id = app.connect_for(&entity, json!({})).await;
    assert_live(&app, 1, "connected").await;
    for round in 1..=3 {
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_eq!(app.calls(Method::Token), round);
        assert_live(&app, 1, "rotated").await;
        app.google.expire_access_tokens();
    }
    let path = format!("/integrations/{id}");
    app.google.set_refresh_token("1//anew");
    let body = json!({"credentials": {"refresh_token": "1//anew"}});
    assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    assert_live(&app, 1, "replaced").await;
    assert_eq!(app.sync(&id).await["status"], "success");
    let removed = app.send("DELETE", &path, None).await;
    assert_eq!((removed.0, &removed.1["revoked"]), (200, &json!(true)));
    assert_live(&app, 0, "removed").await;

    // The numbers go on where the same account comes again.
    app.google.set_refresh_token("1//once-more");
    app.connect_for(&entity, json!({})).await;
    let live = app.live_versions().await;
    assert!(live.first().unwrap().ends_with("/versions/7"), "{live:?}");
    assert_eq!(
        app.send("DELETE", &format!("/entities/{entity}"), None)
            .await
            .0,
        200
    );
    assert_live(&app, 0, "the entity is gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_is_removed_leaves_no_secret() {
    let (double, app) = double().await;
    let entity = app.entity().await;
    app.connect_for(&entity, json!({})).await;
    assert_eq!(double.secrets().len(), 1);
    let removed = app
        .send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(removed.0, 200);
    assert!(double.secrets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rotations_leave_one_version_and_two_at_most_were_live() {
    let (double, app) = double().await;
    let id = app.connect().await;
    let integration: IntegrationId = id.parse().unwrap();
    let mut last: Option<SecretString> = None;
    for _ in 0..ROTATIONS {
        let tokens = &app.app.engine.tokens;
        let token = tokens.token_for(integration, last.as_ref(), false).await;
        last = Some(token.unwrap());
    }
    assert_eq!(app.calls(Method::Token), ROTATIONS);
    let secrets = double.secrets();
    let secret = secrets.values().next().unwrap();
    assert_eq!(secret.versions.len(), 1 + ROTATIONS);
    assert_eq!((secret.live(), double.most_live()), (1, 2));
    // Each costs one write and one destruction, and nothing is listed.
    assert_eq!(double.count(Call::Destroy), ROTATIONS);
    assert_eq!(double.count(Call::List), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_tokens_that_are_refreshed_write_nothing() {
    let double = SecretManagerDouble::start().await;
    let app = Setting::new(small_mailbox(2))
        .in_secret_manager(&double.url)
        .start()
        .await;
    let id = app.connect().await;
    let written = double.count(Call::Add);
    for round in 1..=24 {
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_eq!(app.calls(Method::Token), round);
        app.clock.advance(TimeDelta::hours(1));
        app.tick().await;
        app.drain().await;
    }
    assert_eq!(double.count(Call::Add), written);
    assert_eq!(double.count(Call::Destroy), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_that_was_lost_leaves_is_swept_by_its_intent() {
    let (double, app) = double().await;
    let id = app.connect().await;
    // Added, and not answered: the client is told that it was not done.
    double.inject(Call::Add, Fault::Lost, 1);
    let path = format!("/integrations/{id}");
    let body = json!({"credentials": {"refresh_token": "1//another"}});
    let (status, answer) = app.send("PATCH", &path, Some(body)).await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    assert_eq!(double.live(), 2, "one of them is nobody's");
    app.tick().await;
    assert_eq!(double.live(), 2, "its writer may come back");
    app.clock.advance(TimeDelta::minutes(61));
    app.tick().await;
    assert_eq!(double.live(), 1, "swept");
    assert_eq!(app.sync(&id).await["status"], "success");

    // A version that could not be destroyed, too.
    double.inject(Call::Destroy, Fault::Refuse(403, "PERMISSION_DENIED"), 1);
    app.google.set_refresh_token("1//the-next");
    let body = json!({"credentials": {"refresh_token": "1//the-next"}});
    assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    assert_eq!(double.live(), 2, "the old one stays");
    app.clock.advance(TimeDelta::minutes(61));
    app.tick().await;
    assert_eq!(double.live(), 1, "swept too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_changes_no_status_and_is_over_when_it_is_over() {
    let double = SecretManagerDouble::start().await;
    let app = Setting::new(small_mailbox(2))
        .in_secret_manager(&double.url)
        .variable("NUCLEUS_SYNC__MAX_ATTEMPTS", "1")
        .start()
        .await;
    let id = app.connect().await;
    for fault in [
        Fault::Refuse(429, "RESOURCE_EXHAUSTED"),
        Fault::Refuse(500, "INTERNAL"),
    ] {
        double.inject(Call::Access, fault, 10_000);
        let run = app.sync(&id).await;
        assert_eq!(run["error"]["code"], "unavailable", "{run}");
        assert_eq!(app.integration(&id).await["status"], "active");
        double.mend();
        assert_eq!(app.sync(&id).await["status"], "success");
        app.google.expire_access_tokens();
    }
    // A refusal is told without what was refused, and its end is a success.
    double.inject(
        Call::Access,
        Fault::Refuse(403, "PERMISSION_DENIED"),
        10_000,
    );
    let run = app.sync(&id).await;
    let detail = run["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("denied access"), "{detail}");
    assert!(!detail.contains("PERMISSION") && !detail.contains("projects/"));
    double.mend();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_eq!(app.integration(&id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_another_process_replaced_while_it_was_read_is_looked_up_anew() {
    let (double, app) = double().await;
    let id = app.connect().await;
    let integration: IntegrationId = id.parse().unwrap();
    let (other, _) = app.beside(TimeDelta::zero()).await;
    // The other one has read the row, and its question for the version is on the way.
    let arrive = Arc::new(Notify::new());
    double.inject(Call::Access, Fault::Wait(Arc::clone(&arrive)), 1);
    let late = tokio::spawn(async move {
        let tokens = &other.engine.tokens;
        tokens.token_for(integration, None, false).await
    });
    assert!(happens(PATIENCE, async || double.count(Call::Access) == 1).await);
    // Meanwhile this one rotates the refresh token, and destroys the version.
    let tokens = &app.app.engine.tokens;
    tokens.token_for(integration, None, false).await.unwrap();
    assert_eq!(double.count(Call::Destroy), 1);
    arrive.notify_one();
    let token = tokio::time::timeout(Duration::from_secs(20), late).await;
    let token = token.unwrap().unwrap().unwrap();
    assert!(!token.expose_secret().is_empty());
    assert_eq!(app.integration(&id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_while_the_sweep_looks_is_not_swept() {
    let (double, app) = double().await;
    let id = app.connect().await;
    let path = format!("/integrations/{id}");
    let replace = async |token: &str| {
        app.google.set_refresh_token(token);
        let body = json!({"credentials": {"refresh_token": token}});
        assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    };
    // An old intent, which has the sweep look at this secret.
    double.inject(Call::Destroy, Fault::Refuse(403, "PERMISSION_DENIED"), 1);
    replace("1//another").await;
    app.clock.advance(TimeDelta::minutes(61));
    let arrive = Arc::new(Notify::new());
    double.inject(Call::List, Fault::Wait(Arc::clone(&arrive)), 1);
    let replacing = async {
        assert!(happens(PATIENCE, async || double.count(Call::List) == 1).await);
        replace("1//the-next").await;
        arrive.notify_one();
    };
    tokio::join!(app.tick(), replacing);
    assert_eq!(double.live(), 1, "the one that nobody pinned is swept");
    let tested = app.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_whether_it_answers() {
    let (double, app) = double().await;
    assert_eq!(app.get("/health").await["checks"]["secrets"], "ok");
    double.inject(Call::List, Fault::Refuse(403, "PERMISSION_DENIED"), 1);
    let (status, health) = app.send("GET", "/health", None).await;
    assert_eq!(status, 503);
    assert_ne!(health["checks"]["secrets"], "ok", "{health}");
    assert_eq!(health["checks"]["database"], "ok", "{health}");
    assert_eq!(app.get("/health").await["status"], "ok");
}
