//! The authorization endpoint over a real connection and by the person without a browser.

use serde_json::json;

use super::{super::person::Consent, tests::*, *};

const GMAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";
const CALENDAR: &str = "https://www.googleapis.com/auth/calendar.readonly";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const BACK: &str = "http://127.0.0.1:9/back";

/// The query of a request that may be shown, with more parameters.
fn query(more: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("client_id", "demo-client.apps.example.com"),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("state", "a&b"),
        (
            "code_challenge",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        ),
        ("code_challenge_method", "S256"),
    ]);
    query.extend_pairs(more).finish()
}

fn parameter(url: &url::Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(own, _)| own == name);
    found.map(|(_, value)| value.into_owned())
}

fn location(got: &Got) -> url::Url {
    let mut lines = got.headers.lines();
    let location = lines.find_map(|line| line.strip_prefix("location: "));
    location.unwrap().parse().unwrap()
}

/// Exchanges the code in a redirect.
async fn exchange_code(stand_in: &StandIn, back: &url::Url) -> Got {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("grant_type", "authorization_code"),
        ("client_id", "demo-client.apps.example.com"),
        ("client_secret", "demo-client-secret"),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
        ("code", &parameter(back, "code").unwrap()),
    ]);
    post(stand_in, "/token", &form.finish()).await
}

#[tokio::test]
async fn a_person_consents_over_http_and_the_code_opens_the_mailbox() {
    let (stand_in, _clock) = start(Options::default()).await;
    let scope = format!("{GMAIL} {CALENDAR}");
    let query = query(&[
        ("scope", &scope),
        ("access_type", "offline"),
        ("prompt", "consent"),
    ]);
    let path = format!("/o/oauth2/v2/auth?{query}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let page = exchange(&stand_in, request).await.unwrap();
    let html = String::from_utf8(page.body).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.headers.contains("content-type: text/html"));
    for shown in [
        "alex@example.com",
        GMAIL,
        CALENDAR,
        BACK,
        "Continue",
        "Cancel",
    ] {
        assert!(html.contains(shown), "{shown}");
    }
    let form = format!("account=alex%40example.com&scope={GMAIL}&decision=continue");
    let sent = post(&stand_in, &path, &form).await;
    assert_eq!(sent.status, 302);
    let back = location(&sent);
    assert!(back.as_str().starts_with(&format!("{BACK}?state=a%26b&")));
    assert_eq!(
        parameter(&back, "iss").as_deref(),
        Some(stand_in.base_url())
    );
    assert_eq!(parameter(&back, "scope").as_deref(), Some(GMAIL));
    let granted = exchange_code(&stand_in, &back).await.json();
    assert_eq!(granted["scope"], GMAIL);
    assert!(
        granted["refresh_token"]
            .as_str()
            .unwrap()
            .starts_with("1//")
    );
    let token = granted["access_token"].as_str().unwrap();
    let profile = get_as(&stand_in, token, "profile").await.json();
    assert_eq!(profile["emailAddress"], "alex@example.com");
    let log: Vec<_> = stand_in.requests().iter().map(|log| log.method).collect();
    assert_eq!(
        log,
        [
            Method::Authorize,
            Method::Consent,
            Method::Token,
            Method::GetProfile
        ]
    );
    assert_eq!(
        stand_in.refresh_token().as_deref(),
        granted["refresh_token"].as_str()
    );
    assert_eq!(post(&stand_in, "/token", REFRESH).await.status, 200);
}

#[tokio::test]
async fn a_wrong_request_or_answer_gets_a_page_and_no_redirect() {
    let (stand_in, _clock) = start(Options::default()).await;
    let good = query(&[("scope", GMAIL)]);
    let form = format!("account=alex%40example.com&scope={GMAIL}&decision=continue");
    for (query, form, status, says) in [
        (
            good.replace("demo-client", "who"),
            form.as_str(),
            401,
            "invalid_client",
        ),
        (
            good.replace("127.0.0.1", "example.com"),
            &form,
            400,
            "redirect_uri_mismatch",
        ),
        (
            good.replace("response_type", "kind"),
            &form,
            400,
            "invalid_request",
        ),
        (String::new(), &form, 400, "invalid_request"),
        (good.clone(), "decision=continue", 400, "invalid_request"),
        (
            good.clone(),
            "account=alex%40example.com&decision=perhaps",
            400,
            "invalid_request",
        ),
        (
            good.clone(),
            "account=eve%40example.com&decision=continue",
            400,
            "invalid_request",
        ),
        (
            good.clone(),
            "account=alex%40example.com&scope=openid&decision=continue",
            400,
            "invalid_request",
        ),
    ] {
        let got = post(&stand_in, &format!("/o/oauth2/v2/auth?{query}"), form).await;
        let html = String::from_utf8(got.body).unwrap();
        assert_eq!(got.status, status, "{query} {form}");
        assert!(html.contains(says), "{html}");
        assert!(!got.headers.contains("location"), "{}", got.headers);
    }
    let marked = query(&[("scope", "<script>")]);
    let url = format!("{}?{marked}", stand_in.authorize_url());
    let refused = stand_in
        .authorize(&url, &Consent::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code, 400);
    assert!(refused.html.contains("&lt;script&gt;") && !refused.html.contains("<script>"));
    let consent = Consent::default();
    let elsewhere = stand_in.authorize("https://example.com/", &consent).await;
    assert_eq!(elsewhere.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_refresh_token_is_given_once_or_when_the_person_is_asked_anew() {
    let (stand_in, _clock) = start(Options::default()).await;
    stand_in.revoke_grant();
    let everything = Consent::default();
    for (access_type, prompt, expected) in [
        ("online", "", false),
        ("offline", "", true),
        ("offline", "", false),
        ("offline", "select_account", false),
        ("offline", "none", false),
        ("online", "consent", false),
        ("offline", "consent", true),
    ] {
        let query = query(&[
            ("scope", GMAIL),
            ("access_type", access_type),
            ("prompt", prompt),
        ]);
        let url = format!("{}?{query}", stand_in.authorize_url());
        let back = stand_in.authorize(&url, &everything).await.unwrap();
        let granted = exchange_code(&stand_in, &back).await.json();
        let given = granted.get("refresh_token").is_some();
        assert_eq!(given, expected, "{access_type} {prompt}");
    }
    // The first time, and where a prompt asks for the page.
    assert_eq!(stand_in.served(Method::Consent), 4);
}

#[tokio::test]
async fn who_refuses_is_sent_back_without_a_code() {
    let (stand_in, _clock) = start(Options::default()).await;
    let cancel = Consent {
        cancelled: true,
        ..Consent::default()
    };
    let untick = Consent {
        unticked: vec![CALENDAR.to_owned()],
        ..Consent::default()
    };
    for (prompt, consent, error) in [
        ("consent", &cancel, "access_denied"),
        ("consent", &untick, "access_denied"),
        ("none", &untick, "interaction_required"),
    ] {
        let query = query(&[("scope", CALENDAR), ("prompt", prompt)]);
        let url = format!("{}?{query}", stand_in.authorize_url());
        let back = stand_in.authorize(&url, consent).await.unwrap();
        assert_eq!(parameter(&back, "error").as_deref(), Some(error));
        assert_eq!(parameter(&back, "state").as_deref(), Some("a&b"));
        assert_eq!(
            parameter(&back, "iss").as_deref(),
            Some(stand_in.base_url())
        );
        assert_eq!(parameter(&back, "code"), None);
    }
}

#[tokio::test]
async fn another_account_shows_its_own_profile_and_gmail_needs_its_scope() {
    let options = Options {
        other_accounts: vec![
            "blake@example.com".to_owned(),
            "casey@example.com".to_owned(),
        ],
        ..Options::default()
    };
    let (stand_in, _clock) = start(options).await;
    let hinted = Consent::default();
    let chosen = Consent {
        account: Some("blake@example.com".to_owned()),
        ..Consent::default()
    };
    for (consent, account) in [
        (&hinted, "casey@example.com"),
        (&chosen, "blake@example.com"),
    ] {
        let query = query(&[
            ("scope", GMAIL),
            ("login_hint", "casey@example.com"),
            ("prompt", "select_account"),
        ]);
        let url = format!("{}?{query}", stand_in.authorize_url());
        let back = stand_in.authorize(&url, consent).await.unwrap();
        let granted = exchange_code(&stand_in, &back).await.json();
        let token = granted["access_token"].as_str().unwrap();
        let profile = get_as(&stand_in, token, "profile").await.json();
        assert_eq!(profile["emailAddress"], account);
        assert_eq!(profile["messagesTotal"], 0);
    }
    let untick = Consent {
        unticked: vec![GMAIL.to_owned()],
        ..Consent::default()
    };
    let scope = format!("{CALENDAR} {GMAIL}");
    for (included, expected) in [("false", 403), ("true", 200)] {
        let query = query(&[
            ("scope", &scope),
            ("prompt", "consent"),
            ("include_granted_scopes", included),
        ]);
        let url = format!("{}?{query}", stand_in.authorize_url());
        let back = stand_in.authorize(&url, &untick).await.unwrap();
        let granted = exchange_code(&stand_in, &back).await.json();
        let token = granted["access_token"].as_str().unwrap();
        let got = get_as(&stand_in, token, "profile").await;
        assert_eq!(got.status, expected, "{}", granted["scope"]);
        if expected == 403 {
            assert_eq!(got.reason().1, "insufficientPermissions");
        }
    }
}

#[tokio::test]
async fn answers_of_the_flow_go_wrong_as_the_faults_say() {
    let (stand_in, _clock) = start(Options::default()).await;
    let query = query(&[
        ("scope", GMAIL),
        ("access_type", "offline"),
        ("prompt", "consent"),
    ]);
    let url = format!("{}?{query}", stand_in.authorize_url());
    let person = Consent::default();
    stand_in.inject(Match::method(Method::Consent), Fault::Lacks("iss"));
    let back = stand_in.authorize(&url, &person).await.unwrap();
    assert_eq!(parameter(&back, "iss"), None);
    assert!(parameter(&back, "code").is_some());
    let wrong = Fault::Says("iss", json!("https://accounts.example.com"));
    stand_in.inject(Match::method(Method::Consent), wrong);
    let back = stand_in.authorize(&url, &person).await.unwrap();
    let issuer = parameter(&back, "iss");
    assert_eq!(issuer.as_deref(), Some("https://accounts.example.com"));
    stand_in.inject(
        Match::method(Method::Authorize),
        Fault::status(503, "backendError"),
    );
    assert_eq!(
        stand_in.authorize(&url, &person).await.unwrap_err().code,
        503
    );
    for name in ["refresh_token", "scope"] {
        let back = stand_in.authorize(&url, &person).await.unwrap();
        stand_in.inject(Match::method(Method::Token), Fault::Lacks(name));
        let granted = exchange_code(&stand_in, &back).await.json();
        assert!(granted.get(name).is_none() && granted.get("access_token").is_some());
    }
    stand_in.inject(
        Match::method(Method::Token),
        Fault::Redirect {
            code: 307,
            location: "http://127.0.0.1:9/".to_owned(),
        },
    );
    let got = post(&stand_in, "/token", REFRESH).await;
    assert_eq!(
        (got.status, location(&got).as_str()),
        (307, "http://127.0.0.1:9/")
    );
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    stand_in.inject(Match::method(Method::Token), Fault::Json(deep.clone()));
    assert_eq!(
        post(&stand_in, "/token", REFRESH).await.body,
        deep.as_bytes()
    );
}
