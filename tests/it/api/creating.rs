//! `POST /integrations`: what is connected, and every way in which it is not.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use nucleus::demo::generate;
use serde_json::{Map, Value, json};

use super::{
    assert_gives_nothing_away, assert_id, assert_is_problem, assert_keys, assert_time, by_token,
    fields, gmail, pinned, start, versions,
};
use crate::harness::Setting;

const SHOWN: [&str; 24] = [
    "id",
    "integration_id",
    "entity_id",
    "service_name",
    "service_type",
    "display_name",
    "description",
    "credential_type",
    "is_tested",
    "status",
    "account",
    "last_sync_at",
    "last_sync_status",
    "sync_error_message",
    "next_sync_at",
    "token_expires_at",
    "consent_expires_at",
    "scopes",
    "config",
    "sync_settings",
    "meta_data",
    "created_at",
    "updated_at",
    "created_by",
];

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_connected_by_its_credentials() {
    let app = start().await;
    let entity = app.entity().await;
    let mut body = gmail(&app, &entity);
    for (field, value) in [
        ("service_type", json!("mail")),
        ("display_name", json!("Work")),
        ("description", json!("the mail of the office")),
        ("scopes", json!(["a", "b"])),
        ("config", json!({"any": {"thing": [1, null]}})),
        ("sync_settings", json!({"interval_minutes": 30})),
        ("token_expires_in", json!(3599)),
    ] {
        body[field] = value;
    }
    body["credentials"]["access_token"] = json!("canary-access-token");
    body["credentials"]["client_id"] = json!("demo-client.apps.example.com");
    body["credentials"]["client_secret"] = json!("demo-client-secret");
    body["credentials"]["token_uri"] = json!(app.google.token_url());
    let (status, made) = app.send("POST", "/integrations/", Some(body.clone())).await;
    assert_eq!(status, 201, "{made}");
    assert_keys(&made, &SHOWN);
    assert_id(&made["id"]);
    assert_eq!(made["id"], made["integration_id"]);
    for field in [
        "service_name",
        "service_type",
        "display_name",
        "description",
        "scopes",
        "config",
        "credential_type",
        "entity_id",
    ] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!(made["status"], "active");
    assert_eq!(made["created_by"], "operator");
    assert_eq!(
        made["sync_settings"],
        json!({"interval_minutes": 30, "include_spam_trash": false})
    );
    for field in [
        "account",
        "last_sync_at",
        "last_sync_status",
        "sync_error_message",
    ] {
        assert_eq!(made[field], Value::Null, "{field}");
    }
    for field in [
        "created_at",
        "updated_at",
        "next_sync_at",
        "token_expires_at",
    ] {
        assert_time(&made[field]);
    }
    let created = time(&made["created_at"]);
    assert_eq!(
        time(&made["token_expires_at"]) - created,
        TimeDelta::seconds(3599)
    );
    let wait = time(&made["next_sync_at"]) - created;
    assert!((30..=33).contains(&wait.num_minutes()), "{wait}");
    // No sync starts and nobody is asked.
    let id = made["id"].as_str().unwrap();
    assert!(
        app.all(&format!("/integrations/{id}/runs"))
            .await
            .is_empty()
    );
    assert!(app.google.requests().is_empty());
    assert_eq!(app.integration(id).await, made);
    assert_gives_nothing_away(&made.to_string());
    assert!(!made.to_string().contains("demo-refresh-token"));
    assert_eq!(versions(&app).await, pinned(&app).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_null_or_the_default() {
    let app = start().await;
    let entity = app.entity().await;
    let mut body = gmail(&app, &entity);
    for field in [
        "service_type",
        "display_name",
        "description",
        "scopes",
        "config",
        "sync_settings",
        "token_expires_in",
    ] {
        body[field] = Value::Null;
    }
    body["credentials"]["scopes"] = json!(["of-the-credentials"]);
    let made = app.post("/integrations", body).await;
    for field in [
        "service_type",
        "display_name",
        "description",
        "token_expires_at",
    ] {
        assert_eq!(made[field], Value::Null);
    }
    assert_eq!(made["config"], json!({}));
    assert_eq!(made["meta_data"], json!({}));
    assert_eq!(made["sync_settings"]["interval_minutes"], 60);
    assert_eq!(made["scopes"], json!(["of-the-credentials"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credentials_has_its_fields() {
    let app = start().await;
    let entity = app.entity().await;
    for (service, kind, credentials) in [
        ("slack", "bearer_token", json!({"token": "canary"})),
        ("notion", "api_key", json!({"api_key": "canary"})),
        (
            "linkedin",
            "oauth2",
            json!({"refresh_token": "canary", "access_token": null}),
        ),
    ] {
        let body = json!({"entity_id": entity, "service_name": service, "credential_type": kind, "credentials": credentials});
        let made = app.post("/integrations", body).await;
        assert_eq!(
            (&made["credential_type"], &made["status"]),
            (&json!(kind), &json!("active"))
        );
        assert_gives_nothing_away(&made.to_string());
        // It can be connected; what reads it is not there yet, and nobody answers for it here. Without a
        // registered client there is nobody to refresh for, which is the operator's to mend.
        assert_eq!(made["is_tested"], false);
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        let (status, answer) = app.send("POST", &format!("{path}/sync"), None).await;
        assert_eq!(status, 409, "{answer}");
        assert_is_problem(&answer, 409, "no_connector");
        let tested = app.post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], false, "{tested}");
        let is_ours = kind == "oauth2";
        let standing = if is_ours { "error" } else { "active" };
        assert_eq!(app.get(&path).await["status"], standing, "{kind}");
    }
    for (kind, credentials, wrong) in [
        ("bearer_token", json!({}), &["credentials.token"][..]),
        (
            "bearer_token",
            json!({"api_key": "x"}),
            &["credentials.token", "credentials.api_key"],
        ),
        ("api_key", json!({"api_key": ""}), &["credentials.api_key"]),
        (
            "api_key",
            json!({"api_key": "a\r\nb"}),
            &["credentials.api_key"],
        ),
        (
            "api_key",
            json!({"api_key": "x".repeat(8_193)}),
            &["credentials.api_key"],
        ),
        (
            "basic_auth",
            json!({"username": "u"}),
            &["credentials.password"],
        ),
        (
            "basic_auth",
            json!({"username": 1, "password": null}),
            &["credentials.username", "credentials.password"],
        ),
        (
            "oauth2",
            json!({"token": "x"}),
            &["credentials.refresh_token", "credentials.token"],
        ),
    ] {
        let body = json!({"entity_id": entity, "service_name": "notion", "credential_type": kind, "credentials": credentials});
        let (status, answer) = app.send("POST", "/integrations", Some(body)).await;
        assert_eq!(status, 422, "{answer}");
        let mut expected: BTreeSet<String> = wrong.iter().map(|name| (*name).to_owned()).collect();
        if kind == "basic_auth" {
            expected.insert("credential_type".to_owned());
        }
        assert_eq!(fields(&answer), expected, "{kind} {credentials}");
    }
    assert_eq!(app.all("/integrations").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_named_by_its_field() {
    let app = start().await;
    let entity = app.entity().await;
    let good = gmail(&app, &entity);
    let mut many = Vec::new();
    many.resize(51, "scope");
    for (field, value, named) in [
        ("entity_id", json!("no-id"), "entity_id"),
        ("entity_id", json!(7), "entity_id"),
        ("service_name", json!("hotmail"), "service_name"),
        ("service_name", json!("Gmail"), "service_name"),
        ("service_name", Value::Null, "service_name"),
        ("credential_type", json!("password"), "credential_type"),
        ("credential_type", json!("api_key"), "credential_type"),
        ("credentials", json!([]), "credentials"),
        ("credentials", Value::Null, "credentials"),
        ("display_name", json!("x".repeat(256)), "display_name"),
        ("display_name", json!("a\0b"), "display_name"),
        ("display_name", json!(7), "display_name"),
        ("description", json!("x".repeat(10_001)), "description"),
        ("description", json!("\0"), "description"),
        ("service_type", json!("x".repeat(51)), "service_type"),
        ("scopes", json!("a b"), "scopes"),
        ("scopes", json!(many), "scopes"),
        ("scopes", json!(["a", 7]), "scopes[1]"),
        ("scopes", json!(["a", "b\0"]), "scopes[1]"),
        ("scopes", json!(["x".repeat(256)]), "scopes[0]"),
        ("config", json!([]), "config"),
        ("config", json!({"a": {"b": ["\0"]}}), "config"),
        ("config", json!({"a": {"\0": 1}}), "config"),
        ("sync_settings", json!("hourly"), "sync_settings"),
        (
            "sync_settings",
            json!({"interval": 5}),
            "sync_settings.interval",
        ),
        (
            "sync_settings",
            json!({"interval_minutes": 0}),
            "sync_settings.interval_minutes",
        ),
        (
            "sync_settings",
            json!({"interval_minutes": 10_081}),
            "sync_settings.interval_minutes",
        ),
        (
            "sync_settings",
            json!({"interval_minutes": 1.5}),
            "sync_settings.interval_minutes",
        ),
        (
            "sync_settings",
            json!({"include_spam_trash": "yes"}),
            "sync_settings.include_spam_trash",
        ),
        ("token_expires_in", json!(0), "token_expires_in"),
        ("token_expires_in", json!(-1), "token_expires_in"),
        ("token_expires_in", json!(31_536_001), "token_expires_in"),
        ("token_expires_in", json!(i64::MAX), "token_expires_in"),
        ("token_expires_in", json!(1.5), "token_expires_in"),
        ("token_expires_in", json!("3600"), "token_expires_in"),
        ("surprise", json!(1), "surprise"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (status, answer) = app.send("POST", "/integrations", Some(body.clone())).await;
        assert_eq!(status, 422, "{field}: {body}");
        assert_is_problem(&answer, 422, "invalid_fields");
        let mut named_fields = fields(&answer);
        // Where the kind is wrong, the fields of the kind are wrong too.
        named_fields
            .retain(|name| !(named == "credential_type" && name.starts_with("credentials.")));
        assert_eq!(named_fields, [named.to_owned()].into(), "{body}");
    }
    for field in [
        "entity_id",
        "service_name",
        "credential_type",
        "credentials",
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        let (status, answer) = app.send("POST", "/integrations", Some(body)).await;
        assert_eq!(status, 422, "{field}");
        assert!(
            answer["detail"].as_str().unwrap().contains(field),
            "{answer}"
        );
    }
    // A backslash and the letters u0000 are no character U+0000.
    let mut body = good;
    body["config"] = json!({"a": "\\u0000"});
    app.post("/integrations", body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_mistakes_are_told_at_once() {
    let app = start().await;
    let entity = app.entity().await;
    let mut body = gmail(&app, &entity);
    body["display_name"] = json!("x".repeat(256));
    body["sync_settings"] = json!({"interval_minutes": 0});
    body["token_expires_in"] = json!(0);
    body["credentials"] = json!({
        "access_token": 5,
        "client_id": "canary-of-another",
        "client_secret": "canary",
        "token_uri": "https://attacker.example/canary",
        "id_token": "canary",
        "scopes": "canary",
    });
    let (status, answer) = app.send("POST", "/integrations", Some(body)).await;
    assert_eq!(status, 422);
    assert_is_problem(&answer, 422, "invalid_fields");
    let expected = [
        "display_name",
        "sync_settings.interval_minutes",
        "token_expires_in",
        "credentials.refresh_token",
        "credentials.access_token",
        "credentials.client_id",
        "credentials.client_secret",
        "credentials.token_uri",
        "credentials.id_token",
        "credentials.scopes",
    ];
    let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
    assert_eq!(fields(&answer), expected);
    assert!(versions(&app).await.is_empty());
    assert!(app.google.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_connected_once_an_entity() {
    let app = Setting::new(generate::mailbox(3, 1)).start().await;
    let entity = app.entity().await;
    let body = gmail(&app, &entity);
    let answers =
        join_all((0..20).map(|_| app.send("POST", "/integrations", Some(body.clone())))).await;
    let made: Vec<&Value> = answers
        .iter()
        .filter(|(status, _)| *status == 201)
        .map(|(_, body)| body)
        .collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    for (status, body) in &answers {
        if *status != 201 {
            assert_is_problem(body, 409, "integration_exists");
        }
    }
    // Every loser destroyed its own version and no other.
    assert_eq!(versions(&app).await.len(), 1);
    assert_eq!(versions(&app).await, pinned(&app).await);
    let run = app.sync(made[0]["id"].as_str().unwrap()).await;
    assert_eq!(run["status"], "success", "{run}");
    // Another entity may, and another service may.
    let other = app.entity().await;
    app.post("/integrations", gmail(&app, &other)).await;
    app.post("/integrations", by_token(&entity, "github")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_come_back_as_they_were() {
    let app = start().await;
    let hostile = "a\r\nSet-Cookie: x=1\t\u{1b}[31mred\u{1b}[0m \u{202e}rtl\u{2066} \u{1f9ec}\u{200b}\u{e0041} \"'`\\ </script> {{7*7}} ${x} %s %00 \u{feff}\u{fffd}\u{85}\u{2028}";
    let named = app.post("/entities", json!({"name": hostile})).await;
    assert_eq!(named["name"], hostile.trim());
    let entity = named["id"].as_str().unwrap();
    assert_eq!(app.all("/entities").await[0]["name"], hostile.trim());
    let mut body = gmail(&app, entity);
    let short: String = hostile.chars().take(50).collect();
    body["service_type"] = json!(short);
    body["scopes"] = json!([hostile]);
    for field in ["display_name", "description"] {
        body[field] = json!(hostile);
    }
    let mut config = Map::new();
    config.insert(hostile.to_owned(), json!([hostile]));
    body["config"] = Value::Object(config);
    let made = app.post("/integrations", body.clone()).await;
    let path = format!("/integrations/{}", made["id"].as_str().unwrap());
    for shown in [
        &made,
        &app.get(&path).await,
        &app.all("/integrations").await[0],
    ] {
        for field in [
            "service_type",
            "display_name",
            "description",
            "scopes",
            "config",
        ] {
            assert_eq!(shown[field], body[field], "{field}");
        }
    }
    let change = json!({"display_name": "x", "description": hostile, "config": body["config"]});
    let (status, changed) = app.send("PATCH", &path, Some(change)).await;
    assert_eq!((status, &changed["config"]), (200, &body["config"]));
}
