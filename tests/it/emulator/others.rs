//! GitHub and Slack as others play them: a person connects an account in a real browser, and an error that
//! comes with the status 200 is one.

use super::*;
use crate::takeover::VAULT_KEY;

/// What is particular to an emulated service.
struct Other {
    service: &'static str,
    title: &'static str,
    authorize: &'static str,
    token: &'static str,
    /// What the button of the account says.
    button: &'static str,
    /// What nucleus then calls the account.
    account: &'static str,
}

const OTHERS: [Other; 2] = [
    Other {
        service: "github",
        title: "GitHub",
        authorize: "/login/oauth/authorize",
        token: "/login/oauth/access_token",
        button: "A ada Ada Lovelace ada@example.com",
        account: "ada",
    },
    Other {
        service: "slack",
        title: "Slack",
        authorize: "/oauth/v2/authorize",
        token: "/api/oauth.v2.access",
        button: "A ada Ada Lovelace ada@example.com",
        account: "ada in Engines",
    },
];

/// What the emulator begins with: one person, and the client with its one redirect URI.
fn seed_of(service: &str, redirect_uri: &str) -> Value {
    let clients = json!([{
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "name": "nucleus",
        "redirect_uris": [redirect_uri],
    }]);
    match service {
        "github" => json!({"github": {
            "users": [{"login": "ada", "name": "Ada Lovelace", "email": "ada@example.com"}],
            "oauth_apps": clients,
        }}),
        _ => json!({"slack": {
            "team": {"name": "Engines", "domain": "engines"},
            "users": [{"name": "ada", "real_name": "Ada Lovelace", "email": "ada@example.com"}],
            "oauth_apps": clients,
        }}),
    }
}

/// Points nucleus to the emulator.
fn configure(world: &mut World, other: &Other, emulator: &Emulator) {
    let url = &emulator.url;
    for (name, value) in [
        ("API_URL", url.clone()),
        ("AUTHORIZE_URL", format!("{url}{}", other.authorize)),
        ("TOKEN_URL", format!("{url}{}", other.token)),
        ("CLIENT_ID", CLIENT_ID.to_owned()),
        ("CLIENT_SECRET", CLIENT_SECRET.to_owned()),
    ] {
        let service = other.service.to_uppercase();
        world.set(&format!("NUCLEUS_SERVICES__{service}__{name}"), value);
    }
}

/// nucleus beside an emulator for each of them.
async fn world_of_others() -> (World, Vec<Emulator>, Port) {
    let mut world = World::new(Mailbox::new("nobody@example.com", 1)).await;
    let port = Port::reserve();
    let listen = format!("127.0.0.1:{}", port.number());
    world.set("NUCLEUS_HTTP__LISTEN", listen.clone());
    let mut emulators = Vec::new();
    for other in &OTHERS {
        let service = other.service;
        let redirect_uri = format!("http://{listen}/integrations/{service}/oauth/callback");
        let seed = seed_of(service, &redirect_uri);
        let emulator = Emulator::start(world.folder.path(), service, &seed).await;
        configure(&mut world, other, &emulator);
        emulators.push(emulator);
    }
    (world, emulators, port)
}

/// Starts the API alone: nothing but connecting is to be seen here.
async fn serve(world: &mut World) -> Server {
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world.run(&["migrate"]).await.ok();
    world.listen("serve").await
}

#[tokio::test(flavor = "multi_thread")]
async fn github_and_slack_are_connected_in_a_browser() {
    let (mut world, emulators, _port) = world_of_others().await;
    let server = serve(&mut world).await;
    let api = &server.api;
    let browser = Browser::start().await;
    let entity = api.entity().await;
    for (other, emulator) in OTHERS.iter().zip(&emulators) {
        let start = format!("/integrations/{}/oauth/start", other.service);
        let begun = api.post(&start, json!({"entity_id": entity})).await;
        browser
            .open(begun["authorization_url"].as_str().unwrap())
            .await;
        assert!(browser.url().await.as_str().starts_with(&emulator.url));
        browser.follow("button", other.button).await;
        assert!(browser.url().await.as_str().starts_with(&api.url));
        let question = browser.text().await;
        for part in ["Connect this account?", other.account, "Somebody"] {
            assert!(question.contains(part), "{part}: {question}");
        }
        browser.follow("button", "Connect").await;
        let told = browser.text().await;
        let connected = format!("{} is connected", other.title);
        assert!(told.contains(&connected), "{told}");

        let filter = format!("/integrations?service_name={}", other.service);
        let list = api.get(&filter).await;
        let made = &list["items"][0];
        assert_eq!(made["account"], other.account, "{made}");
        assert_eq!(made["status"], "active", "{made}");
        let path = format!("/integrations/{}/test", made["id"].as_str().unwrap());
        let tested = api.post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{tested}");

        // A code that the service never gave.
        let begun = api.post(&start, json!({"entity_id": entity})).await;
        let answer = json!({"state": begun["state"], "code": "made-up"});
        let callback = format!("/integrations/{}/oauth/callback", other.service);
        let (status, problem) = api.try_send("POST", &callback, Some(answer)).await.unwrap();
        assert_eq!(status, 422, "{problem}");
        assert_eq!(problem["errors"][0]["field"], "code", "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_another_secret_is_the_operators_to_mend() {
    let (mut world, emulators, _port) = world_of_others().await;
    for other in &OTHERS {
        let service = other.service.to_uppercase();
        let secret = format!("NUCLEUS_SERVICES__{service}__CLIENT_SECRET");
        world.set(&secret, "another");
    }
    let server = serve(&mut world).await;
    let api = &server.api;
    let entity = api.entity().await;
    for other in &OTHERS {
        let start = format!("/integrations/{}/oauth/start", other.service);
        let begun = api.post(&start, json!({"entity_id": entity})).await;
        let answer = json!({"state": begun["state"], "code": "made-up"});
        let callback = format!("/integrations/{}/oauth/callback", other.service);
        let sent = api.try_send("POST", &callback, Some(answer)).await;
        let (status, problem) = sent.unwrap();
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("client_refused")),
            "{problem}"
        );
    }
    drop(emulators);
}
