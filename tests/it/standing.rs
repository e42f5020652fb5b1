//! How connections stand: what a service said of credentials holds for those alone, and connections that
//! no sync asks about are looked at by themselves.

use chrono::TimeDelta;
use nucleus::{
    db::disconnection::{self, Disconnection},
    domain::ids::Id,
    worker::scheduler,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    child::{PATIENCE, happens},
    doubles::authorization_server::{AuthorizationServer, Call, Failure},
    harness::TestApp,
    refreshes::{connect, connect_at, start},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_credentials_that_were_replaced_ends_nothing() {
    if !cfg!(feature = "failpoints") {
        panic!("the crash points are not compiled in: run with --features failpoints");
    }
    let server = AuthorizationServer::steady().await;
    let app = std::sync::Arc::new(start(&server).await);
    let id = connect(&app, &server).await;
    server.withdraw("me@example.com");
    // Between the service's word and the end of the run.
    let (replacing, path) = (std::sync::Arc::clone(&app), format!("/integrations/{id}"));
    let (runtime, consents) = (Handle::current(), server.clone());
    fail::cfg_callback("standing.judged", move || {
        fail::remove("standing.judged");
        tokio::task::block_in_place(|| {
            let body =
                json!({"credentials": {"refresh_token": consents.consent("me@example.com")}});
            let changed = runtime.block_on(replacing.send("PATCH", &path, Some(body)));
            assert_eq!(changed.0, 200, "{}", changed.1);
            consents.hand_out(replacing.google.access_token());
        });
    })
    .unwrap();
    let run = app.request_sync(&id).await;
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["error"]),
        (&json!("success"), &Value::Null)
    );
    let found = app.integration(&id).await;
    assert_eq!(
        (&found["status"], &found["sync_error_message"]),
        (&json!("active"), &Value::Null)
    );
}

async fn check(app: &TestApp) -> usize {
    app.app.integrations.check_due().await.unwrap()
}

async fn standing(app: &TestApp, id: &str) -> String {
    let found = app.integration(id).await;
    found["status"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_connector_is_checked_every_day() {
    let server = AuthorizationServer::rotating().await;
    let app = start(&server).await;
    let id = connect_at(&app, &server, "twitter").await;
    assert_eq!(check(&app).await, 0, "it was connected just now");
    for day in 1..=3 {
        app.clock.advance(TimeDelta::days(1));
        let (other, _) = app.beside(TimeDelta::zero()).await;
        let (here, there) = tokio::join!(check(&app), other.integrations.check_due());
        assert_eq!(here + there.unwrap(), 1, "day {day}");
        assert_eq!(check(&app).await, 0, "day {day}");
        // The refresh token is not let die of disuse.
        assert_eq!(server.count(Call::Refresh), day);
    }
    // An outage is none of its owner's business, what the operator has to mend is.
    for (failure, status) in [
        (Failure::InternalError, "active"),
        (Failure::InvalidClient, "error"),
    ] {
        app.clock.advance(TimeDelta::days(1));
        server.fail(Call::Refresh, failure, 1);
        assert_eq!(check(&app).await, 1, "{failure:?}");
        assert_eq!(standing(&app, &id).await, status, "{failure:?}");
    }
    app.clock.advance(TimeDelta::days(1));
    assert_eq!(check(&app).await, 1);
    assert_eq!(standing(&app, &id).await, "active");
    server.withdraw("me@example.com");
    app.clock.advance(TimeDelta::days(1));
    assert_eq!(check(&app).await, 1);
    assert_eq!(standing(&app, &id).await, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_is_asked_about_ever_more_rarely_and_comes_back_by_itself() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let id = connect(&app, &server).await;
    assert_eq!(check(&app).await, 0, "syncs ask about it");
    let end = async || {
        server.fail(Call::Refresh, Failure::InvalidGrant, 1);
        let run = app.sync(&id).await;
        assert_eq!(run["error"]["code"], "access_revoked", "{run}");
    };
    // A service that was wrong.
    end().await;
    app.clock.advance(TimeDelta::hours(23));
    assert_eq!(check(&app).await, 0);
    app.clock.advance(TimeDelta::hours(2));
    server.hand_out(app.google.access_token());
    assert_eq!(check(&app).await, 1);
    assert_eq!(standing(&app, &id).await, "active");
    assert_eq!(app.sync(&id).await["status"], "success");
    app.clock.advance(TimeDelta::days(40));
    assert_eq!(check(&app).await, 0, "syncs ask about it");

    // A service that was right.
    app.google.expire_access_tokens();
    end().await;
    server.withdraw("me@example.com");
    let mut asked = Vec::new();
    for day in 1..=200 {
        app.clock.advance(TimeDelta::days(1));
        if check(&app).await == 1 {
            asked.push(day);
        }
        assert_eq!(standing(&app, &id).await, "revoked");
    }
    assert_eq!(asked, [1, 2, 4, 8, 16, 32, 64]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_connected_before_there_was_a_connector_is_synced_once_there_is() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let id = connect(&app, &server).await;
    let without = connect_at(&app, &server, "twitter").await;
    server.hand_out(app.google.access_token());
    // As a program without the connector leaves it.
    let forget = |table| {
        format!(
            "UPDATE {table} SET next_sync_at = NULL, next_check_at = created_at
             RETURNING service_name"
        )
    };
    let (sqlite, postgres) = (
        forget("entity_integrations"),
        forget("dna.entity_integrations"),
    );
    app.rows(&sqlite, &postgres).await;
    assert_eq!(app.tick().await.requested, 1);
    app.drain().await;
    let found = app.integration(&id).await;
    assert_eq!(found["last_sync_status"], "success", "{found}");
    assert!(found["next_sync_at"].is_string(), "{found}");
    let found = app.integration(&without).await;
    assert_eq!(found["next_sync_at"], Value::Null, "{found}");
    assert_eq!(check(&app).await, 1, "the other one");
    // One that its owner has switched off stays off.
    let path = format!("/integrations/{id}");
    let off = Some(json!({"status": "inactive"}));
    assert_eq!(app.send("PATCH", &path, off).await.0, 200);
    app.rows(&sqlite, &postgres).await;
    assert_eq!(app.tick().await.requested, 0);
    assert_eq!(app.integration(&id).await["next_sync_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_keeps_no_due_sync_waiting() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let due = connect(&app, &server).await;
    // So many that it takes a minute to ask for them, one after the other.
    let db = &app.app.engine.db;
    for _ in 0..6 {
        let id = connect_at(&app, &server, "twitter").await;
        let found = app.integration(&id).await;
        let row = Disconnection {
            id: Id::new(),
            integration_id: id.parse().unwrap(),
            entity_id: found["entity_id"].as_str().unwrap().parse().unwrap(),
            service_name: "twitter".to_owned(),
            records: None,
            requested_at: app.app.now(),
            outcome: None,
            detail: None,
            record_count: None,
        };
        let tx = db.begin().await.unwrap();
        disconnection::begin(&tx, &row).await.unwrap();
        tx.commit().await.unwrap();
    }
    disconnection::end_leases(db).await.unwrap();
    server.hold(Call::Revoke);
    let shutdown = CancellationToken::new();
    let passes = tokio::spawn(scheduler::run(app.app.clone(), shutdown.clone()));
    let cleaning = scheduler::clean_up_each_minute(app.app.clone(), shutdown.clone());
    let cleaning = tokio::spawn(cleaning);
    assert!(happens(PATIENCE, async || server.count(Call::Revoke) > 0).await);
    app.clock.advance(TimeDelta::days(1));
    let is_asked_for = happens(PATIENCE, async || {
        let runs = app.all(&format!("/integrations/{due}/runs")).await;
        !runs.is_empty()
    });
    assert!(is_asked_for.await);
    let waits = |table| format!("SELECT 'waits' FROM {table} WHERE finished_at IS NULL");
    let (sqlite, postgres) = (waits("disconnections"), waits("dna.disconnections"));
    assert!(
        !app.rows(&sqlite, &postgres).await.is_empty(),
        "it came only after the service"
    );
    shutdown.cancel();
    passes.await.unwrap();
    cleaning.await.unwrap();
}
