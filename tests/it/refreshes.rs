//! Refreshes where they are most easily lost: many tasks in several processes at a service that rotates
//! refresh tokens, deaths between its answer and the store, and every way in which a token endpoint
//! fails.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::future::join_all;
use nucleus::{
    app::App,
    db::{integration, overview::overview},
    domain::{Clock, sync::Scope},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    child::{Api, PATIENCE, Server, World, happens},
    doubles::{
        authorization_server::{AuthorizationServer, Call, Ended, Entry, Failure},
        secret_manager::{self, Fault, SecretManagerDouble},
        small_mailbox,
    },
    harness::{Setting, TestApp},
    kills::assert_dies,
};

/// Expiries that 64 tasks meet, where `NUCLEUS_REFRESHES` does not say how many.
const EXPIRIES: usize = 25;
/// Tasks in each of two processes.
const TASKS: usize = 32;

#[expect(
    clippy::disallowed_methods,
    reason = "how much is tested is up to who runs the tests"
)]
fn expiries() -> usize {
    let given = std::env::var("NUCLEUS_REFRESHES").ok();
    given.map_or(EXPIRIES, |text| text.parse().unwrap())
}

/// The program on a stand-in for Gmail, and its tokens from an authorization server.
pub async fn start(server: &AuthorizationServer) -> TestApp {
    let mut setting = Setting::new(small_mailbox(2));
    for (name, value) in variables_of(server, "gmail") {
        if !name.ends_with("API_URL") {
            setting = setting.variable(name, value);
        }
    }
    for service in ["google_calendar", "twitter"] {
        for (name, value) in variables_of(server, service) {
            setting = setting.variable(name, value);
        }
    }
    setting.start().await
}

/// What leads a service of the program to this authorization server.
pub fn variables_of(server: &AuthorizationServer, service: &str) -> Vec<(String, String)> {
    let before = format!("NUCLEUS_SERVICES__{}__", service.to_uppercase());
    let own = server.variables(service).into_iter();
    own.map(|(name, value)| (format!("{before}{name}"), value))
        .collect()
}

fn connection(service: &str, entity: &str, refresh_token: &str) -> Value {
    json!({
        "entity_id": entity, "service_name": service, "credential_type": "oauth2",
        "credentials": {"refresh_token": refresh_token},
    })
}

/// A new entity's connection with a consent of its own.
pub async fn connect(app: &TestApp, server: &AuthorizationServer) -> String {
    connect_at(app, server, "gmail").await
}

/// As [`connect`], at another service.
pub async fn connect_at(app: &TestApp, server: &AuthorizationServer, service: &str) -> String {
    let entity = app.entity().await;
    let body = connection(service, &entity, &server.consent("me@example.com"));
    let made = app.post("/integrations/", body).await;
    made["id"].as_str().unwrap().to_owned()
}

/// What a worker does with what is in the queue now.
async fn work_once(app: &TestApp) {
    let never = tokio_util::sync::CancellationToken::new();
    nucleus::worker::drain(&app.app, &never).await.unwrap();
}

/// Fails unless a run waits through a failure that passes, and is a success then.
async fn assert_passes(
    app: &TestApp,
    server: &AuthorizationServer,
    failure: Failure,
    times: usize,
) {
    let id = connect(app, server).await;
    server.fail(Call::Refresh, failure, times);
    let run = app.request_sync(&id).await;
    work_once(app).await;
    let waiting = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&waiting["status"], &waiting["error"]),
        (&json!("queued"), &json!(null)),
        "{failure:?}"
    );
    assert_eq!(
        app.integration(&id).await["status"],
        "active",
        "{failure:?}"
    );
    server.hand_out(app.google.access_token());
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{failure:?}: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_changes_no_status_and_loses_no_grant() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let slow = [Failure::NeverAnswers, Failure::Trickles];
    let quick = Failure::PASSING.iter().filter(|one| !slow.contains(one));
    let mut asked = 0;
    for failure in quick {
        assert_passes(&app, &server, *failure, 2).await;
        asked += 3;
        assert_eq!(server.count(Call::Refresh), asked, "{failure:?}");
    }
    assert_eq!(server.count(Call::Unknown), 0, "no redirect is followed");
    assert!(server.ended().iter().all(Option::is_none));
    assert_eq!(app.live_versions().await.len(), server.ended().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_its_time_is_left_after_ten_seconds() {
    let slow = [Failure::NeverAnswers, Failure::Trickles];
    join_all(slow.map(async |failure| {
        let server = AuthorizationServer::steady().await;
        let app = start(&server).await;
        let begin = app.real_time();
        assert_passes(&app, &server, failure, 1).await;
        let seconds = (app.real_time() - begin).as_secs();
        assert!((10..60).contains(&seconds), "{failure:?}: {seconds} s");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_answer_is_good_enough() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    for failure in Failure::ODD {
        let id = connect(&app, &server).await;
        let before = server.count(Call::Refresh);
        server.fail(Call::Refresh, failure, 1);
        server.hand_out(app.google.access_token());
        // A life that cannot be told is no reason to ask again each time.
        for _ in 0..2 {
            let run = app.sync(&id).await;
            assert_eq!(run["status"], "success", "{failure:?}: {run}");
        }
        assert_eq!(server.count(Call::Refresh), before + 1, "{failure:?}");
    }
    // Nothing came that had to be stored.
    let live = app.live_versions().await;
    assert_eq!(live.len(), Failure::ODD.len());
    assert!(live.iter().all(|path| path.ends_with("/1")), "{live:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_gone_ends_the_connection_and_keeps_what_is_stored() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    for (failure, code, status) in [
        (Failure::InvalidGrant, "access_revoked", "revoked"),
        (Failure::InvalidGrantAs401, "access_revoked", "revoked"),
        (Failure::SessionPolicy, "consent_expired", "expired"),
        (Failure::InvalidGrantWithNulls, "access_revoked", "revoked"),
        (Failure::InvalidGrantThatQuotes, "access_revoked", "revoked"),
    ] {
        let id = connect(&app, &server).await;
        server.fail(Call::Refresh, failure, 1);
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{failure:?}"
        );
        let found = app.integration(&id).await;
        assert_eq!(found["status"], status, "{failure:?}");
        let message = found["sync_error_message"].as_str().unwrap();
        assert!(message.contains("connect"), "{message}");
        assert!(message.len() < 500, "{message}");
        let is_quoted = message.contains("[REDACTED]");
        assert_eq!(is_quoted, failure == Failure::InvalidGrantThatQuotes);
        for token in server.refresh_tokens() {
            assert!(!message.contains(&token[..10]), "{message}");
        }
        // The service may have been wrong: whoever asks again finds the connection well.
        server.hand_out(app.google.access_token());
        let tested = app
            .post(&format!("/integrations/{id}/test"), json!({}))
            .await;
        assert_eq!(tested["is_valid"], true, "{tested}");
        let found = app.integration(&id).await;
        assert_eq!(
            (&found["status"], &found["sync_error_message"]),
            (&json!("active"), &json!(null))
        );
        assert_eq!(app.sync(&id).await["status"], "success");
    }
    let id = connect(&app, &server).await;
    server.withdraw("me@example.com");
    let run = app.sync(&id).await;
    assert_eq!(run["error"]["code"], "access_revoked", "{run}");
    assert_eq!(app.integration(&id).await["status"], "revoked");
    assert_eq!(app.live_versions().await.len(), 6);
    assert_eq!(server.ended(), [Some(Ended::Withdrawn); 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_has_to_mend_is_an_error_until_it_is_mended() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    for failure in Failure::OURS {
        let id = connect(&app, &server).await;
        server.fail(Call::Refresh, failure, 1);
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("client_refused")),
            "{failure:?}"
        );
        assert_eq!(app.integration(&id).await["status"], "error", "{failure:?}");
        // The schedule asks again by itself.
        app.clock.advance(TimeDelta::hours(3));
        server.hand_out(app.google.access_token());
        app.tick().await;
        app.drain().await;
        assert_eq!(
            app.integration(&id).await["status"],
            "active",
            "{failure:?}"
        );
        app.send("DELETE", &format!("/integrations/{id}"), None)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_whose_answer_was_lost_is_told_as_that() {
    let server = AuthorizationServer::rotating().await;
    let app = start(&server).await;
    let test = async |id: &str| {
        let path = format!("/integrations/{id}/test");
        app.post(&path, json!({})).await["is_valid"] == true
    };
    for (grant, (failure, broken)) in [(Failure::ResetsAfter, 0), (Failure::TruncatesAfter, 200)]
        .into_iter()
        .enumerate()
    {
        let id = connect_at(&app, &server, "twitter").await;
        server.fail(Call::Refresh, failure, 1);
        assert!(!test(&id).await, "{failure:?}");
        assert_eq!(
            app.integration(&id).await["status"],
            "active",
            "{failure:?}"
        );
        assert!(!test(&id).await, "{failure:?}");
        let found = app.integration(&id).await;
        assert_eq!(found["status"], "expired", "{failure:?}");
        let message = found["sync_error_message"].as_str().unwrap();
        assert!(message.contains("broken off"), "{message}");
        let refresh = |failure, status| Entry {
            call: Call::Refresh,
            path: "/token".to_owned(),
            by_client: true,
            grant: Some(grant),
            status,
            failure,
        };
        let ledger = server.ledger();
        let asked = [refresh(Some(failure), broken), refresh(None, 400)];
        assert_eq!(ledger[2 * grant..], asked, "{failure:?}");
    }
    // An answer that holds the next refresh token loses nothing, whatever else it lacks.
    let id = connect_at(&app, &server, "twitter").await;
    server.fail(Call::Refresh, Failure::LosesTheAccessTokenAfter, 1);
    assert!(!test(&id).await);
    assert!(test(&id).await);
    assert_eq!(app.integration(&id).await["status"], "active");
    let reused = Some(Ended::Reused);
    assert_eq!(server.ended(), [reused, reused, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_gone_after_its_consent_ended_has_expired() {
    let server = AuthorizationServer::steady().await;
    let app = start(&server).await;
    let id = connect(&app, &server).await;
    let db = &app.app.engine.db;
    let tx = db.begin().await.unwrap();
    let found = integration::find(db, Scope::Operator, id.parse().unwrap())
        .await
        .unwrap();
    let path = found.secret_path.as_deref().unwrap();
    let end = app.clock.now() + TimeDelta::days(10);
    integration::set_consent_end(&tx, found.id, path, end)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    // It is told of before.
    let before = |days| {
        let time = app.clock.now() + TimeDelta::days(days);
        format!(
            "/integrations?consent_ends_before={}",
            time.format("%Y-%m-%dT%H:%M:%SZ")
        )
    };
    let listed = app.all(&before(11)).await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(id)));
    assert!(app.all(&before(9)).await.is_empty());
    let (status, refused) = app
        .send("GET", "/integrations?consent_ends_before=soon", None)
        .await;
    assert_eq!(
        (status, &refused["errors"][0]["field"]),
        (422, &json!("consent_ends_before"))
    );
    let overview = overview(db, app.clock.now()).await.unwrap();
    let ending: Vec<_> = overview
        .consents_ending
        .iter()
        .map(|one| (one.service_name.as_str(), one.count))
        .collect();
    assert_eq!(ending, [("gmail", 1)]);

    app.clock.advance(TimeDelta::days(11));
    server.withdraw("me@example.com");
    let run = app.sync(&id).await;
    assert_eq!(run["error"]["code"], "consent_expired", "{run}");
    let found = app.integration(&id).await;
    assert_eq!(found["status"], "expired");
    let message = found["sync_error_message"].as_str().unwrap();
    assert!(message.contains("the consent ended at"), "{message}");
    assert_eq!(overview_of_now(&app).await, 0);
}

/// How many consents end soon, of those that may sync.
async fn overview_of_now(app: &TestApp) -> usize {
    let found = overview(&app.app.engine.db, app.clock.now()).await.unwrap();
    found.consents_ending.len()
}

/// Asks `app` for a token from many tasks at once.
async fn many_tokens(app: &Arc<App>, integration: &str) -> Vec<String> {
    let integration = integration.parse().unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let app = Arc::clone(app);
        asking.spawn(async move {
            let token = app.engine.tokens.token_for(integration, None, false).await;
            token.unwrap().expose_secret().to_owned()
        });
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_refreshed_once_for_all_processes_where_refresh_tokens_rotate() {
    let server = AuthorizationServer::rotating().await;
    let app = start(&server).await;
    let id = connect(&app, &server).await;
    let (other, clock) = app.beside(TimeDelta::zero()).await;
    for round in 1..=10 {
        let (here, there) = tokio::join!(many_tokens(&app.app, &id), many_tokens(&other, &id));
        let different: std::collections::HashSet<&String> = here.iter().chain(&there).collect();
        assert_eq!((different.len(), server.count(Call::Refresh)), (1, round));
        app.clock.advance(TimeDelta::minutes(59));
        clock.advance(TimeDelta::minutes(59));
    }
    assert_eq!(server.ended(), [None]);
    assert_eq!(app.live_versions().await.len(), 1);
}

/// Fails unless as many tests as there are tasks find the connection well.
async fn assert_well(api: &Api, id: &str) {
    let path = format!("/integrations/{id}/test");
    let asked = (0..TASKS).map(|_| api.post(&path, json!({})));
    for tested in join_all(asked).await {
        assert_eq!(tested["is_valid"], true, "{tested}");
    }
}

/// Two processes on one store, and the connection of one account.
async fn two_processes(
    server: &AuthorizationServer,
    failpoints: Option<&str>,
) -> (World, Server, Server, String) {
    let mut world = World::embedded(small_mailbox(1)).await;
    for (name, value) in variables_of(server, "twitter") {
        world.set(&name, value);
    }
    let first = world.listen("up").await;
    let mut command = world.command(&["serve"]);
    if let Some(failpoints) = failpoints {
        command.env("FAILPOINTS", failpoints);
    }
    let second = Server::start(command).await;
    let entity = first.api.entity().await;
    let body = connection("twitter", &entity, &server.consent("me@example.com"));
    let made = first.api.post("/integrations/", body).await;
    let id = made["id"].as_str().unwrap().to_owned();
    (world, first, second, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_tasks_in_two_processes_cause_one_refresh_an_expiry() {
    let server = AuthorizationServer::rotating().await;
    let (world, first, second, id) = two_processes(&server, None).await;
    for round in 1..=expiries() {
        tokio::join!(assert_well(&first.api, &id), assert_well(&second.api, &id));
        assert_eq!(server.count(Call::Refresh), round);
        assert_eq!(server.ended(), [None], "after {round} expiries");
        server.expire_access_tokens();
    }
    assert_eq!(world.live_versions().await.len(), 1);
    first.stop().await;
    second.stop().await;
}

/// A process dies at a crash point of a refresh, and another one, which was there all the time, finds
/// what it left.
async fn die_while_refreshing(point: &str) {
    let server = AuthorizationServer::rotating().await;
    let panic = format!("{point}=panic");
    let (world, first, mut second, id) = two_processes(&server, Some(&panic)).await;
    assert_well(&first.api, &id).await;
    server.expire_access_tokens();
    let path = format!("/integrations/{id}/test");
    let answer = second.api.try_send("POST", &path, Some(json!({}))).await;
    assert_eq!(answer, None, "{point}");
    assert_dies(&mut second.child, point).await;
    let tested = first.api.post(&path, json!({})).await;
    let found = first.api.get(&format!("/integrations/{id}")).await;
    if matches!(point, "refresh.sent" | "refresh.pinned") {
        // Nothing was sent, or everything was stored.
        assert_eq!(tested["is_valid"], true, "{point}: {tested}");
        assert_eq!(found["status"], "active", "{point}: {found}");
        assert_eq!(server.ended(), [None], "{point}");
    } else {
        assert_eq!(tested["is_valid"], false, "{point}: {tested}");
        assert_eq!(found["status"], "expired", "{point}: {found}");
        let message = found["sync_error_message"].as_str().unwrap();
        assert!(message.contains("broken off"), "{point}: {message}");
        assert_eq!(server.ended(), [Some(Ended::Reused)], "{point}");
        let (status, _) = first
            .api
            .try_send("POST", &format!("/integrations/{id}/sync"), None)
            .await
            .unwrap();
        assert_eq!(status, 409, "{point}");
        // Connected again, nothing is left of it.
        let again = json!({"credentials": {"refresh_token": server.consent("me@example.com")}});
        let (_, changed) = first
            .api
            .try_send("PATCH", &format!("/integrations/{id}"), Some(again))
            .await
            .unwrap();
        assert_eq!(changed["status"], "active", "{point}");
        assert_well(&first.api, &id).await;
    }
    first.stop().await;
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_a_services_answer_and_the_store_ends_in_needs_reconnection() {
    let points = [
        "refresh.sent",
        "refresh.answered",
        "refresh.put",
        "refresh.pinned",
    ];
    for point in points {
        assert!(crate::kills::crash_points().contains(point), "{point}");
    }
    join_all(points.map(die_while_refreshing)).await;
}

/// The program with everything of Gmail's from the server, and its credentials in this Secret Manager.
async fn start_in(double: &SecretManagerDouble, server: &AuthorizationServer) -> TestApp {
    let mut setting = Setting::new(small_mailbox(1)).in_secret_manager(&double.url);
    for (name, value) in variables_of(server, "gmail") {
        setting = setting.variable(name, value);
    }
    setting.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_store_that_is_away_for_a_while_loses_no_rotated_token() {
    let server = AuthorizationServer::rotating().await;
    let double = SecretManagerDouble::start().await;
    let app = start_in(&double, &server).await;
    let id = connect(&app, &server).await;
    let path = format!("/integrations/{id}/test");
    for (fault, times) in [
        (Fault::Refuse(403, "PERMISSION_DENIED"), 2),
        (Fault::Refuse(500, "INTERNAL"), 1),
        (Fault::Lost, 1),
    ] {
        double.inject(secret_manager::Call::Add, fault, times);
        let tested = app.post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{tested}");
        server.expire_access_tokens();
    }
    assert_eq!(
        (server.count(Call::Refresh), server.ended()),
        (3, vec![None])
    );
    // What was added and not answered goes with the sweep.
    assert_eq!(double.live(), 2);
    app.clock.advance(TimeDelta::minutes(61));
    app.tick().await;
    assert_eq!(double.live(), 1);
    let tested = app.post(&path, json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_lease_is_over_while_its_answer_is_being_stored_is_taken_over_by_nobody() {
    let server = AuthorizationServer::rotating().await;
    let double = SecretManagerDouble::start().await;
    let app = start_in(&double, &server).await;
    let id = connect(&app, &server).await;
    let (other, _) = app.beside(TimeDelta::zero()).await;
    let integration = id.parse().unwrap();
    let token = async |app: &App| {
        let token = app.engine.tokens.token_for(integration, None, false).await;
        token.unwrap().expose_secret().to_owned()
    };
    // The new refresh token is in hand for a while.
    double.inject(secret_manager::Call::Add, Fault::Refuse(500, "INTERNAL"), 5);
    let intruding = async {
        assert!(happens(PATIENCE, async || server.count(Call::Refresh) == 1).await);
        // As after a database that was away for longer than a lease.
        let over = |table| format!("UPDATE {table} SET refresh_lease_until = 1 RETURNING 'x'");
        let (here, there) = (over("entity_integrations"), over("dna.entity_integrations"));
        let changed = app.rows(&here, &there).await;
        assert_eq!(changed, ["x"]);
        token(&other).await
    };
    let (here, there) = tokio::join!(token(&app.app), intruding);
    assert_eq!(here, there);
    assert_eq!(
        (server.count(Call::Refresh), server.ended()),
        (1, vec![None])
    );
}
