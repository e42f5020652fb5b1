//! What somebody tries who wants another's account, or theirs in another's place.

use std::sync::Arc;

use chrono::TimeDelta;
use nucleus::demo::{Consent, Fault, Mailbox, Match, Method};
use serde_json::json;

use super::{
    super::{OWNER, ask, bearer, key_of},
    Browser, assert_nothing_is_left, begin, connect, consent, integrations, parts, question,
    with_mail,
};
use crate::harness::{OPERATOR_KEY, Setting, TestApp};

const CALLBACK: &str = "/integrations/gmail/oauth/callback";

/// The query of an answer with one parameter changed, or left out.
fn with(answer: &str, name: &str, value: Option<&str>) -> String {
    let mut url: url::Url = answer.parse().unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut().clear();
    for (key, old) in pairs {
        if key != name {
            url.query_pairs_mut().append_pair(&key, &old);
        }
    }
    if let Some(value) = value {
        url.query_pairs_mut().append_pair(name, value);
    }
    url.into()
}

#[tokio::test]
async fn a_callback_that_was_tampered_with_calls_no_token_endpoint() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let begun = begin(&app, &entity).await;
    let answer = consent(&app, &begun, &Consent::default()).await;
    let (state, code) = parts(&answer);
    let cut = &state[1..];
    let longer = format!("{state}A");
    let another = "A".repeat(43);
    let sql = format!("{state}' OR '1'='1");
    let mut bad: Vec<String> = [
        cut,
        &longer,
        &another,
        &sql,
        "",
        "\0",
        &state.to_uppercase(),
    ]
    .into_iter()
    .map(|forged| with(&answer, "state", Some(forged)))
    .collect();
    bad.extend([
        with(&answer, "state", None),
        with(&answer, "code", None),
        with(&answer, "code", Some("")),
        format!("{answer}&state={state}"),
        format!("{answer}&code={code}"),
        format!("{answer}&iss=https://attacker.example"),
        with(&answer, "iss", Some("https://attacker.example")),
        with(
            &answer,
            "iss",
            Some("https://accounts.google.com.attacker.example"),
        ),
        answer.replace("/gmail/", "/spotify/"),
        answer.replace("/gmail/", "/github/"),
        answer.replace("/gmail/", "/myspace/"),
    ]);
    for bad in &bad {
        let told = Browser::default().open(&app, bad).await;
        assert!((400..500).contains(&told.status), "{bad}: {told:?}");
        assert_eq!(told.header("location"), None, "{bad}: {told:?}");
    }
    assert_eq!(app.calls(Method::Token), 0);
    // A look at the head uses nothing up.
    let path = answer.strip_prefix(&app.url).unwrap();
    assert_eq!(ask(&app, "HEAD", path, &[], b"").await.status, 405);
    // The real answer is as good as before.
    let mut browser = Browser::default();
    let page = browser.open(&app, &answer).await;
    assert_eq!(browser.decide(&app, &page, "connect").await.status, 200);
    app.drain().await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_calls_no_token_endpoint() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let begun = begin(&app, &entity).await;
    let answer = consent(&app, &begun, &Consent::default()).await;
    app.clock.advance(TimeDelta::minutes(11));
    let told = Browser::default().open(&app, &answer).await;
    assert_eq!(told.status, 409, "{told:?}");
    let (state, code) = parts(&answer);
    let body = json!({"state": state, "code": code});
    let (status, problem) = app.send("POST", CALLBACK, Some(body)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("state_expired")));
    assert_eq!(app.calls(Method::Token), 0);
    assert_nothing_is_left(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_replays_at_once_one_calls_the_token_endpoint() {
    let app = Arc::new(with_mail().await);
    let entity = app.entity().await;
    for by_key in [true, false] {
        let begun = begin(&app, &entity).await;
        let answer = consent(&app, &begun, &Consent::default()).await;
        let before = app.calls(Method::Token);
        let mut replays = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let (app, answer) = (Arc::clone(&app), answer.clone());
            replays.spawn(async move {
                if by_key {
                    let (state, code) = parts(&answer);
                    let body = json!({"state": state, "code": code});
                    app.send("POST", CALLBACK, Some(body)).await.0
                } else {
                    Browser::default().open(&app, &answer).await.status
                }
            });
        }
        let statuses = replays.join_all().await;
        let good = statuses.iter().filter(|&&status| status < 300).count();
        assert_eq!(good, 1, "{statuses:?}");
        assert!(
            statuses.iter().all(|&status| status < 300 || status == 409),
            "{statuses:?}"
        );
        assert_eq!(app.calls(Method::Token) - before, 1);
    }
    app.drain().await;
}

#[tokio::test]
async fn a_code_of_another_flow_is_worth_nothing() {
    let app = with_mail().await;
    let (attacker, victim) = (app.entity().await, app.entity().await);
    // The attacker's answer, with the state of the victim's flow, and the other way round.
    let theirs = begin(&app, &attacker).await;
    let ours = begin(&app, &victim).await;
    let (_, their_code) = parts(&consent(&app, &theirs, &Consent::default()).await);
    let (our_state, _) = parts(&consent(&app, &ours, &Consent::default()).await);
    let body = json!({"state": our_state, "code": their_code});
    let (status, problem) = app.send("POST", CALLBACK, Some(body)).await;
    // The verifier is that of the victim's flow, so the service refuses the code.
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["errors"][0]["field"], "code");
    assert_nothing_is_left(&app).await;
}

#[tokio::test]
async fn another_entitys_state_does_not_exist() {
    let app = with_mail().await;
    let (entity, stranger) = (app.entity().await, app.entity().await);
    let key = key_of(&app, &stranger).await;
    let begun = begin(&app, &entity).await;
    let (state, code) = parts(&consent(&app, &begun, &Consent::default()).await);
    let body = json!({"state": state, "code": code});
    let (status, problem) = app
        .send_as(Some(&key), "POST", CALLBACK, Some(body.clone()))
        .await;
    assert_eq!(
        (status, &problem["errors"][0]["field"]),
        (422, &json!("state"))
    );
    let (status, _) = app.send_as(None, "POST", CALLBACK, Some(body)).await;
    assert_eq!(status, 401);
    let (status, _) = app
        .send_as(
            Some(&key),
            "POST",
            "/integrations/gmail/oauth/start",
            Some(json!({"entity_id": entity})),
        )
        .await;
    assert_eq!(status, 404);
    assert_eq!(app.calls(Method::Token), 0);
}

#[tokio::test]
async fn the_question_is_answered_in_the_browser_that_was_asked_and_on_its_page() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let (mut browser, answer, page) = question(&app, &entity).await;
    // Somebody else, who knows the form.
    let mut stranger = Browser::default();
    assert_eq!(stranger.decide(&app, &page, "connect").await.status, 409);
    stranger.cookie = Some(format!("nucleus-oauth={}", "A".repeat(43)));
    assert_eq!(stranger.decide(&app, &page, "connect").await.status, 409);
    assert_eq!(stranger.open(&app, &answer).await.status, 409);
    // Another site, in the person's own browser.
    let id = super::between(&page.text, "name=\"confirmation\" value=\"", "\"");
    let form = format!("confirmation={id}&decision=connect");
    let cookie = browser.cookie.clone().unwrap();
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://attacker.example"),
    ] {
        let headers = [
            ("cookie", cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            (name, value),
        ];
        let told = ask(&app, "POST", CALLBACK, &headers, form.as_bytes()).await;
        assert_eq!(told.status, 403, "{name} {value}: {told:?}");
    }
    // A form that says nothing of use.
    for form in [
        "",
        "confirmation=1&decision=connect",
        &format!("confirmation={id}"),
    ] {
        let headers = [
            ("cookie", cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let told = ask(&app, "POST", CALLBACK, &headers, form.as_bytes()).await;
        assert_eq!(told.status, 422, "{form}: {told:?}");
    }
    assert!(integrations(&app).await.is_empty());
    assert_eq!(browser.decide(&app, &page, "connect").await.status, 200);
    app.drain().await;
}

#[tokio::test]
async fn the_browser_is_sent_to_places_on_the_list_only() {
    let app = with_mail().await;
    let entity = app.entity().await;
    for bad in [
        "https://attacker.example/",
        "https://app.example.attacker.example/",
        "https://app.example@attacker.example/",
        "http://app.example/",
        "//app.example/",
        "/done",
        "javascript:alert(1)",
        "",
    ] {
        let body = json!({"entity_id": entity, "return_to": bad});
        let (status, problem) = app
            .send("POST", "/integrations/gmail/oauth/start", Some(body))
            .await;
        assert_eq!(status, 422, "{bad}: {problem}");
        assert_eq!(problem["errors"][0]["field"], "return_to", "{bad}");
    }
}

#[tokio::test]
async fn behind_tls_the_cookie_is_that_of_its_host_and_of_tls_alone() {
    let setting = Setting::new(Mailbox::new(OWNER, 1));
    let url = "https://nucleus.example/below";
    let app = setting
        .variable("NUCLEUS_HTTP__PUBLIC_URL", url)
        .start()
        .await;
    let body = json!({"entity_id": app.entity().await}).to_string();
    let key = bearer(OPERATOR_KEY);
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
        ("origin", "https://nucleus.example"),
    ];
    let path = "/integrations/gmail/oauth/start";
    let begun = ask(&app, "POST", path, &headers, body.as_bytes()).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let cookie = begun.header("set-cookie").unwrap();
    // What browsers ask of the prefix, and no domain.
    assert!(cookie.starts_with("__Host-nucleus-oauth="), "{cookie}");
    let parts: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert_eq!(
        parts,
        [
            "Path=/",
            "Max-Age=1200",
            "HttpOnly",
            "SameSite=Lax",
            "Secure"
        ]
    );
}

#[tokio::test]
async fn pages_keep_to_themselves() {
    let app = with_mail().await;
    let entity = app.entity().await;
    let begun = begin(&app, &entity).await;
    let answer = consent(&app, &begun, &Consent::default()).await;
    let (state, code) = parts(&answer);
    let mut browser = Browser::default();
    let question = browser.open(&app, &answer).await;
    let done = browser.decide(&app, &question, "connect").await;
    let error = Browser::default().open(&app, &answer).await;
    for page in [&question, &done, &error] {
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for load in [
            "<script",
            "<img",
            "<link",
            "<iframe",
            "src=",
            "url(",
            "@import",
            "http-equiv",
        ] {
            assert!(!page.text.contains(load), "{load} is in {page:?}");
        }
        for secret in [&state, &code] {
            assert!(!page.text.contains(secret.as_str()), "{page:?}");
        }
    }
    app.drain().await;
}

#[tokio::test]
async fn names_from_outside_are_text_on_the_page() {
    let app = with_mail().await;
    let name = "<script>alert(1)</script>\u{202e}\"'&";
    let entity = app.post("/entities", json!({"name": name})).await;
    let entity = entity["id"].as_str().unwrap();
    app.google.inject(
        Match::method(Method::GetProfile),
        Fault::Says("emailAddress", json!("<img src=x>\u{202e}\r\n@example.com")),
    );
    let begun = begin(&app, entity).await;
    let answer = consent(&app, &begun, &Consent::default()).await;
    let page = Browser::default().open(&app, &answer).await;
    assert_eq!(page.status, 200, "{page:?}");
    for raw in ["<script", "<img", "\u{202e}"] {
        assert!(!page.text.contains(raw), "{raw:?} is in {page:?}");
    }
    assert!(page.text.contains("&#60;script&#62;"), "{page:?}");
}

#[tokio::test]
async fn a_key_of_the_operator_is_needed_for_anybody_elses_flow() {
    let app: TestApp = with_mail().await;
    let entity = app.entity().await;
    // The operator's key may finish what an entity's began.
    let key = key_of(&app, &entity).await;
    let (_, begun) = app
        .send_as(
            Some(&key),
            "POST",
            "/integrations/gmail/oauth/start",
            Some(json!({"entity_id": entity})),
        )
        .await;
    let (state, code) = parts(&consent(&app, &begun, &Consent::default()).await);
    let body = json!({"state": state, "code": code});
    let (status, connected) = app.send("POST", CALLBACK, Some(body)).await;
    assert_eq!(status, 201, "{connected}");
    app.drain().await;
    // An answer without an issuer is taken: not every server names itself.
    app.google
        .inject(Match::method(Method::Consent), Fault::Lacks("iss"));
    assert_eq!(
        connect(&app, &entity, &Consent::default()).await.status,
        200
    );
    app.drain().await;
}
