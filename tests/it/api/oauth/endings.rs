//! How a flow ends when it does not end well: the person says no, the service does not play along,
//! nobody confirms. Nothing is left but what the person is told.

use chrono::TimeDelta;
use nucleus::demo::{Consent, Fault, Match, Method};
use serde_json::json;

use super::{
    super::{assert_is_problem, versions},
    Browser, assert_nothing_is_left, begin, connect, consent, integrations, owner, parts, question,
    with_mail,
};
use crate::harness::TestApp;

/// Begins a flow that is to end at a page of an application.
async fn begin_with_return(app: &TestApp, entity: &str) -> serde_json::Value {
    let body = json!({"entity_id": entity, "return_to": "https://app.example/done"});
    app.post("/integrations/gmail/oauth/start", body).await
}

#[tokio::test]
async fn who_says_no_goes_back_where_they_came_from() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let no = Consent {
        cancelled: true,
        ..Consent::default()
    };
    let begun = begin_with_return(&app, &entity).await;
    let answer = consent(&app, &begun, &no).await;
    let back = Browser::default().open(&app, &answer).await;
    assert_eq!(back.status, 303, "{back:?}");
    assert_eq!(
        back.header("location"),
        Some("https://app.example/done?error=access_denied")
    );
    // Without such a place there is a page.
    let told = connect(&app, &entity, &no).await;
    assert_eq!(told.status, 409, "{told:?}");
    assert!(told.text.contains("access_denied"), "{told:?}");
    assert_eq!(app.calls(Method::Token), 0);
    assert_nothing_is_left(&app).await;
}

#[tokio::test]
async fn who_unticks_what_is_needed_is_told_what_it_was() {
    let app = with_mail().await;
    let entity = app.entity().await;
    // Google does not grant less than was asked for while it shows one box; its answer may still.
    let narrower = Fault::Says("scope", json!("openid"));
    app.google.inject(Match::method(Method::Token), narrower);
    let begun = begin_with_return(&app, &entity).await;
    let answer = consent(&app, &begun, &Consent::default()).await;
    let told = Browser::default().open(&app, &answer).await;
    assert_eq!(told.status, 409, "{told:?}");
    assert!(told.text.contains("gmail.readonly"), "{told:?}");
    assert!(
        told.text
            .contains("https://app.example/done?error=scopes_missing"),
        "{told:?}"
    );
    assert!(
        told.text.contains("what was allowed was given back"),
        "{told:?}"
    );
    assert_eq!(app.calls(Method::Revoke), 1);
    assert_nothing_is_left(&app).await;
    // A service that says nothing of scopes grants what was asked for.
    app.google
        .inject(Match::method(Method::Token), Fault::Lacks("scope"));
    let done = connect(&app, &entity, &Consent::default()).await;
    assert_eq!(done.status, 200, "{done:?}");
    app.drain().await;
}

#[tokio::test]
async fn cancelling_the_question_gives_the_grant_back() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let (mut browser, _, page) = question(&app, &entity).await;
    assert_eq!(versions(&app).await.len(), 1);
    let cancelled = browser.decide(&app, &page, "cancel").await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(app.calls(Method::Revoke), 1);
    assert_nothing_is_left(&app).await;
    let late = browser.decide(&app, &page, "connect").await;
    assert_eq!(late.status, 409, "{late:?}");
    assert_nothing_is_left(&app).await;
}

#[tokio::test]
async fn a_grant_that_somebody_lives_on_is_not_given_back() {
    let app = with_mail().await;
    let first = app.entity().await;
    connect(&app, &first, &Consent::default()).await;
    app.drain().await;
    let second = app.entity().await;
    let (mut browser, _, page) = question(&app, &second).await;
    browser.decide(&app, &page, "cancel").await;
    assert_eq!(app.calls(Method::Revoke), 0);
    assert_eq!(versions(&app).await.len(), 1);
    let id = integrations(&app).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(app.sync(&id).await["status"], "success");
}

#[tokio::test]
async fn a_question_that_nobody_answers_ends_by_itself() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let (mut browser, answer, page) = question(&app, &entity).await;
    app.clock.advance(TimeDelta::minutes(11));
    let late = browser.decide(&app, &page, "connect").await;
    assert_eq!(late.status, 409, "{late:?}");
    assert!(
        late.text.contains("time for this connection is over"),
        "{late:?}"
    );
    assert!(integrations(&app).await.is_empty());
    app.tick().await;
    assert_eq!(app.calls(Method::Revoke), 1);
    assert_nothing_is_left(&app).await;
    // Later nothing at all is known of it.
    app.clock.advance(TimeDelta::minutes(11));
    app.tick().await;
    let gone = browser.open(&app, &answer).await;
    assert_eq!(gone.status, 422, "{gone:?}");
}

#[tokio::test]
async fn an_entity_that_is_removed_meanwhile_gets_no_account() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let (mut browser, _, page) = question(&app, &entity).await;
    app.send("DELETE", &format!("/entities/{entity}"), None)
        .await;
    assert_eq!(app.calls(Method::Revoke), 1);
    let late = browser.decide(&app, &page, "connect").await;
    assert_eq!(late.status, 422, "{late:?}");
    assert_nothing_is_left(&app).await;
}

/// What became of grants, as it is kept.
async fn outcomes(app: &TestApp) -> Vec<String> {
    let done = "WHERE finished_at IS NOT NULL";
    let on_sqlite = format!("SELECT outcome FROM disconnections {done}");
    let on_postgres = format!("SELECT outcome FROM dna.disconnections {done}");
    app.rows(&on_sqlite, &on_postgres).await
}

#[tokio::test]
async fn a_service_that_fails_is_asked_again_until_the_credentials_go() {
    for (failures, outcome) in [(2, "revoked"), (50, "failed")] {
        let app = with_mail().await;
        let entity = app.entity().await;
        let (mut browser, _, page) = question(&app, &entity).await;
        let fault = Fault::status(503, "internal_failure");
        app.google
            .inject_times(Match::method(Method::Revoke), fault, failures);
        let cancelled = browser.decide(&app, &page, "cancel").await;
        assert!(cancelled.text.contains("take it back"), "{cancelled:?}");
        assert_eq!(
            (versions(&app).await.len(), outcomes(&app).await.len()),
            (1, 0)
        );
        let late = browser.decide(&app, &page, "connect").await;
        assert_eq!(late.status, 409, "{late:?}");
        let mut minutes = 0;
        while outcomes(&app).await.is_empty() {
            app.clock.advance(TimeDelta::seconds(61));
            app.tick().await;
            minutes += 1;
            assert!(minutes < 50);
        }
        assert_eq!(outcomes(&app).await, [outcome]);
        assert_nothing_is_left(&app).await;
        let asked = app.calls(Method::Revoke);
        app.tick().await;
        assert_eq!(app.calls(Method::Revoke), asked);
    }
}

/// Each way in which the service may not play along: the status of the page, and what it says.
fn troubles() -> Vec<(Method, Fault, u16, &'static str)> {
    let token = Method::Token;
    vec![
        (
            token,
            Fault::status(400, "invalid_grant"),
            422,
            "does not accept",
        ),
        (
            token,
            Fault::status(401, "invalid_client"),
            409,
            "refuses this nucleus",
        ),
        (
            token,
            Fault::status(500, "server_error"),
            503,
            "try again later",
        ),
        (token, Fault::retry_after(1), 503, "try again later"),
        (token, Fault::TruncatedJson, 503, "try again later"),
        (token, Fault::NotJson, 503, "try again later"),
        (token, Fault::EmptyBody, 503, "try again later"),
        (token, Fault::ResetConnection, 503, "try again later"),
        (
            token,
            Fault::HugeBody { bytes: 10_000_000 },
            503,
            "try again later",
        ),
        (
            token,
            Fault::Json("[".repeat(60_000)),
            503,
            "try again later",
        ),
        (
            token,
            Fault::Redirect {
                code: 307,
                location: "http://127.0.0.1:9/elsewhere".to_owned(),
            },
            503,
            "try again later",
        ),
        (token, Fault::Lacks("access_token"), 503, "try again later"),
        (
            token,
            Fault::Lacks("refresh_token"),
            409,
            "no lasting access",
        ),
        (
            Method::GetProfile,
            Fault::status(401, "authError"),
            409,
            "cannot be read",
        ),
        (
            Method::GetProfile,
            Fault::status(403, "insufficientPermissions"),
            409,
            "cannot be read",
        ),
        (
            Method::GetProfile,
            Fault::status(400, "failedPrecondition"),
            409,
            "cannot be read",
        ),
    ]
}

#[tokio::test]
async fn a_service_that_does_not_play_along_leaves_nothing() {
    let app = with_mail().await;
    let entity = app.entity().await;
    for (method, fault, status, says) in troubles() {
        let what = format!(
            "{method:?} {}",
            format!("{fault:?}").chars().take(60).collect::<String>()
        );
        app.google.inject(Match::method(method), fault);
        let told = connect(&app, &entity, &Consent::default()).await;
        assert_eq!(told.status, status, "{what}: {told:?}");
        assert!(told.text.contains(says), "{what}: {told:?}");
        assert!(!told.text.contains("4/"), "{what}: {told:?}");
        assert_nothing_is_left(&app).await;
    }
    // After all of it the next try is as good as the first.
    let done = connect(&app, &entity, &Consent::default()).await;
    assert_eq!(done.status, 200, "{done:?}");
    app.drain().await;
    assert_eq!(integrations(&app).await[0]["account"], owner(&app));
}

#[tokio::test]
async fn a_program_is_told_the_same_as_problems() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let path = "/integrations/gmail/oauth/callback";
    for (fault, status, code) in [
        (Fault::status(400, "invalid_grant"), 422, "invalid_fields"),
        (Fault::status(401, "invalid_client"), 409, "client_refused"),
        (Fault::status(500, "server_error"), 503, "unavailable"),
        (Fault::Lacks("refresh_token"), 409, "no_refresh_token"),
    ] {
        let begun = begin(&app, &entity).await;
        let (state, code_given) = parts(&consent(&app, &begun, &Consent::default()).await);
        app.google.inject(Match::method(Method::Token), fault);
        let body = json!({"state": state, "code": code_given});
        let (given, problem) = app.send("POST", path, Some(body)).await;
        assert_eq!(given, status, "{problem}");
        assert_is_problem(&problem, status, code);
    }
    assert_nothing_is_left(&app).await;
}
