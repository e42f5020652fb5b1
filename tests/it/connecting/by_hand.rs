//! Tokens that a person gives by hand: asked about at their service before they are kept.

use super::*;

/// A body that connects a service by a token.
fn body(entity: &str, service: ServiceName, kind: &str, token: &str) -> Value {
    let field = if kind == "api_key" { kind } else { "token" };
    json!({
        "entity_id": entity, "service_name": service, "credential_type": kind,
        "credentials": {field: token},
    })
}

impl Setting {
    pub(super) async fn give(&self, service: ServiceName, kind: &str, token: &str) -> (u16, Value) {
        let entity = self.api().entity().await;
        let body = body(&entity, service, kind, token);
        let sent = self.api().try_send("POST", "/integrations", Some(body));
        sent.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_works_connects_its_account() {
    use ServiceName::{Github, Notion, Slack};
    let setting = Setting::start().await;
    for (service, kind, token, scopes) in [
        // A classic one, whose scopes GitHub tells.
        (Github, "bearer_token", "ghp_1", Some("repo, user")),
        // A fine-grained one has none.
        (Github, "bearer_token", "github_pat_1", None),
        (Github, "api_key", "ghp_2", Some("repo")),
        (Notion, "bearer_token", "ntn_1", None),
        (Notion, "api_key", "secret_1", None),
        (
            Slack,
            "bearer_token",
            "xoxb-1",
            Some("channels:read,channels:history,users:read"),
        ),
    ] {
        setting.vendor(service).issue(token, scopes);
        let (status, made) = setting.give(service, kind, token).await;
        assert_eq!(status, 201, "{token}: {made}");
        assert_eq!(made["account"], shown(service, 0), "{token}");
        assert_eq!(
            (
                &made["status"],
                &made["is_tested"],
                &made["credential_type"]
            ),
            (&json!("active"), &json!(true), &json!(kind))
        );
        assert!(!made.to_string().contains(token), "{made}");
        let told = made["scopes"].as_array().unwrap().len();
        let expected = scopes.map_or(0, |scopes| scopes.split(',').count());
        assert_eq!(told, expected, "{token}: {made}");
        let path = format!("/integrations/{}/test", made["id"].as_str().unwrap());
        let tested = setting.api().post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{token}: {tested}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_work_is_refused_with_the_reason() {
    use ServiceName::{Github, Notion, Slack};
    let setting = Setting::start().await;
    setting.vendor(Github).issue("ghp_little", Some("gist"));
    setting.vendor(Github).issue("ghp_nothing", Some(""));
    setting
        .vendor(Slack)
        .issue("xoxb-little", Some("channels:read"));
    for (service, token, says) in [
        (Github, "ghp_wrong", "Bad credentials"),
        (Github, "ghp_little", "repo"),
        (Github, "ghp_nothing", "repo"),
        (Notion, "ntn_wrong", "API token is invalid"),
        (Slack, "xoxb-wrong", "invalid_auth"),
        (Slack, "xoxb-little", "channels:history, users:read"),
    ] {
        let (status, problem) = setting.give(service, "bearer_token", token).await;
        assert_eq!(status, 422, "{token}: {problem}");
        assert_eq!(
            problem["errors"][0]["field"], "credentials.token",
            "{token}"
        );
        let message = problem["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(says), "{token}: {message}");
        assert!(!problem.to_string().contains(token), "{problem}");
    }
    setting.vendor(Notion).issue("ntn_1", None);
    setting.vendor(Notion).set_mood(Mood {
        who_answer: Some((
            403,
            json!({"code": "restricted_resource", "message": "No access."}),
        )),
        ..Mood::default()
    });
    let (status, problem) = setting.give(Notion, "bearer_token", "ntn_1").await;
    assert_eq!(status, 422, "{problem}");
    // Services that know no such tokens, and kinds that mean nothing there.
    for (service, kind) in [
        (ServiceName::Gmail, "bearer_token"),
        (ServiceName::GoogleCalendar, "api_key"),
        (ServiceName::GoogleDrive, "bearer_token"),
        (ServiceName::Linkedin, "bearer_token"),
        (ServiceName::Twitter, "bearer_token"),
        (ServiceName::Spotify, "api_key"),
    ] {
        let (status, problem) = setting.give(service, kind, "token").await;
        assert_eq!(status, 422, "{service}: {problem}");
        assert_eq!(
            problem["errors"][0]["field"], "credential_type",
            "{service}"
        );
    }
    assert_eq!(setting.api().all("/integrations").await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_leaves_the_integration_active_and_untested() {
    let setting = Setting::start().await;
    let github = setting.vendor(ServiceName::Github);
    github.issue("ghp_1", Some("repo"));
    github.set_mood(Mood {
        who_answer: Some((503, json!({"message": "Unicorn"}))),
        ..Mood::default()
    });
    let (status, made) = setting
        .give(ServiceName::Github, "bearer_token", "ghp_1")
        .await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["status"], &made["is_tested"], &made["account"]),
        (&json!("active"), &json!(false), &Value::Null)
    );
    let message = made["sync_error_message"].as_str().unwrap();
    assert!(message.contains("not tested"), "{message}");
    github.set_mood(Mood::default());
    let path = format!("/integrations/{}/test", made["id"].as_str().unwrap());
    let tested = setting.api().post(&path, json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
    let known = setting.api().get(path.strip_suffix("/test").unwrap()).await;
    assert_eq!(
        (&known["is_tested"], &known["account"]),
        (&json!(true), &json!(shown(ServiceName::Github, 0)))
    );
    assert_eq!(known["sync_error_message"], Value::Null, "{known}");

    // The same holds for a token that takes another's place.
    github.issue("ghp_2", Some("repo, gist"));
    github.set_mood(Mood {
        who_answer: Some((503, json!({"message": "Unicorn"}))),
        ..Mood::default()
    });
    let path = path.strip_suffix("/test").unwrap();
    let body = json!({"credentials": {"token": "ghp_2"}});
    let give = async || {
        let sent = setting.api().try_send("PATCH", path, Some(body.clone()));
        sent.await.unwrap()
    };
    let (status, changed) = give().await;
    assert_eq!((status, &changed["is_tested"]), (200, &json!(false)));
    let message = changed["sync_error_message"].as_str().unwrap();
    assert!(message.contains("not tested"), "{message}");
    github.set_mood(Mood::default());
    let (_, changed) = give().await;
    assert_eq!(changed["is_tested"], true, "{changed}");
    assert_eq!(changed["sync_error_message"], Value::Null, "{changed}");
    assert_eq!(changed["scopes"], json!(["repo", "gist"]), "{changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_must_be_of_the_same_account() {
    let setting = Setting::start().await;
    let github = setting.vendor(ServiceName::Github);
    github.issue("ghp_1", Some("repo"));
    github.issue("ghp_2", Some("repo"));
    let (_, made) = setting
        .give(ServiceName::Github, "bearer_token", "ghp_1")
        .await;
    let path = format!("/integrations/{}", made["id"].as_str().unwrap());
    github.set_mood(Mood {
        account: 1,
        ..Mood::default()
    });
    github.issue("ghp_other", Some("repo"));
    for (token, status) in [("ghp_other", 422), ("ghp_wrong", 422), ("ghp_2", 200)] {
        let body = json!({"credentials": {"token": token}});
        let sent = setting.api().try_send("PATCH", &path, Some(body)).await;
        let (given, answer) = sent.unwrap();
        assert_eq!(given, status, "{token}: {answer}");
    }
    let shown = setting.api().get(&path).await;
    assert_eq!(
        (&shown["status"], &shown["is_tested"]),
        (&json!("active"), &json!(true))
    );
    setting.assert_nothing_wrong();
}
