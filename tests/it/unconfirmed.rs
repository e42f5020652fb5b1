//! Accounts that a browser brought and that nobody confirms: what becomes of their grants when the process
//! dies, and in an incident.

use serde_json::json;

use crate::{
    child::{Api, Server},
    disconnecting::{number, world},
    doubles::authorization_server::{AuthorizationServer, Call, Ended},
    kills::{assert_dies, crash_points},
};

/// A browser in front of the page that asks for a confirmation: the cookie that it was given, and what the
/// form names.
struct Question {
    browser: reqwest::Client,
    cookie: String,
    confirmation: String,
}

impl Question {
    async fn open(api: &Api, entity: &str) -> Self {
        let begun = api
            .post(
                "/integrations/gmail/oauth/start",
                json!({"entity_id": entity}),
            )
            .await;
        let browser = reqwest::Client::new();
        let page = begun["authorization_url"].as_str().unwrap();
        let answer = browser.get(page).send().await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        let (_, rest) = text.split_once("name=\"confirmation\" value=\"").unwrap();
        let (confirmation, _) = rest.split_once('"').unwrap();
        Self {
            browser,
            cookie,
            confirmation: confirmation.to_owned(),
        }
    }

    /// Says no; the status of the answer, if there is one.
    async fn cancel(&self, api: &Api) -> Option<u16> {
        let path = format!("{}/integrations/gmail/oauth/callback", api.url);
        let form = format!("confirmation={}&decision=cancel", self.confirmation);
        let asked = self
            .browser
            .post(path)
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(form);
        let answer = asked.send().await.ok()?;
        Some(answer.status().as_u16())
    }
}

async fn die_while_ending(point: &str) {
    let server = AuthorizationServer::steady().await;
    let world = world(&server).await;
    let mut command = world.command(&["up"]);
    command.env("FAILPOINTS", format!("{point}=panic"));
    let mut dying = Server::start(command).await;
    let entity = dying.api.entity().await;
    let question = Question::open(&dying.api, &entity).await;
    assert_eq!(question.cancel(&dying.api).await, None, "{point}");
    assert_dies(&mut dying.child, point).await;
    assert_eq!(world.live_versions().await.len(), 1, "{point}");

    // A minute later somebody takes it up.
    let mut database = world.database().await;
    let later = "UPDATE oauth_sessions SET expires_at = '2020-01-01T00:00:00+00:00'";
    sqlx::query(later).execute(&mut database).await.unwrap();
    world.run(&["tick"]).await.ok();
    assert_eq!(server.ended(), [Some(Ended::Revoked)], "{point}");
    assert!(world.live_versions().await.is_empty(), "{point}");
    let kept = "SELECT count(*) FROM disconnections WHERE finished_at IS NOT NULL
                AND outcome IN ('revoked', 'already_gone')";
    assert_eq!(number(&world, kept).await, 1, "{point}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_nobody_wants_is_revoked_though_the_process_dies() {
    let points = crash_points();
    let own = points.iter().filter(|point| point.starts_with("waiting."));
    let own: Vec<&String> = own.collect();
    assert_eq!(own.len(), 2, "{own:?}");
    for point in own {
        die_while_ending(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_confirmed_is_revoked_in_an_incident_too() {
    let server = AuthorizationServer::steady().await;
    let world = world(&server).await;
    let serving = world.listen("up").await;
    let api = &serving.api;
    let question = Question::open(api, &api.entity().await).await;
    let command = ["revoke", "--all", "--service", "gmail"];
    let told = world.run(&command).await;
    told.assert_fails(2, &["--yes"]);
    assert!(told.stdout.contains("1 that wait"), "{told:?}");
    assert_eq!(server.count(Call::Revoke), 0);
    let done = world.run(&[&command[..], &["--yes"]].concat()).await.ok();
    assert!(done.contains("1/1"), "{done}");
    assert_eq!(server.ended(), [Some(Ended::Revoked)]);
    assert!(world.live_versions().await.is_empty());
    assert_eq!(question.cancel(api).await, Some(409));
    serving.stop().await;
}
