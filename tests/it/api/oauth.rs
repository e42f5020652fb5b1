//! Connecting an account by OAuth, from outside: the stand-in for Google is asked for consent, and a
//! browser without a window, or a program with a key, brings the answer.

use nucleus::demo::{Consent, Method, generate};
use serde_json::{Value, json};

use super::{Answer, OWNER, ask, assert_keys, bearer, key_of, pinned, start, versions};
use crate::harness::{OPERATOR_KEY, Setting, TestApp};

mod abuse;
mod endings;

/// Another account that is signed in at the same browser.
const OTHER: &str = "another@example.com";

/// The program with a mailbox of a few messages, at a place that may send the browser on.
async fn with_mail() -> TestApp {
    Setting::new(generate::mailbox(20, 7))
        .options(|options| options.other_accounts = vec![OTHER.to_owned()])
        .variable("NUCLEUS_HTTP__RETURN_TO", "https://app.example")
        .start()
        .await
}

/// A browser as far as nucleus sees one: it keeps a cookie and follows no redirect by itself.
#[derive(Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    async fn open(&mut self, app: &TestApp, url: &str) -> Answer {
        let path = url.strip_prefix(&app.url).unwrap_or(url).to_owned();
        let cookie = self.cookie.clone().unwrap_or_default();
        let headers = [
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", "cross-site"),
        ];
        let answer = ask(app, "GET", &path, &headers, b"").await;
        self.keep_cookie(&answer);
        answer
    }

    /// Sends the form of the page that asks for a confirmation.
    async fn decide(&mut self, app: &TestApp, page: &Answer, decision: &str) -> Answer {
        let id = between(&page.text, "name=\"confirmation\" value=\"", "\"");
        let action = between(&page.text, "action=\"", "\"");
        let path = action.strip_prefix(&app.url).unwrap().to_owned();
        let form = format!("confirmation={id}&decision={decision}");
        let cookie = self.cookie.clone().unwrap_or_default();
        let headers = [
            ("cookie", cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
            ("origin", "null"),
        ];
        let answer = ask(app, "POST", &path, &headers, form.as_bytes()).await;
        self.keep_cookie(&answer);
        answer
    }

    fn keep_cookie(&mut self, answer: &Answer) {
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
    }
}

/// What stands between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before:?} is not in {text}"));
    rest.split_once(after).unwrap().0
}

/// Begins a flow with the operator's key.
async fn begin(app: &TestApp, entity: &str) -> Value {
    let body = json!({"entity_id": entity});
    app.post("/integrations/gmail/oauth/start", body).await
}

/// What the person's browser is sent back with.
async fn consent(app: &TestApp, begun: &Value, consent: &Consent) -> String {
    let url = begun["authorization_url"].as_str().unwrap();
    app.google.authorize(url, consent).await.unwrap().into()
}

/// The state and the code of an answer.
fn parts(answer: &str) -> (String, String) {
    let url: url::Url = answer.parse().unwrap();
    let take = |name: &str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    (take("state"), take("code"))
}

/// The page that asks for a confirmation: the browser that shows it, the answer of the service that
/// leads there, and the page.
async fn question(app: &TestApp, entity: &str) -> (Browser, String, Answer) {
    let begun = begin(app, entity).await;
    let answer = consent(app, &begun, &Consent::default()).await;
    let mut browser = Browser::default();
    let page = browser.open(app, &answer).await;
    (browser, answer, page)
}

/// Connects the account that the person chooses, through the page that asks for a confirmation.
async fn connect(app: &TestApp, entity: &str, choice: &Consent) -> Answer {
    let begun = begin(app, entity).await;
    let answer = consent(app, &begun, choice).await;
    let mut browser = Browser::default();
    let page = browser.open(app, &answer).await;
    if page.status == 200 {
        browser.decide(app, &page, "connect").await
    } else {
        page
    }
}

/// Whose mailbox it is.
fn owner(app: &TestApp) -> String {
    app.google
        .with_mailbox(|mailbox| mailbox.email_address().to_owned())
}

async fn integrations(app: &TestApp) -> Vec<Value> {
    app.all("/integrations").await
}

/// Nothing was connected, and nothing is kept that nobody needs.
async fn assert_nothing_is_left(app: &TestApp) {
    assert!(integrations(app).await.is_empty());
    assert!(versions(app).await.is_empty());
}

#[tokio::test]
async fn an_account_is_connected_in_a_browser_and_confirmed() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let begun = begin(&app, &entity).await;
    assert_keys(&begun, &["authorization_url", "state", "expires_at"]);
    let url: url::Url = begun["authorization_url"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let asked: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("response_type", "code"),
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("code_challenge_method", "S256"),
        ("scope", "https://www.googleapis.com/auth/gmail.readonly"),
        ("state", begun["state"].as_str().unwrap()),
        (
            "redirect_uri",
            &format!("{}/integrations/gmail/oauth/callback", app.url),
        ),
    ] {
        assert_eq!(asked[name], value, "{name}");
    }
    assert_eq!(asked["code_challenge"].len(), 43);

    let answer = consent(&app, &begun, &Consent::default()).await;
    let mut browser = Browser::default();
    let page = browser.open(&app, &answer).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text.contains("Connect this account?"), "{page:?}");
    assert!(page.text.contains(&owner(&app)));
    assert!(page.text.contains("Somebody"), "{page:?}");
    assert!(integrations(&app).await.is_empty());
    // A reload shows the same question.
    assert_eq!(browser.open(&app, &answer).await.status, 200);

    let done = browser.decide(&app, &page, "connect").await;
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.text.contains("Gmail is connected"), "{done:?}");
    // Sent twice, it says the same.
    assert_eq!(browser.decide(&app, &page, "connect").await.status, 200);
    assert_eq!(browser.open(&app, &answer).await.status, 200);

    let [connected] = &integrations(&app).await[..] else {
        panic!("not one integration")
    };
    assert_eq!(connected["status"], "active");
    assert_eq!(connected["entity_id"], entity);
    assert_eq!(connected["credential_type"], "oauth2");
    assert_eq!(connected["account"], owner(&app));
    assert_eq!(
        connected["scopes"],
        json!(["https://www.googleapis.com/auth/gmail.readonly"])
    );
    assert!(connected["token_expires_at"].is_string());
    assert_eq!(connected["created_by"], "operator");
    assert_eq!(versions(&app).await.len(), 1);
    assert_eq!(app.calls(Method::Token), 1);

    // The first sync was asked for, with the token that came with the code.
    app.drain().await;
    let id = connected["id"].as_str().unwrap();
    let runs = app.all(&format!("/integrations/{id}/runs")).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["trigger"], &runs[0]["status"]),
        (&json!("connected"), &json!("success"))
    );
    assert_eq!(app.calls(Method::Token), 1);
    app.assert_matches_ledger(id).await;
}

#[tokio::test]
async fn a_program_with_a_key_of_the_entity_finishes_at_once() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let body = json!({"entity_id": entity});
    let (status, begun) = app
        .send_as(
            Some(&key),
            "POST",
            "/integrations/gmail/oauth/start",
            Some(body),
        )
        .await;
    assert_eq!(status, 200, "{begun}");
    let (state, code) = parts(&consent(&app, &begun, &Consent::default()).await);
    let body = json!({"state": state, "code": code, "iss": app.google.base_url()});
    let path = "/integrations/gmail/oauth/callback";
    let (status, connected) = app
        .send_as(Some(&key), "POST", path, Some(body.clone()))
        .await;
    assert_eq!(status, 201, "{connected}");
    assert_eq!(connected["status"], "active");
    assert_ne!(connected["created_by"], "operator");
    // The state is good for one answer.
    let (status, again) = app.send_as(Some(&key), "POST", path, Some(body)).await;
    assert_eq!((status, &again["code"]), (409, &json!("state_used")));
    // Nor does a browser that has the answer learn whose account was connected.
    let answer = format!("{}{path}?state={state}&code={code}", app.url);
    let told = Browser::default().open(&app, &answer).await;
    assert_eq!(told.status, 409, "{told:?}");
    assert!(!told.text.contains(&owner(&app)), "{told:?}");
    app.drain().await;
    app.assert_matches_ledger(connected["id"].as_str().unwrap())
        .await;
}

#[tokio::test]
async fn a_flow_that_a_page_of_this_site_began_ends_without_a_question() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let mut browser = Browser::default();
    let headers = [
        ("authorization", bearer(OPERATOR_KEY)),
        ("content-type", "application/json".to_owned()),
        ("sec-fetch-site", "same-origin".to_owned()),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let body = json!({"entity_id": entity, "return_to": "https://app.example/done?step=2"});
    let begun = ask(
        &app,
        "POST",
        "/integrations/gmail/oauth/start",
        &headers,
        body.to_string().as_bytes(),
    )
    .await;
    assert_eq!(begun.status, 200, "{begun:?}");
    browser.keep_cookie(&begun);
    let cookie = begun.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let answer = consent(&app, &begun.body(), &Consent::default()).await;

    // Another browser does not get anything of it.
    let stranger = Browser::default().open(&app, &answer).await;
    assert_eq!(stranger.status, 409, "{stranger:?}");
    assert_eq!(app.calls(Method::Token), 0);

    let done = browser.open(&app, &answer).await;
    assert_eq!(done.status, 303, "{done:?}");
    let [connected] = &integrations(&app).await[..] else {
        panic!("not one integration")
    };
    let id = connected["id"].as_str().unwrap();
    assert_eq!(
        done.header("location"),
        Some(format!("https://app.example/done?step=2&integration_id={id}").as_str())
    );
    app.drain().await;
}

#[tokio::test]
async fn the_same_account_again_keeps_its_records_and_another_is_refused() {
    let app = with_mail().await;
    let entity = app.entity().await;
    connect(&app, &entity, &Consent::default()).await;
    app.drain().await;
    let id = integrations(&app).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = app.records(&id).await;
    let owner = app.integration(&id).await["account"].clone();

    let other = Consent {
        account: Some(OTHER.to_owned()),
        ..Consent::default()
    };
    let refused = connect(&app, &entity, &other).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    for part in [OTHER, owner.as_str().unwrap(), "disconnect"] {
        assert!(refused.text.contains(part), "{part} is not in {refused:?}");
    }
    // What was granted for the other account is given back, and ours still works.
    assert_eq!(app.calls(Method::Revoke), 1);
    assert_eq!(versions(&app).await, pinned(&app).await);
    assert_eq!(app.sync(&id).await["status"], "success");

    // The owner comes back after the consent was withdrawn.
    app.google.revoke_grant();
    app.google.expire_access_tokens();
    assert_eq!(app.sync(&id).await["status"], "failed");
    assert_eq!(app.integration(&id).await["status"], "revoked");
    let again = connect(&app, &entity, &Consent::default()).await;
    assert_eq!(again.status, 200, "{again:?}");
    app.drain().await;
    let now = app.integration(&id).await;
    assert_eq!(
        (&now["status"], &now["account"]),
        (&json!("active"), &owner)
    );
    assert_eq!(now["last_sync_status"], "success");
    assert_eq!(integrations(&app).await.len(), 1);
    assert_eq!(app.records(&id).await.len(), before.len());
    assert_eq!(versions(&app).await, pinned(&app).await);
}

#[tokio::test]
async fn the_question_outlives_a_restart() {
    let mut app = with_mail().await;
    let entity = app.entity().await;
    let (mut browser, _, page) = question(&app, &entity).await;
    let before = app.url.clone();
    app.restart().await;
    let page = Answer {
        text: page.text.replace(&before, &app.url),
        ..page
    };
    let done = browser.decide(&app, &page, "connect").await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(integrations(&app).await.len(), 1);
    app.drain().await;
}

#[tokio::test]
async fn what_can_be_connected_is_listed() {
    let app = start().await;
    let services = app.get("/services").await;
    let items = services["items"].as_array().unwrap();
    assert_eq!(items.len(), 9);
    let gmail = &items[0];
    assert_keys(
        gmail,
        &[
            "service_name",
            "title",
            "by_hand",
            "can_sync",
            "credential_types",
            "oauth",
        ],
    );
    assert_eq!(
        (&gmail["service_name"], &gmail["title"]),
        (&json!("gmail"), &json!("Gmail"))
    );
    assert_eq!(gmail["credential_types"], json!(["oauth2"]));
    assert_eq!(
        gmail["oauth"],
        json!({
            "is_configured": true,
            "scopes": ["https://www.googleapis.com/auth/gmail.readonly"],
            "redirect_uri": format!("{}/integrations/gmail/oauth/callback", app.url),
            "consent_days": null,
        })
    );
    let spotify = &items[8];
    assert_eq!(spotify["can_sync"], false);
    assert_eq!(spotify["oauth"]["is_configured"], false);
    assert_eq!(spotify["oauth"]["consent_days"], 181);
}

#[tokio::test]
async fn a_flow_that_cannot_begin_says_why() {
    let app = Setting::new(nucleus::demo::Mailbox::new(OWNER, 1))
        .without("NUCLEUS_SERVICES__GMAIL__CLIENT_ID")
        .without("NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET")
        .start()
        .await;
    let entity = app.entity().await;
    let body = json!({"entity_id": entity});
    for (service, status, code) in [
        ("gmail", 409, "client_not_configured"),
        ("spotify", 409, "client_not_configured"),
        ("nowhere", 404, "not_found"),
    ] {
        let path = format!("/integrations/{service}/oauth/start");
        let (given, problem) = app.send("POST", &path, Some(body.clone())).await;
        assert_eq!(
            (given, &problem["code"]),
            (status, &json!(code)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn an_entity_that_does_not_exist_connects_nothing() {
    let app = with_mail().await;
    let body = json!({"entity_id": super::NOBODY});
    let (status, _) = app
        .send("POST", "/integrations/gmail/oauth/start", Some(body))
        .await;
    assert_eq!(status, 404);
}
