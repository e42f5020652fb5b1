//! Access tokens and refresh tokens: refreshed when needed and not otherwise, rotated without loss,
//! and what each refusal of the token endpoint means for the connection.

use std::sync::Arc;

use axum::{Json, Router, http::StatusCode, routing::post};
use chrono::TimeDelta;
use nucleus::demo::{Fault, Mailbox, Match, Method, mailbox::parse_hex};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    doubles::{mail, serve, small_mailbox},
    harness::{Setting, TestApp},
};

async fn start(count: u64) -> (TestApp, String) {
    let app = Setting::new(small_mailbox(count)).start().await;
    let id = app.connect().await;
    (app, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_refreshed_when_it_ends_and_not_before() {
    let (app, id) = start(3).await;
    for _ in 0..3 {
        app.sync(&id).await;
    }
    assert_eq!(app.calls(Method::Token), 1);
    app.clock.advance(TimeDelta::minutes(58));
    app.sync(&id).await;
    app.sync(&id).await;
    assert_eq!(app.calls(Method::Token), 2);
    assert!(
        app.google
            .requests()
            .iter()
            .all(|request| request.status != 401)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_token_given_at_creation_is_used_while_it_lasts() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let entity = app.entity().await;
    let body = json!({
        "entity_id": entity, "service_name": "gmail", "credential_type": "oauth2",
        "credentials": {
            "refresh_token": app.google.refresh_token(),
            "access_token": app.google.access_token(),
        },
        "token_expires_in": 3599,
    });
    let integration = app.post("/integrations/", body).await;
    let id = integration["id"].as_str().unwrap();
    assert_eq!(app.sync(id).await["status"], "success");
    assert_eq!(app.calls(Method::Token), 0);
    app.clock.advance(TimeDelta::minutes(58));
    assert_eq!(app.sync(id).await["status"], "success");
    assert_eq!(app.calls(Method::Token), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_dies_in_mid_run_is_replaced_once() {
    let (app, id) = start(60).await;
    app.google.hold(Method::MessagesGet);
    app.request_sync(&id).await;
    let meanwhile = async {
        app.google.wait_for_held(Method::MessagesGet, 4).await;
        app.google.expire_access_tokens();
        app.google.release(Method::MessagesGet);
    };
    tokio::join!(app.drain(), meanwhile);
    assert_eq!(app.calls(Method::Token), 2);
    let refused = app
        .google
        .requests()
        .iter()
        .filter(|request| request.status == 401)
        .count();
    assert!((1..=10).contains(&refused), "{refused}");
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_a_token_at_once_cause_one_refresh() {
    let (app, id) = start(1).await;
    let integration = id.parse().unwrap();
    for round in 1..=3 {
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let app = Arc::clone(&app.app);
            waiting.spawn(async move {
                let tokens = &app.engine.tokens;
                let token = tokens.token_for(integration, None, false).await.unwrap();
                token.expose_secret().to_owned()
            });
        }
        let tokens: std::collections::HashSet<String> =
            waiting.join_all().await.into_iter().collect();
        assert_eq!((tokens.len(), app.calls(Method::Token)), (1, round));
        app.clock.advance(TimeDelta::minutes(59));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_consent_ends_the_connection_until_new_credentials_come() {
    let (app, id) = start(3).await;
    app.sync(&id).await;
    app.google.revoke_grant();
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("access_revoked"))
    );
    assert_eq!(app.integration(&id).await["status"], "revoked");
    let path = format!("/integrations/{id}");
    assert_eq!(app.send("POST", &format!("{path}/sync"), None).await.0, 409);
    assert_eq!(
        app.send("PATCH", &path, Some(json!({"status": "active"})))
            .await
            .0,
        409
    );
    let asked = app.calls(Method::Token);
    app.clock.advance(TimeDelta::days(3));
    app.tick().await;
    app.drain().await;
    assert_eq!(app.calls(Method::Token), asked);
    app.google.set_refresh_token("1//anew");
    app.google
        .with_mailbox(|mailbox| mailbox.deliver(mail(1), &["INBOX"]));
    let body = json!({"credentials": {"refresh_token": "1//anew"}});
    let (status, answer) = app.send("PATCH", &path, Some(body)).await;
    assert_eq!((status, &answer["status"]), (200, &json!("active")));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("incremental"))
    );
    assert_eq!(run["counts"]["fetched"], 1);
    assert_eq!(app.live_versions().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_fresh_tokens_has_revoked_the_access() {
    let (app, id) = start(3).await;
    app.google
        .chaos(1, 1000, vec![Fault::status(401, "authError")]);
    let run = app.sync(&id).await;
    // The token endpoint goes on giving tokens that the service refuses.
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("access_revoked"))
    );
    assert_eq!(
        (app.calls(Method::Token), app.calls(Method::GetProfile)),
        (2, 2)
    );
    assert_eq!(app.integration(&id).await["status"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_is_the_operators_to_mend() {
    let (app, id) = start(3).await;
    let refused = Fault::status(401, "invalid_client");
    app.google.inject(Match::method(Method::Token), refused);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("client_refused"))
    );
    assert_eq!(app.integration(&id).await["status"], "error");
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_eq!(app.integration(&id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_token_endpoint_changes_no_status() {
    for fault in [
        Fault::status(500, "internal_failure"),
        Fault::status(503, "invalid_grant"),
        Fault::status(429, "invalid_grant"),
        Fault::NotJson,
        Fault::EmptyBody,
        Fault::TruncatedJson,
        Fault::ResetConnection,
        Fault::HugeBody { bytes: 10_000_000 },
    ] {
        let (app, id) = start(3).await;
        app.google
            .inject_times(Match::method(Method::Token), fault.clone(), 3);
        let run = app.request_sync(&id).await;
        let none = tokio_util::sync::CancellationToken::new();
        nucleus::worker::drain(&app.app, &none).await.unwrap();
        let waiting = app.get(&format!("/runs/{run}")).await;
        assert_eq!(
            (&waiting["status"], &waiting["error"]),
            (&json!("queued"), &json!(null)),
            "{fault:?}"
        );
        assert_eq!(app.integration(&id).await["status"], "active");
        app.drain().await;
        assert_eq!(
            app.get(&format!("/runs/{run}")).await["status"],
            "success",
            "{fault:?}"
        );
        assert_eq!(app.calls(Method::Token), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_outage_fails_the_run_and_not_the_connection() {
    let (app, id) = start(3).await;
    let fault = Fault::status(503, "internal_failure");
    app.google
        .inject_times(Match::method(Method::Token), fault, 500);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("unavailable"))
    );
    assert_eq!(app.integration(&id).await["status"], "active");
    app.google.calm();
    assert_eq!(app.sync(&id).await["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_refresh_tokens_are_stored_and_old_versions_destroyed() {
    let app = Setting::new(small_mailbox(2))
        .options(|options| options.rotate_refresh_tokens = true)
        .start()
        .await;
    let id = app.connect().await;
    let begin = app.real_time();
    for round in 1..=6 {
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_eq!(app.calls(Method::Token), round);
        assert!(app.live_versions().await.len() <= 2);
        app.google.expire_access_tokens();
    }
    // The right to refresh is given back after a rotation, so that the next one need not wait.
    // One that is not costs ten seconds each time.
    assert!((app.real_time() - begin).as_secs() < 45);
    // What is stored is what holds: another process goes on with it.
    let mut app = app;
    app.restart().await;
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_eq!(app.integration(&id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_another_account_bring_no_record_of_it() {
    let (app, id) = start(5).await;
    app.sync(&id).await;
    let before = app.records(&id).await;
    let mut other = Mailbox::new("other@example.com", 9);
    other.deliver(mail(1), &["INBOX"]);
    let own = app
        .google
        .with_mailbox(|mailbox| std::mem::replace(mailbox, other));
    app.google.set_refresh_token("1//other");
    let path = format!("/integrations/{id}");
    let body = json!({"credentials": {"refresh_token": "1//other"}});
    assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    for _ in 0..2 {
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("account_mismatch"))
        );
        assert_eq!(app.integration(&id).await["status"], "error");
        assert_eq!(app.records(&id).await, before);
        assert_eq!(app.integration(&id).await["account"], "me@example.com");
    }
    app.google.with_mailbox(|mailbox| *mailbox = own);
    app.google.set_refresh_token("1//own");
    let body = json!({"credentials": {"refresh_token": "1//own"}});
    app.send("PATCH", &path, Some(body)).await;
    assert_eq!(app.sync(&id).await["status"], "success");
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_nobody_waits_for_any_more_still_stores_what_it_was_given() {
    let app = Setting::new(small_mailbox(2))
        .options(|options| options.rotate_refresh_tokens = true)
        .start()
        .await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    // The endpoint has rotated; whoever asked goes before the answer is read.
    app.drain_until_served(Method::Token, 1).await;
    nucleus::sync::free_abandoned(&app.app.engine, true)
        .await
        .unwrap();
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(app.calls(Method::Token), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_does_not_answer_is_an_outage() {
    let (app, id) = start(2).await;
    app.google.inject(Match::method(Method::Token), Fault::Hang);
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(app.calls(Method::Token), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_asks_for_a_new_login_is_an_expiry() {
    let refusal = json!({"error": "invalid_grant", "error_subtype": "invalid_rapt"});
    let answer = async move || (StatusCode::BAD_REQUEST, Json(refusal));
    let url = serve(Router::new().route("/token", post(answer))).await;
    let app = Setting::new(small_mailbox(2))
        .variable("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", format!("{url}/token"))
        .start()
        .await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("consent_expired"))
    );
    assert_eq!(app.integration(&id).await["status"], "expired");
    let path = format!("/integrations/{id}/sync");
    assert_eq!(app.send("POST", &path, None).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_replaced_while_their_account_is_asked_for_are_not_taken_for_known() {
    let (app, id) = start(5).await;
    let path = format!("/integrations/{id}");
    let mut other = Mailbox::new("other@example.com", 9);
    other.deliver(mail(1), &["INBOX"]);
    app.sync(&id).await;
    let before = app.records(&id).await;
    // The run asks whose the account is, because it has to list anew.
    app.google.with_mailbox(Mailbox::expire_history);
    app.google.hold(Method::GetProfile);
    app.request_sync(&id).await;
    let replacing = async {
        app.google.wait_for_held(Method::GetProfile, 1).await;
        app.google.set_refresh_token("1//other");
        let body = json!({"credentials": {"refresh_token": "1//other"}});
        assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
        // The answer is still of the account before; what is asked next is asked with the new token.
        app.google.hold(Method::Token);
        app.google.release(Method::GetProfile);
        app.google.wait_for_held(Method::Token, 1).await;
        app.google.with_mailbox(|mailbox| *mailbox = other);
        app.google.release(Method::Token);
    };
    tokio::join!(app.drain(), replacing);
    assert_eq!(app.integration(&id).await["status"], "error");
    assert_eq!(app.records(&id).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_another_account_in_mid_run_mix_nothing_and_lose_nothing() {
    let app = Setting::new(small_mailbox(90))
        .options(|options| options.page_size_cap = Some(30))
        .start()
        .await;
    let id = app.connect().await;
    let path = format!("/integrations/{id}");
    let mut other = Mailbox::new("other@example.com", 9);
    for serial in 0..40 {
        other.deliver(mail(serial), &["INBOX"]);
    }
    let run = app.request_sync(&id).await;
    let replacing = async {
        app.google.wait_for(Method::MessagesGet, 40).await;
        app.google.hold(Method::MessagesGet);
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        let own = app
            .google
            .with_mailbox(|mailbox| std::mem::replace(mailbox, other));
        app.google.expire_access_tokens();
        app.google.set_refresh_token("1//other");
        let body = json!({"credentials": {"refresh_token": "1//other"}});
        assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
        app.google.release(Method::MessagesGet);
        own
    };
    let ((), own) = tokio::join!(app.drain(), replacing);
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("account_mismatch"))
    );
    for record in app.records(&id).await {
        let number = parse_hex(record["external_id"].as_str().unwrap()).unwrap();
        assert!(own.message(number).is_some(), "{record}");
    }
    app.google.with_mailbox(|mailbox| *mailbox = own);
    app.google.set_refresh_token("1//own");
    let body = json!({"credentials": {"refresh_token": "1//own"}});
    assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    assert_eq!(app.sync(&id).await["status"], "success");
    app.assert_matches_ledger(&id).await;
}
