//! What the process writes to standard error, and what must be in no output and no table: secrets.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use nucleus::demo::{Method, generate};
use serde_json::Value;

use crate::{
    backends,
    child::{Api, World},
    doubles::secret_manager::{Call, Fault, SecretManagerDouble, Version},
    takeover::VAULT_KEY,
};

const REFRESH_TOKEN: &str = "1//canary-refresh-token-7f3a9c";
const CLIENT_SECRET: &str = "canary-client-secret-51b0de";
const ACCESS_TOKEN: &str = "ya29.canary-access-token-88e2";

/// A world with a vault, whose key is among the secrets.
async fn world() -> World {
    let mut world = World::with(generate::bench_mailbox(120, 600), |options| {
        options.refresh_token = REFRESH_TOKEN.to_owned();
        options.client_secret = CLIENT_SECRET.to_owned();
    })
    .await;
    world.keep_in_vault();
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world
}

/// Each line as the object it must be.
pub fn lines(stderr: &str) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["severity", "message", "timestamp", "target"] {
            assert!(value[field].is_string(), "{field}: {line}");
        }
        value
    };
    stderr.lines().map(parse).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_leaves_one_line_with_its_ids() {
    let world = world().await;
    let server = world.listen("up").await;
    let good = server.api.connect(&world).await;
    let run = server.api.sync(&good).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let bad = server.api.connect(&world).await;
    world.google.revoke_grant();
    let failed_run = server.api.sync(&bad).await;
    let failed = server.api.ended(&failed_run).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let finished = server.stop().await;
    let lines = lines(&finished.stderr);
    // Of the machine there may be others.
    let of_a_run =
        |line: &Value| line["sync_run.id"].is_string() || line["integration.id"].is_string();
    let troubles: Vec<&Value> = lines
        .iter()
        .filter(|line| line["severity"] == "WARNING" || line["severity"] == "ERROR")
        .filter(|line| of_a_run(line))
        .collect();
    assert_eq!(troubles.len(), 1, "{troubles:#?}");
    assert_eq!(troubles[0]["integration.id"], bad.as_str());
    assert_eq!(troubles[0]["sync_run.id"], failed_run.as_str());
    assert_eq!(troubles[0]["error.code"], failed["error"]["code"]);
    let done: Vec<&Value> = lines
        .iter()
        .filter(|line| line["message"] == "the run is done")
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0]["sync_run.id"], run.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_text_where_that_is_asked_for() {
    let mut world = world().await;
    world.set("NUCLEUS_TELEMETRY__FORMAT", "text");
    let server = world.listen("up").await;
    let finished = server.stop().await;
    assert!(
        finished.stderr.contains(" INFO nucleus is up"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.lines().all(|line| !line.starts_with('{')));
}

/// A secret in the forms in which it may leak.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(bytes).collect();
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![
        secret.to_owned(),
        hex.to_uppercase(),
        hex,
        url,
        json.trim_matches('"').replace('/', "\\/"),
    ];
    // Within something longer, base64 depends on where the secret begins.
    for shift in 0..3 {
        let shifted = [&b"xxx"[..shift], bytes].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            // The first characters mix with what stands before, the last one with what follows.
            let start = [0, 2, 3][shift];
            forms.push(encoded[start..encoded.len() - 1].to_owned());
        }
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// Which of the secrets are in there.
fn leaks<'s>(haystack: &[u8], secrets: &[&'s str]) -> Vec<&'s str> {
    let holds = |form: &Vec<u8>| {
        let first = form[0];
        haystack
            .windows(form.len())
            .any(|window| window[0] == first && window == form.as_slice())
    };
    secrets
        .iter()
        .copied()
        .filter(|secret| forms(secret).iter().any(holds))
        .collect()
}

#[test]
fn the_scanner_finds_a_planted_secret_in_every_form() {
    let secret = REFRESH_TOKEN;
    let other = ["another secret that is nowhere"];
    let plants = [
        format!("token={secret};"),
        format!(
            "{:?}",
            secret
                .as_bytes()
                .iter()
                .fold(String::new(), |all, byte| { all + &format!("{byte:02x}") })
        ),
        STANDARD.encode(format!("user:{secret}")),
        STANDARD.encode(format!("u:{secret}")),
        STANDARD.encode(format!("us:{secret} and more")),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
    ];
    for plant in plants {
        let haystack = format!("some {plant} bytes").into_bytes();
        assert_eq!(leaks(&haystack, &[secret]), [secret], "{plant}");
        assert!(leaks(&haystack, &other).is_empty(), "{plant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_output_or_table_at_trace_level() {
    let mut world = world().await;
    assert_no_leak(&mut world).await;
    // Sealed, the vault's own files show none either.
    let mut folders = vec![world.data_dir().join("vault")];
    let mut sealed = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            sealed += 1;
            let known = [
                REFRESH_TOKEN,
                CLIENT_SECRET,
                ACCESS_TOKEN,
                "ya29.",
                VAULT_KEY,
            ];
            assert_eq!(leaks(&std::fs::read(&path).unwrap(), &known), [""; 0]);
        }
    }
    assert!(sealed > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_there_either_where_secret_manager_keeps_them_and_says_them_again() {
    let mut world = world().await;
    let secret_manager = SecretManagerDouble::start().await;
    world.keep_in_secret_manager(&secret_manager.url);
    world.unset("NUCLEUS_SECRETS__VAULT_KEY");
    // Of the first integration.
    secret_manager.inject(Call::Access, Fault::WrongChecksum, 1);
    assert_no_leak(&mut world).await;
    let stored = secret_manager.secrets();
    let holds = |version: &Version| !leaks(&version.data, &[REFRESH_TOKEN]).is_empty();
    let mut versions = stored.values().flat_map(|secret| &secret.versions);
    assert!(versions.any(holds), "it is kept there");

    let server = world.listen("up").await;
    let mut answers = String::new();
    for fault in [Fault::Echo, Fault::Garbage, Fault::Page(502), Fault::Lost] {
        secret_manager.inject(Call::Add, fault, 1);
        let entity = server.api.entity().await;
        let body = Api::connection(&world, &entity);
        let refused = server.api.try_send("POST", "/integrations/", Some(body));
        let (status, answer) = refused.await.unwrap();
        assert_eq!(status, 503, "{answer}");
        answers += &answer.to_string();
    }
    secret_manager.inject(Call::Access, Fault::Garbage, 3);
    let failed = world.run(&["doctor"]).await;
    let finished = server.stop().await;
    for output in [answers, failed.stdout, failed.stderr, finished.stderr] {
        assert!(!output.is_empty());
        assert_eq!(leaks(output.as_bytes(), &[REFRESH_TOKEN]), [""; 0]);
    }
}

/// Goes every way that a secret may take, at trace level, and scans what comes out.
async fn assert_no_leak(world: &mut World) {
    world.set("NUCLEUS_TELEMETRY__FILTER", "trace");
    let operator = world.variables["NUCLEUS_HTTP__OPERATOR_KEY"].clone();
    let server = world.listen("up").await;
    let entity = server.api.entity().await;
    let mut body = Api::connection(world, &entity);
    // The token that comes along holds nothing, so it is refused once and another is asked for.
    body["credentials"]["access_token"] = ACCESS_TOKEN.into();
    body["credentials"]["client_secret"] = CLIENT_SECRET.into();
    let integration = server.api.post("/integrations/", body.clone()).await;
    let id = integration["id"].as_str().unwrap().to_owned();
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    assert!(world.google.served(Method::Token) > 0);
    let key = world.run(&["key", "create", "--entity", &entity]).await;
    let key_printed = key.stdout.trim().to_owned();
    let as_entity = server.api.with_key(&key_printed);
    let mut answers = as_entity.get("/integrations").await.to_string();
    // The sad ways round: twice the same, a wrong body, a key that is none, a grant withdrawn.
    for (method, path, body) in [
        ("POST", "/integrations/".to_owned(), Some(body.clone())),
        ("POST", "/entities".to_owned(), Some(body.clone())),
        ("PATCH", format!("/integrations/{id}"), Some(body.clone())),
        ("POST", format!("/integrations/{id}/test"), None),
    ] {
        let (_, answer) = server.api.try_send(method, &path, body).await.unwrap();
        answers += &answer.to_string();
    }
    let stranger = server.api.with_key("nk_no-such-key-but-a-secret-4d1f");
    let (status, _) = stranger.try_send("GET", "/events", None).await.unwrap();
    assert_eq!(status, 401);
    world.google.revoke_grant();
    let run = server.api.sync(&id).await;
    server.api.ended(&run).await;
    answers += &server
        .api
        .get(&format!("/integrations/{id}"))
        .await
        .to_string();
    // In a browser, with a code, a state and a cookie.
    let another = server.api.entity().await;
    let of_the_flow = server.api.connect_in_a_browser(world, &another).await;
    let of_the_flow = of_the_flow.unwrap();
    assert_eq!(of_the_flow.len(), 3);
    // It reads credentials and calls the token endpoint with the client's secret.
    let looked = world.run(&["doctor"]).await;
    assert!(looked.stdout.contains("the service accepts the client"));
    let finished = server.stop().await;

    // Google's own tokens are not known here, but all begin alike.
    let mut secrets = vec![
        REFRESH_TOKEN,
        CLIENT_SECRET,
        ACCESS_TOKEN,
        "ya29.",
        VAULT_KEY,
        "0123456789abcdef0123456789abcdef",
        operator.as_str(),
        key_printed.as_str(),
        "nk_no-such-key-but-a-secret-4d1f",
    ];
    secrets.extend(of_the_flow.iter().map(String::as_str));
    let traced = lines(&finished.stderr);
    let foreign = |line: &&Value| !line["target"].as_str().unwrap().starts_with("nucleus");
    assert!(
        traced.iter().filter(foreign).count() > 100,
        "others trace too"
    );
    assert!(leaks(finished.stdout.as_bytes(), &secrets).is_empty());
    assert_eq!(leaks(finished.stderr.as_bytes(), &secrets), [""; 0]);
    // The one output that is meant to hold a secret shows that the scan sees what it looks for.
    assert_eq!(
        leaks(key.stdout.as_bytes(), &secrets),
        [key_printed.as_str()]
    );
    for output in [&key.stderr, &looked.stdout, &looked.stderr] {
        assert_eq!(leaks(output.as_bytes(), &secrets), [""; 0]);
    }
    assert_eq!(leaks(answers.as_bytes(), &secrets), [""; 0]);
    let database = backends::database_bytes(&world.variables, &world.data_dir()).await;
    assert_eq!(leaks(&database, &secrets), [""; 0], "in the database");
    // What is meant to stand there is seen.
    assert_eq!(leaks(&database, &[id.as_str()]), [id.as_str()]);
}
