//! Ending the access to accounts, one by one and all at once: what the services are asked and answer, what
//! is gone afterwards, and what becomes of a removal whose process dies.

use std::sync::Arc;

use futures_util::{StreamExt, future::join_all, stream};
use nucleus::{
    db::{DbError, disconnection},
    domain::audit::Origin,
    integrations::IntegrationError,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::{
    child::{PATIENCE, Server, World, happens, moment},
    doubles::{
        authorization_server::{AuthorizationServer, CLIENT_ID, Call, Ended, Failure},
        small_mailbox,
    },
    harness::Setting,
    kills::{assert_dies, crash_points},
    refreshes::{self, connect, start, variables_of},
};

/// Connections that are ended at once, where `NUCLEUS_DISCONNECTIONS` does not say how many.
const MANY: usize = 200;

#[expect(
    clippy::disallowed_methods,
    reason = "how much is tested is up to who runs the tests"
)]
fn many() -> usize {
    let given = std::env::var("NUCLEUS_DISCONNECTIONS").ok();
    given.map_or(MANY, |text| text.parse().unwrap())
}

/// A folder whose program asks this authorization server for everything of Google's.
pub async fn world(server: &AuthorizationServer) -> World {
    let mut world = World::embedded(small_mailbox(1)).await;
    for service in ["gmail", "google_calendar"] {
        for (name, value) in variables_of(server, service) {
            world.set(&name, value);
        }
    }
    world
}

/// Connects an account of its own for an entity.
async fn connect_at(
    api: &crate::child::Api,
    server: &AuthorizationServer,
    entity: &str,
    service: &str,
    account: &str,
) -> String {
    let body = json!({
        "entity_id": entity, "service_name": service, "credential_type": "oauth2",
        "credentials": {"refresh_token": server.consent(account)},
    });
    let made = api.post("/integrations/", body).await;
    made["id"].as_str().unwrap().to_owned()
}

pub async fn number(world: &World, statement: &str) -> i64 {
    let mut database = world.database().await;
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
        .fetch_one(&mut database)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_service_are_revoked_beside_a_running_program() {
    let count = many();
    let server = AuthorizationServer::steady().await;
    let world = world(&server).await;
    // Makes the database and the vault's key; afterwards nobody takes the syncs out of the queue.
    world.listen("up").await.stop().await;
    let serving = world.listen("serve").await;
    let api = &serving.api;
    let ids: Vec<String> = stream::iter(0..count)
        .map(|serial| {
            let server = &server;
            async move {
                let entity = api.entity().await;
                let account = format!("{serial}@example.com");
                let id = connect_at(api, server, &entity, "gmail", &account).await;
                api.sync(&id).await;
                id
            }
        })
        .buffered(8)
        .collect()
        .await;
    let other = connect_at(
        api,
        &server,
        &api.entity().await,
        "google_calendar",
        "x@y.z",
    )
    .await;
    let tested = api
        .post(&format!("/integrations/{}/test", ids[0]), json!({}))
        .await;
    assert_eq!(tested["is_valid"], true, "{tested}");

    let command = ["revoke", "--all", "--service", "gmail"];
    let told = world.run(&command).await;
    told.assert_fails(2, &["--yes"]);
    assert!(
        told.stdout.contains(&format!("{count} integrations")),
        "{told:?}"
    );
    assert_eq!(server.count(Call::Revoke), 0);
    assert_eq!(world.live_versions().await.len(), count + 1);

    let command = [&command[..], &["--yes"]].concat();
    server.fail(Call::Revoke, Failure::InternalError, 3);
    let done = world.run(&command).await;
    done.assert_fails(1, &[&format!("3 of {count}"), "status 500"]);
    assert_eq!(
        done.stdout.matches("  revoked").count(),
        count - 3,
        "{done:?}"
    );
    // Whether or not the service did, nothing is done with the access any more.
    for row in api.all("/integrations").await {
        let expected = if row["id"] == other {
            "active"
        } else {
            "revoked"
        };
        assert_eq!(row["status"], expected, "{row}");
    }
    let requests = "SELECT count(*) FROM outbox WHERE topic = 'nucleus-sync-requests'";
    assert_eq!(number(&world, requests).await, 0);
    let cancelled = "SELECT count(*) FROM sync_runs WHERE status = 'cancelled'";
    assert_eq!(number(&world, cancelled).await, count as i64);
    assert_eq!(world.live_versions().await.len(), 3 + 1);

    // Although the grant stands where the service failed, its owner cannot undo what the operator did.
    let asked = server.count(Call::Profile);
    for id in &ids {
        let path = format!("/integrations/{id}");
        let tested = api.post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], false, "{tested}");
        assert_eq!(api.get(&path).await["status"], "revoked");
    }
    assert_eq!(server.count(Call::Profile), asked);

    let again = world.run(&command).await.ok();
    assert_eq!(again.matches("  revoked").count(), 3, "{again}");
    assert_eq!(world.live_versions().await.len(), 1);
    let (last, revoked) = (server.ended().pop().unwrap(), server.ended());
    assert_eq!(last, None, "another service's grant");
    assert!(
        revoked[..count]
            .iter()
            .all(|ended| *ended == Some(Ended::Revoked))
    );
    for (outcome, expected) in [("revoked", count as i64), ("failed", 3)] {
        let kept = format!("SELECT count(*) FROM disconnections WHERE outcome = '{outcome}'");
        assert_eq!(number(&world, &kept).await, expected, "{outcome}");
    }
    assert!(
        world.run(&command).await.ok().is_empty(),
        "nothing is left to do"
    );

    // What the other process held in memory opens nothing, and the account can come again.
    let path = format!("/integrations/{}", ids[0]);
    let tested = api.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested["is_valid"], false, "{tested}");
    let (status, _) = api
        .try_send("POST", &format!("{path}/sync"), None)
        .await
        .unwrap();
    assert_eq!(status, 409);
    let body = json!({"credentials": {"refresh_token": server.consent("0@example.com")}});
    let (_, changed) = api.try_send("PATCH", &path, Some(body)).await.unwrap();
    assert_eq!(changed["status"], "active");
    let tested = api.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_removed_at_once_leave_nothing() {
    let server = AuthorizationServer::rotating().await;
    let app = start(&server).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        let id = connect(&app, &server).await;
        app.request_sync(&id).await;
        ids.push(id);
    }
    // Each has a grant of its own, though the account is the same: the double does as X does.
    for id in &ids {
        app.app
            .engine
            .tokens
            .token_for(id.parse().unwrap(), None, false)
            .await
            .unwrap();
    }
    let paths: Vec<String> = ids.iter().map(|id| format!("/integrations/{id}")).collect();
    // Eight at a time, which one Secret Manager of the tests keeps up with.
    let removing = stream::iter(&paths).map(|path| app.send("DELETE", path, None));
    let answers: Vec<_> = removing.buffer_unordered(8).collect().await;
    for (status, removed) in answers {
        assert_eq!(status, 200, "{removed}");
        assert_eq!(removed["revoked"], true, "{removed}");
    }
    assert_eq!(server.count(Call::Revoke), 40);
    assert_eq!(server.ended(), [Some(Ended::Revoked); 40]);
    assert!(app.live_versions().await.is_empty());
    assert!(app.outbox_is_empty().await);
    // Nothing in memory either.
    for id in ids {
        let token = app
            .app
            .engine
            .tokens
            .token_for(id.parse().unwrap(), None, false)
            .await;
        assert!(token.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_two_share_is_revoked_though_both_are_removed_at_once() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let token = server.consent("me@example.com");
    let entity = app.entity().await;
    let mut paths = Vec::new();
    for service in ["gmail", "google_calendar"] {
        let body = json!({
            "entity_id": entity, "service_name": service, "credential_type": "oauth2",
            "credentials": {"refresh_token": token},
        });
        let made = app.post("/integrations/", body).await;
        paths.push(format!("/integrations/{}", made["id"].as_str().unwrap()));
    }
    let removed = join_all(paths.iter().map(|path| app.send("DELETE", path, None))).await;
    let revoked = |removed: &&(u16, Value)| removed.1["revoked"] == true;
    assert!(removed.iter().any(|one| revoked(&one)), "{removed:?}");
    assert_eq!(server.ended(), [Some(Ended::Revoked)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_clients_were_granted_are_two_grants() {
    let server = AuthorizationServer::steady().await;
    let mut setting = Setting::new(small_mailbox(1));
    for service in ["gmail", "google_calendar", "google_drive"] {
        for (name, value) in variables_of(&server, service) {
            setting = setting.variable(name, value);
        }
    }
    let name = "NUCLEUS_SERVICES__GOOGLE_CALENDAR__CLIENT_ID";
    let app = setting.variable(name, "another-client").start().await;
    let entity = app.entity().await;
    let mut paths = Vec::new();
    for service in ["gmail", "google_calendar", "google_drive"] {
        let body = json!({
            "entity_id": entity, "service_name": service, "credential_type": "oauth2",
            "credentials": {"refresh_token": server.consent("me@example.com")},
        });
        let made = app.post("/integrations/", body).await;
        paths.push(format!("/integrations/{}", made["id"].as_str().unwrap()));
    }
    let mut told = Vec::new();
    for path in [&paths[1], &paths[0], &paths[2]] {
        let (_, removed) = app.send("DELETE", path, None).await;
        told.push((removed["revoked"].clone(), removed["reason"].clone()));
    }
    let revoked = (json!(true), Value::Null);
    let shared = (json!(false), json!("shared_grant"));
    assert_eq!(told, [revoked.clone(), shared, revoked]);
    let revoked = Some(Ended::Revoked);
    assert_eq!(server.ended(), [None, revoked, revoked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_revoked_by_what_a_refresh_under_way_brings() {
    let server = AuthorizationServer::rotating().await;
    let app = start(&server).await;
    let (other, _) = app.beside(chrono::TimeDelta::zero()).await;
    let id = refreshes::connect_at(&app, &server, "twitter").await;
    server.hold(Call::Refresh);
    let integration = id.parse().unwrap();
    let refreshing = other.engine.tokens.token_for(integration, None, false);
    let ending = async {
        assert!(happens(PATIENCE, async || server.count(Call::Refresh) == 1).await);
        let path = format!("/integrations/{id}");
        let mut removing = std::pin::pin!(app.send("DELETE", &path, None));
        tokio::select! {
            (_, removed) = &mut removing => panic!("it did not wait: {removed}"),
            () = moment(std::time::Duration::from_millis(500)) => server.release(),
        }
        removing.await
    };
    let (refreshed, (_, removed)) = tokio::join!(refreshing, ending);
    assert!(refreshed.is_ok());
    assert_eq!(removed["revoked"], true, "{removed}");
    assert_eq!(server.ended(), [Some(Ended::Revoked)]);
    assert!(app.live_versions().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_without_a_usable_token_is_not_called_revoked() {
    let server = AuthorizationServer::rotating().await;
    let mut setting = Setting::new(small_mailbox(1));
    for (name, value) in variables_of(&server, "github") {
        setting = setting.variable(name, value);
    }
    let app = setting.start().await;
    let id = refreshes::connect_at(&app, &server, "github").await;
    // The refresh token is used up, and nobody has the next.
    server.fail(Call::Refresh, Failure::ResetsAfter, 1);
    let path = format!("/integrations/{id}");
    app.post(&format!("{path}/test"), json!({})).await;
    let (_, removed) = app.send("DELETE", &path, None).await;
    let told = (&removed["revoked"], &removed["reason"]);
    assert_eq!(told, (&json!(false), &json!("no_usable_token")));
    assert_eq!(server.count(Call::Revoke), 0);
    assert!(app.live_versions().await.is_empty());
}

/// The end of everything an entity has, however often it was interrupted.
async fn die_while_removing(point: &str, whole_entity: bool) {
    let server = AuthorizationServer::steady().await;
    let world = world(&server).await;
    let mut command = world.command(&["up"]);
    command.env("FAILPOINTS", format!("{point}=panic"));
    let mut dying = Server::start(command).await;
    let entity = dying.api.entity().await;
    let mut paths = Vec::new();
    let all = [
        ("gmail", "a@example.com"),
        ("google_calendar", "b@example.com"),
    ];
    let count = if whole_entity { 2 } else { 1 };
    for (service, account) in &all[..count] {
        let id = connect_at(&dying.api, &server, &entity, service, account).await;
        paths.push(format!("/integrations/{id}"));
    }
    let removed = match whole_entity {
        true => format!("/entities/{entity}"),
        false => format!("{}?data=delete", paths[0]),
    };
    let answer = dying.api.try_send("DELETE", &removed, None).await;
    assert_eq!(answer, None, "{point}");
    assert_dies(&mut dying.child, point).await;

    let server_again = world.listen("up").await;
    let api = &server_again.api;
    let is_gone = happens(PATIENCE, async || {
        let (status, _) = api.try_send("GET", &paths[0], None).await.unwrap();
        let left = number(&world, "SELECT count(*) FROM entity_removals").await;
        let unfinished = "SELECT count(*) FROM disconnections WHERE finished_at IS NULL";
        status == 404 && left == 0 && number(&world, unfinished).await == 0
    });
    assert!(is_gone.await, "{point}: taken up by nobody");
    let entities = api.all("/entities").await.len();
    let ended = server.ended();
    let revoked = Some(Ended::Revoked);
    if whole_entity {
        assert_eq!((entities, ended), (0, vec![revoked, revoked]), "{point}");
    } else {
        assert_eq!((entities, ended), (1, vec![revoked]), "{point}");
    }
    // A version that nobody names any more goes with the sweep.
    let mut database = world.database().await;
    let long_ago = "UPDATE secret_intents SET created_at = '2020-01-01 00:00:00+00:00'";
    sqlx::query(long_ago).execute(&mut database).await.unwrap();
    world.run(&["tick"]).await.ok();
    assert!(world.live_versions().await.is_empty(), "{point}");
    let kept = "SELECT count(*) FROM disconnections WHERE outcome IN ('revoked', 'already_gone')";
    assert_eq!(number(&world, kept).await, count as i64, "{point}");
    server_again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_whose_process_dies_is_taken_up_by_the_next() {
    let points = crash_points();
    // Between many records, `removal/interrupted.rs` dies.
    let own = points
        .iter()
        .filter(|point| point.starts_with("disconnect.") && *point != "disconnect.records");
    let own: Vec<&String> = own.collect();
    assert_eq!(own.len(), 5, "{own:?}");
    for point in own {
        die_while_removing(point, true).await;
        if point != "disconnect.entity" {
            die_while_removing(point, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_tokens_of_connections_that_ended_elsewhere_are_let_go() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let (ended, alive) = (connect(&app, &server).await, connect(&app, &server).await);
    let (other, _) = app.beside(chrono::TimeDelta::zero()).await;
    let tokens = &other.engine.tokens;
    for id in [&ended, &alive] {
        tokens
            .token_for(id.parse().unwrap(), None, false)
            .await
            .unwrap();
    }
    assert_eq!(tokens.held(), 2);
    tokens.let_go().await.unwrap();
    assert_eq!(tokens.held(), 2);
    app.send("DELETE", &format!("/integrations/{ended}"), None)
        .await;
    tokens.let_go().await.unwrap();
    assert_eq!(tokens.held(), 1);
}

/// The whole flow of OAuth with the operator's key; what the callback answers.
async fn connect_by_oauth(api: &crate::child::Api, service: &str, entity: &str) -> (u16, Value) {
    let path = format!("/integrations/{service}/oauth");
    let begun = api
        .post(&format!("{path}/start"), json!({"entity_id": entity}))
        .await;
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let page = begun["authorization_url"].as_str().unwrap();
    let answer = browser.get(page).send().await.unwrap();
    let back: url::Url = answer.headers()["location"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let answer: serde_json::Map<String, Value> = back
        .query_pairs()
        .map(|(name, value)| (name.into_owned(), json!(value)))
        .collect();
    let body = Some(Value::Object(answer));
    api.try_send("POST", &format!("{path}/callback"), body)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_removal_takes_no_new_credentials_with_it() {
    let server = AuthorizationServer::steady().await;
    let world = world(&server).await;
    let mut command = world.command(&["up"]);
    command.env("FAILPOINTS", "disconnect.begun=panic");
    let mut dying = Server::start(command).await;
    let entity = dying.api.entity().await;
    let account = "me@example.com";
    let id = connect_at(&dying.api, &server, &entity, "gmail", account).await;
    let path = format!("/integrations/{id}");
    let removed = format!("{path}?data=delete");
    assert_eq!(dying.api.try_send("DELETE", &removed, None).await, None);
    assert_dies(&mut dying.child, "disconnect.begun").await;

    // Without a scheduler nobody takes it up.
    let serving = world.listen("serve").await;
    let api = &serving.api;
    let token = json!({"credentials": {"refresh_token": server.consent(account)}});
    for change in [token, json!({"status": "active"})] {
        let answer = api.try_send("PATCH", &path, Some(change.clone())).await;
        let (status, problem) = answer.unwrap();
        let told = (status, &problem["code"]);
        assert_eq!(told, (409, &json!("integration_ending")), "{change}");
    }
    let (status, problem) = connect_by_oauth(api, "gmail", &entity).await;
    let told = (status, &problem["code"]);
    assert_eq!(told, (409, &json!("integration_ending")), "{problem}");
    let before = api.get(&path).await;
    assert_eq!(before["status"], "inactive", "{before}");
    assert_eq!(world.live_versions().await.len(), 1);

    // Whoever ends the access then, ends it as the removal had it.
    let command = ["revoke", "--all", "--service", "gmail", "--yes"];
    world.run(&command).await.ok();
    assert_eq!(api.try_send("GET", &path, None).await.unwrap().0, 404);
    assert_eq!(server.ended()[0], Some(Ended::Revoked));
    let finished = "SELECT count(*) FROM disconnections
                    WHERE records = 'delete' AND outcome = 'revoked' AND finished_at IS NOT NULL";
    assert_eq!(number(&world, finished).await, 1);
    let (status, again) = connect_by_oauth(api, "gmail", &entity).await;
    assert_eq!(status, 201, "{again}");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_ends_nothing_that_was_connected_since() {
    if !cfg!(feature = "failpoints") {
        panic!("the crash points are not compiled in: run with --features failpoints");
    }
    let server = AuthorizationServer::steady().await;
    let app = Arc::new(start(&server).await);
    let id = connect(&app, &server).await;
    let (other, _) = app.beside(chrono::TimeDelta::zero()).await;
    // The first is stopped before it asks the service, for longer than its lease.
    let (meanwhile, runtime) = (Arc::clone(&app), Handle::current());
    let (consents, path) = (server.clone(), format!("/integrations/{id}"));
    fail::cfg_callback("disconnect.begun", move || {
        fail::remove("disconnect.begun");
        let ending_and_connecting = async {
            disconnection::end_leases(&other.engine.db).await.unwrap();
            other.integrations.resume_disconnections().await;
            assert_eq!(consents.ended(), [Some(Ended::Revoked)]);
            let token = consents.consent("me@example.com");
            let body = json!({"credentials": {"refresh_token": token}});
            meanwhile.send("PATCH", &path, Some(body)).await
        };
        let (status, changed) =
            tokio::task::block_in_place(|| runtime.block_on(ending_and_connecting));
        assert_eq!((status, &changed["status"]), (200, &json!("active")));
    })
    .unwrap();
    let late = app.app.integrations.revoke_access(id.parse().unwrap());
    let late = Origin::command().scope(late).await;
    let is_over = matches!(late, Err(IntegrationError::Db(DbError::NotFound)));
    assert!(is_over, "{late:?}");
    assert_eq!(server.ended(), [Some(Ended::Revoked), None]);
    assert_eq!(app.live_versions().await.len(), 1);
    server.hand_out(app.google.access_token());
    let tested = app
        .post(&format!("/integrations/{id}/test"), json!({}))
        .await;
    assert_eq!(tested["is_valid"], true, "{tested}");
}

/// How one service is asked to revoke a grant: the call, whether the client says who it is, and whether
/// the grant ends.
async fn assert_revoked(service: &str, path: &str, by_client: bool, reason: Option<&str>) {
    let server = AuthorizationServer::steady().await;
    let mut setting = Setting::new(small_mailbox(1));
    for (name, value) in variables_of(&server, service) {
        setting = setting.variable(name, value);
    }
    let app = setting.start().await;
    let entity = app.entity().await;
    // Of two grants the other one stays as it is.
    server.consent_with_access("other@example.com");
    let (refresh_token, access_token) = server.consent_with_access("me@example.com");
    let body = json!({
        "entity_id": entity, "service_name": service, "credential_type": "oauth2",
        "credentials": {"refresh_token": refresh_token, "access_token": access_token},
        "token_expires_in": 3600,
    });
    let made = app.post("/integrations", body).await;
    let id = made["id"].as_str().unwrap();
    let (status, removed) = app
        .send("DELETE", &format!("/integrations/{id}"), None)
        .await;
    assert_eq!(status, 200, "{service}: {removed}");
    let told = (removed["revoked"].as_bool(), removed["reason"].as_str());
    assert_eq!(told, (Some(reason.is_none()), reason), "{service}");
    let ended = reason.is_none().then_some(Ended::Revoked);
    assert_eq!(server.ended(), [None, ended], "{service}");
    let ledger = server.ledger();
    let asked: Vec<_> = ledger
        .iter()
        .map(|entry| (entry.path.as_str(), entry.by_client, entry.grant))
        .collect();
    let expected = [(path, by_client, Some(1))];
    let expected = if path.is_empty() { &[][..] } else { &expected };
    assert_eq!(asked, expected, "{service}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_asked_to_revoke_in_its_own_way() {
    let github = format!("/applications/{CLIENT_ID}/grant");
    for (service, path, by_client, reason) in [
        ("gmail", "/gmail/revoke", false, None),
        ("github", github.as_str(), true, None),
        ("notion", "/notion/revoke", true, None),
        (
            "slack",
            "/api/auth.revoke",
            false,
            Some("access_token_only"),
        ),
        ("linkedin", "/linkedin/revoke", true, None),
        ("twitter", "/twitter/revoke", true, None),
        ("spotify", "", false, Some("not_supported")),
    ] {
        assert_revoked(service, path, by_client, reason).await;
    }
}
