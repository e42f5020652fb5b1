//! All nine services through the built program, each as its vendor answers: a double of the vendor refuses
//! what the vendor would refuse. Only the API runs, so that nothing but the connecting asks a service.

use std::time::Duration;

use nucleus::domain::ServiceName;
use serde_json::{Value, json};
use url::Url;

use crate::{
    browser::Browser,
    child::{Api, Server, World},
    doubles::{
        small_mailbox,
        vendor::{Mood, Vendor, shown},
    },
    takeover::VAULT_KEY,
};

mod by_hand;
mod ending;
mod hostile;
mod refreshing;

/// The program with a double of every service.
struct Setting {
    vendors: Vec<Vendor>,
    server: Server,
    http: reqwest::Client,
    _world: World,
}

impl Setting {
    async fn start() -> Self {
        let mut world = World::new(small_mailbox(0)).await;
        let mut vendors = Vec::new();
        for service in ServiceName::ALL {
            let vendor = Vendor::start(service).await;
            for (name, value) in vendor.variables() {
                world.set(&name, value);
            }
            vendors.push(vendor);
        }
        world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
        world.run(&["migrate"]).await.ok();
        let server = world.listen("serve").await;
        let url = &server.api.url;
        for vendor in &vendors {
            let service = vendor.service;
            vendor.register(format!("{url}/integrations/{service}/oauth/callback"));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            vendors,
            server,
            http,
            _world: world,
        }
    }

    fn api(&self) -> &Api {
        &self.server.api
    }

    fn vendor(&self, service: ServiceName) -> &Vendor {
        let mut vendors = self.vendors.iter();
        vendors.find(|vendor| vendor.service == service).unwrap()
    }

    /// Where a flow that begins now sends the person.
    async fn begin(&self, service: ServiceName, entity: &str) -> String {
        let path = format!("/integrations/{service}/oauth/start");
        let begun = self.api().post(&path, json!({"entity_id": entity})).await;
        begun["authorization_url"].as_str().unwrap().to_owned()
    }

    /// What the person's browser is sent back with.
    async fn consent(&self, service: ServiceName, entity: &str) -> Url {
        let url = self.begin(service, entity).await;
        let answer = self.http.get(url).send().await.unwrap();
        assert_eq!(
            answer.status(),
            303,
            "{service}: {:?}",
            self.vendor(service).wrongs()
        );
        let back = answer.headers()["location"].to_str().unwrap();
        back.parse().unwrap()
    }

    /// Brings an answer to the callback of `service` with the operator's key.
    async fn bring(&self, service: ServiceName, back: &Url) -> (u16, Value) {
        let parameters: serde_json::Map<String, Value> = back
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), json!(value)))
            .collect();
        let path = format!("/integrations/{service}/oauth/callback");
        let body = Some(Value::Object(parameters));
        self.api().try_send("POST", &path, body).await.unwrap()
    }

    async fn connect(&self, service: ServiceName, entity: &str) -> (u16, Value) {
        let back = self.consent(service, entity).await;
        self.bring(service, &back).await
    }

    fn assert_nothing_wrong(&self) {
        for vendor in &self.vendors {
            assert_eq!(vendor.wrongs(), [""; 0], "{}", vendor.service);
        }
    }
}

/// Days from now until the time in a field, rounded.
fn days_until(value: &Value) -> Option<i64> {
    let time: chrono::DateTime<chrono::Utc> = value.as_str()?.parse().unwrap();
    Some(((time - chrono::Utc::now()).num_hours() + 12) / 24)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_nine_is_connected_and_read_back() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in &setting.vendors {
        let service = vendor.service;
        let (status, made) = setting.connect(service, &entity).await;
        assert_eq!(status, 201, "{service}: {made}");
        assert_eq!(made["account"], shown(service, 0), "{service}");
        assert_eq!(
            (&made["status"], &made["is_tested"]),
            (&json!("active"), &json!(true))
        );
        let days = match service {
            ServiceName::Linkedin => Some(60),
            ServiceName::Spotify => Some(181),
            _ => None,
        };
        assert_eq!(days_until(&made["consent_expires_at"]), days, "{service}");
        assert_eq!(vendor.calls(), (1, 0, 1), "{service}");
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], true, "{service}: {tested}");
        assert_eq!(tested["account"], shown(service, 0), "{service}");
    }
    let services = setting.api().get("/services").await;
    for told in services["items"].as_array().unwrap() {
        let name = told["service_name"].as_str().unwrap();
        assert_eq!(told["oauth"]["is_configured"], true, "{name}");
        let filter = format!("/integrations?service_name={name}");
        let list = setting.api().get(&filter).await;
        let made = &list["items"][0];
        let scopes = |value: &Value| {
            let mut scopes: Vec<String> = serde_json::from_value(value.clone()).unwrap();
            scopes.sort_unstable();
            scopes
        };
        assert_eq!(
            scopes(&made["scopes"]),
            scopes(&told["oauth"]["scopes"]),
            "{name}"
        );
        let path = format!("/integrations/{}/sync", made["id"].as_str().unwrap());
        let sync = setting.api().try_send("POST", &path, None).await.unwrap();
        match told["can_sync"].as_bool().unwrap() {
            true => assert_eq!(sync.0, 202, "{name}: {}", sync.1),
            false => {
                assert_eq!(sync.0, 409, "{name}: {}", sync.1);
                assert_eq!(sync.1["code"], "no_connector", "{name}");
                assert_eq!(made["next_sync_at"], Value::Null, "{name}");
            }
        }
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_are_kept_with_their_end() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in &setting.vendors {
        vendor.set_mood(Mood {
            expires: true,
            ..Mood::default()
        });
        let service = vendor.service;
        let (status, made) = setting.connect(service, &entity).await;
        assert_eq!(status, 201, "{service}: {made}");
        let days = match service {
            ServiceName::Gmail | ServiceName::GoogleCalendar | ServiceName::GoogleDrive => Some(7),
            ServiceName::Github => Some(184),
            ServiceName::Linkedin => Some(365),
            ServiceName::Spotify => Some(181),
            _ => None,
        };
        assert_eq!(days_until(&made["consent_expires_at"]), days, "{service}");
        let ends = made["token_expires_at"].is_string();
        assert_eq!(ends, service != ServiceName::Notion, "{service}: {made}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_of_a_service_is_refused_with_a_choice() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in &setting.vendors {
        let service = vendor.service;
        let (_, made) = setting.connect(service, &entity).await;
        // Where a service takes a hint, it offers the account that is known.
        let begun: Url = setting.begin(service, &entity).await.parse().unwrap();
        let hint = match service {
            ServiceName::Gmail | ServiceName::GoogleCalendar | ServiceName::GoogleDrive => {
                Some("login_hint")
            }
            ServiceName::Github => Some("login"),
            _ => None,
        };
        let hinted = begun
            .query_pairs()
            .find(|(_, value)| *value == shown(service, 0));
        assert_eq!(hinted.as_ref().map(|(name, _)| &**name), hint, "{service}");
        let (status, again) = setting.connect(service, &entity).await;
        assert_eq!((status, &again["id"]), (200, &made["id"]), "{service}");
        vendor.set_mood(Mood {
            account: 1,
            ..Mood::default()
        });
        let (status, problem) = setting.connect(service, &entity).await;
        assert_eq!(status, 409, "{service}: {problem}");
        assert_eq!(problem["code"], "other_account", "{service}");
        let detail = problem["detail"].as_str().unwrap();
        for account in [shown(service, 0), shown(service, 1)] {
            assert!(detail.contains(&account), "{service}: {detail}");
        }
        // What was there before is as it was.
        let path = format!("/integrations/{}/test", made["id"].as_str().unwrap());
        let tested = setting.api().post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{service}: {tested}");
        assert_eq!(tested["account"], shown(service, 0), "{service}");
        // What nobody wanted does not stand either, where the service lets it be revoked.
        let revoked = usize::from(service != ServiceName::Spotify);
        assert_eq!(vendor.revocations(), revoked, "{service}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_does_not_grant_is_named() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for (service, unticked) in [
        (
            ServiceName::Gmail,
            &["https://www.googleapis.com/auth/gmail.readonly"][..],
        ),
        (ServiceName::Github, &["gist", "repo"]),
        (ServiceName::Slack, &["im:history"]),
        (ServiceName::Linkedin, &["email"]),
        (ServiceName::Twitter, &["offline.access"]),
        (ServiceName::Spotify, &["user-top-read"]),
    ] {
        setting.vendor(service).set_mood(Mood {
            unticked,
            ..Mood::default()
        });
        let (status, problem) = setting.connect(service, &entity).await;
        assert_eq!(status, 409, "{service}: {problem}");
        assert_eq!(problem["code"], "scopes_missing", "{service}");
        let detail = problem["detail"].as_str().unwrap();
        for scope in unticked {
            assert!(detail.contains(scope), "{service}: {detail}");
        }
        let is_offered = service != ServiceName::Spotify;
        let is_back = detail.contains("what was allowed was given back");
        assert_eq!(is_back, is_offered, "{service}: {detail}");
        let revoked = setting.vendor(service).revocations();
        assert_eq!(revoked, usize::from(is_offered), "{service}");
    }
    assert_eq!(setting.api().all("/integrations").await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_vendors_refusals_are_understood() {
    use ServiceName::{Github, Notion, Slack, Spotify, Twitter};
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let x = "Value passed for the authorization code was invalid.";
    let cases = [
        (
            Github,
            200,
            json!({"error": "bad_verification_code", "error_description": "x"}),
            422,
            "invalid_fields",
        ),
        (
            Github,
            200,
            json!({"error": "unverified_user_email"}),
            422,
            "invalid_fields",
        ),
        (
            Github,
            200,
            json!({"error": "incorrect_client_credentials"}),
            409,
            "client_refused",
        ),
        (
            Github,
            200,
            json!({"error": "redirect_uri_mismatch"}),
            409,
            "client_refused",
        ),
        (Github, 200, json!({"scope": "repo"}), 503, "unavailable"),
        (
            Slack,
            200,
            json!({"ok": false, "error": "invalid_code"}),
            422,
            "invalid_fields",
        ),
        (
            Slack,
            200,
            json!({"ok": false, "error": "bad_client_secret"}),
            409,
            "client_refused",
        ),
        (
            Slack,
            200,
            json!({"ok": false, "error": "ratelimited"}),
            503,
            "unavailable",
        ),
        (
            Slack,
            200,
            json!({"ok": true, "authed_user": {"id": "U0"}}),
            503,
            "unavailable",
        ),
        (
            Notion,
            400,
            json!({"error": "invalid_grant", "error_description": "Invalid code."}),
            422,
            "invalid_fields",
        ),
        (
            Notion,
            401,
            json!({"object": "error", "code": "unauthorized", "message": "x"}),
            409,
            "client_refused",
        ),
        (
            Notion,
            429,
            json!({"object": "error", "code": "rate_limited"}),
            503,
            "unavailable",
        ),
        (
            Twitter,
            400,
            json!({"error": "invalid_request", "error_description": x}),
            422,
            "invalid_fields",
        ),
        (
            Twitter,
            400,
            json!({"error": "invalid_request", "error_description": "Missing parameter"}),
            409,
            "client_refused",
        ),
        (
            Spotify,
            400,
            json!({"error": "invalid_grant", "error_description": "Authorization code expired"}),
            422,
            "invalid_fields",
        ),
        (
            Spotify,
            400,
            json!({"error": "invalid_client"}),
            409,
            "client_refused",
        ),
        (
            Spotify,
            200,
            json!({"error": "invalid_grant"}),
            503,
            "unavailable",
        ),
    ];
    for (service, given, body, status, code) in cases {
        setting.vendor(service).set_mood(Mood {
            token_answer: Some((given, body.clone())),
            ..Mood::default()
        });
        let (answered, problem) = setting.connect(service, &entity).await;
        assert_eq!(
            (answered, &problem["code"]),
            (status, &json!(code)),
            "{service} {body}: {problem}"
        );
    }
    assert_eq!(setting.api().all("/integrations").await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_code_reaches_another_services_token_endpoint() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let mut answers = Vec::new();
    for service in ServiceName::ALL {
        answers.push((service, setting.consent(service, &entity).await));
    }
    // Each answer at each callback that is not its own.
    for (of, back) in &answers {
        for at in ServiceName::ALL {
            if at == *of {
                continue;
            }
            let (status, problem) = setting.bring(at, back).await;
            assert_eq!(status, 422, "{of} at {at}: {problem}");
            assert_eq!(problem["errors"][0]["field"], "state", "{of} at {at}");
        }
    }
    for vendor in &setting.vendors {
        assert_eq!(vendor.calls(), (0, 0, 0), "{}", vendor.service);
    }
    // An answer that says it comes from elsewhere.
    for (service, back) in &answers {
        let mut mixed_up = back.clone();
        mixed_up
            .query_pairs_mut()
            .append_pair("iss", "https://attacker.example");
        let (status, problem) = setting.bring(*service, &mixed_up).await;
        assert_eq!(status, 422, "{service}: {problem}");
        assert_eq!(problem["errors"][0]["field"], "iss", "{service}");
        assert_eq!(setting.vendor(*service).calls(), (0, 0, 0), "{service}");
    }
    // None of it used an answer up.
    for (service, back) in &answers {
        let (status, made) = setting.bring(*service, back).await;
        assert_eq!(status, 201, "{service}: {made}");
    }
    // And once it was used it is.
    for (service, back) in &answers {
        let (status, problem) = setting.bring(*service, back).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("state_used")),
            "{service}"
        );
        assert_eq!(setting.vendor(*service).calls().0, 1, "{service}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_refresh_token_is_used_until_it_is_refused() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for service in [
        ServiceName::Github,
        ServiceName::Notion,
        ServiceName::Slack,
        ServiceName::Linkedin,
    ] {
        let (_, made) = setting.connect(service, &entity).await;
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        let vendor = setting.vendor(service);
        vendor.withdraw();
        let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], false, "{service}: {tested}");
        let shown = setting.api().get(&path).await;
        assert_eq!(shown["status"], "revoked", "{service}: {shown}");
        assert_eq!(vendor.calls().1, 0, "{service}: refreshed");
        // Connecting again makes the same integration good.
        let (status, again) = setting.connect(service, &entity).await;
        assert_eq!((status, &again["id"]), (200, &made["id"]), "{service}");
        assert_eq!(again["status"], "active", "{service}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_taken_while_its_vendor_takes_it() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in &setting.vendors {
        let service = vendor.service;
        // Who answers may be said; the doubles are their own issuers.
        vendor.set_mood(Mood {
            says_iss: true,
            ..Mood::default()
        });
        for (age, is_taken) in [(31, service != ServiceName::Twitter), (25, true)] {
            let back = setting.consent(service, &entity).await;
            assert!(back.query_pairs().any(|(name, _)| name == "iss"));
            vendor.age_codes(Duration::from_secs(age));
            let (status, told) = setting.bring(service, &back).await;
            assert_eq!(status < 300, is_taken, "{service} {age}: {told}");
            if !is_taken {
                assert_eq!(told["errors"][0]["field"], "code", "{service}: {told}");
            }
        }
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_answers_at_once_one_is_exchanged() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for service in ServiceName::ALL {
        let back = setting.consent(service, &entity).await;
        let at_once = (0..8).map(|_| setting.bring(service, &back));
        let answers = futures_util::future::join_all(at_once).await;
        let count = |wanted: u16| {
            answers
                .iter()
                .filter(|(status, _)| *status == wanted)
                .count()
        };
        assert_eq!((count(201), count(409)), (1, 7), "{service}: {answers:?}");
        assert_eq!(setting.vendor(service).calls().0, 1, "{service}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_all_nine_in_a_browser() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let browser = Browser::start().await;
    let services = setting.api().get("/services").await;
    for told in services["items"].as_array().unwrap() {
        let service: ServiceName = told["service_name"].as_str().unwrap().parse().unwrap();
        // The double of the vendor consents at once and sends the browser back.
        browser.open(&setting.begin(service, &entity).await).await;
        let question = browser.text().await;
        for part in ["Connect this account?", &shown(service, 0), "Somebody"] {
            assert!(question.contains(part), "{service}, {part}: {question}");
        }
        browser.follow("button", "Connect").await;
        let text = browser.text().await;
        let title = told["title"].as_str().unwrap();
        assert!(text.contains(&format!("{title} is connected")), "{text}");
        // Where nothing can be synced yet, no sync is promised.
        let is_promised = text.contains("The first sync begins now");
        assert_eq!(json!(is_promised), told["can_sync"], "{service}: {text}");
        // The page loads nothing from elsewhere.
        for requested in browser.requested().await {
            let origin = requested.origin().ascii_serialization();
            let mut vendors = setting.vendors.iter();
            let is_known =
                origin == setting.api().url || vendors.any(|vendor| vendor.url == origin);
            assert!(is_known, "{service}: {requested}");
        }
    }
    assert_eq!(setting.api().all("/integrations").await.len(), 9);
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_is_told_whether_the_access_was_given_back() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let browser = Browser::start().await;
    for (service, is_revoked) in [(ServiceName::Notion, true), (ServiceName::Spotify, false)] {
        browser.open(&setting.begin(service, &entity).await).await;
        browser.follow("button", "Cancel").await;
        let text = browser.text().await;
        assert_eq!(text.contains("was given back"), is_revoked, "{text}");
        let is_left = text.contains("you can take it back in your account there");
        assert_eq!(is_left, !is_revoked, "{text}");
    }
    assert_eq!(setting.api().all("/integrations").await.len(), 0);
    setting.assert_nothing_wrong();
}
