//! Clocks that are wrong: machines an hour apart, and a clock that is set forward or back under a
//! program that runs. Nothing is held twice, nothing is asked for twice, and nothing waits for ever.

use std::sync::Arc;

use chrono::TimeDelta;
use nucleus::{
    app::{App, Queue},
    db::{
        refresh_lease::{self, Leased},
        sync_run::{self, WorkerId},
    },
    demo::{Consent, Method},
    worker::{self, scheduler},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    db::PostgresDatabase,
    doubles::small_mailbox,
    harness::{Setting, TestApp, assert_adds_up},
};

const HOUR: TimeDelta = TimeDelta::hours(1);
/// How far ahead the clock of the other process is.
const APART: [TimeDelta; 2] = [HOUR, TimeDelta::hours(-1)];
const CALLBACK: &str = "/integrations/gmail/oauth/callback";

/// Runs a body on SQLite and on PostgreSQL, with the other process' clock ahead and behind.
async fn apart(setting: impl Fn() -> Setting, body: impl AsyncFn(TestApp, Arc<App>)) {
    for ahead in APART {
        let app = setting().start().await;
        let (other, _) = app.beside(ahead).await;
        body(app, other).await;

        let postgres = PostgresDatabase::create().await;
        let url = postgres.url.clone();
        let app = setting()
            .variable("NUCLEUS_DATABASE__URL", url)
            .start()
            .await;
        let (other, _) = app.beside(ahead).await;
        body(app, other).await;
    }
}

/// Asks for a sync, on either database; gives the run's id.
async fn request(app: &TestApp, integration: &str) -> String {
    let path = format!("/integrations/{integration}/sync");
    let requested = app.post(&path, json!({})).await;
    requested["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_held_by_one_of_two_workers_whose_clocks_are_an_hour_apart() {
    const MESSAGES: usize = 20;
    let setting = || Setting::new(small_mailbox(MESSAGES as u64));
    apart(setting, async |app, other| {
        let id = app.connect().await;
        app.google.hold(Method::MessagesGet);
        let run = request(&app, &id).await;
        let intruding = async {
            app.google.wait_for_held(Method::MessagesGet, 1).await;
            // To the other clock the lease of thirty seconds is over by far, or has an hour to go.
            assert_eq!(scheduler::tick(&other).await.unwrap().freed, 0);
            assert_eq!(app.tick().await.freed, 0);
            // A broker keeps a message with whom it gave it to, and would be waited for here.
            if matches!(other.queue, Queue::Embedded) {
                let taken = worker::drain(&other, &CancellationToken::new()).await;
                assert_eq!(taken.unwrap(), 0);
            }
            let (db, run) = (&other.engine.db, run.parse().unwrap());
            let claim = sync_run::claim(db, run, WorkerId::new(), other.now()).await;
            assert!(claim.unwrap().is_none());
            app.google.release(Method::MessagesGet);
        };
        tokio::join!(app.drain(), intruding);
        let run = app.get(&format!("/runs/{run}")).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_adds_up(&run);
        assert_eq!(run["counts"]["stored"], MESSAGES);
        assert_eq!(app.calls(Method::MessagesGet), MESSAGES);
        assert_eq!(app.all(&format!("/integrations/{id}/runs")).await.len(), 1);
        app.assert_matches_ledger(&id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_held_by_one_of_two_processes_whose_clocks_are_an_hour_apart() {
    let setting = || Setting::new(small_mailbox(1)).options(|o| o.rotate_refresh_tokens = true);
    apart(setting, async |app, other| {
        let id = app.connect().await;
        let integration = id.parse().unwrap();
        let token = async |app: &App| {
            let token = app.engine.tokens.token_for(integration, None, false).await;
            token.unwrap().expose_secret().to_owned()
        };
        app.google.hold(Method::Token);
        let intruding = async {
            app.google.wait_for_held(Method::Token, 1).await;
            let lease = refresh_lease::lease(&other.engine.db, integration, 30_000, None).await;
            assert!(matches!(lease.unwrap(), Leased::Theirs(_)));
            app.google.release(Method::Token);
            token(&other).await
        };
        let (first, second) = tokio::join!(token(&app.app), intruding);
        let statuses: Vec<u16> = app.google.requests().iter().map(|r| r.status).collect();
        if other.now() > app.app.now() {
            // By its clock the token has ended: one after the other, each with the refresh token that
            // held then.
            assert_ne!(first, second);
            assert_eq!(statuses, [200, 200]);
        } else {
            assert_eq!(first, second);
            assert_eq!(statuses, [200]);
        }
        let run = request(&app, &id).await;
        app.drain().await;
        let run = app.get(&format!("/runs/{run}")).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(app.integration(&id).await["status"], "active");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_past_a_tokens_end_has_it_refreshed_before_any_call() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    app.google.clear_requests();
    app.clock.advance(HOUR);
    assert_eq!(app.sync(&id).await["status"], "success");
    let log = app.google.requests();
    assert_eq!(log[0].method, Method::Token, "{log:?}");
    assert_eq!(app.calls(Method::Token), 1);
    assert!(log.len() > 1);
    assert!(log.iter().all(|call| call.status == 200), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_makes_a_token_seem_valid_and_one_refresh_mends_it() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    app.google.clear_requests();
    // To this clock the token lasts for two hours; the service's clock is right.
    app.clock.set_back(HOUR);
    app.google.expire_access_tokens();
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    let log = app.google.requests();
    let refused = log.iter().filter(|call| call.status == 401).count();
    assert_eq!((app.calls(Method::Token), refused), (1, 1), "{log:?}");
    app.assert_matches_ledger(&id).await;
    // The next one is kept and used as any other.
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_eq!(app.calls(Method::Token), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_asks_for_no_sync_twice_and_for_the_next_in_time() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    app.clock.advance(HOUR * 2);
    assert_eq!(app.tick().await.requested, 1);
    for _ in 0..3 {
        app.clock.set_back(TimeDelta::minutes(20));
        assert_eq!(app.tick().await.requested, 0);
    }
    app.clock.advance(HOUR);
    assert_eq!(app.tick().await.requested, 0);
    app.drain().await;
    let runs = app.all(&format!("/integrations/{id}/runs")).await;
    assert_eq!(runs.len(), 2, "{runs:#?}");
    assert!(runs.iter().all(|run| run["status"] == "success"));
    // Late by what the clock was set back, and no more: an interval is an hour and up to a tenth.
    app.clock.set_back(HOUR);
    assert_eq!(app.tick().await.requested, 0);
    app.clock.advance(HOUR * 2 + TimeDelta::minutes(6));
    assert_eq!(app.tick().await.requested, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_whose_clocks_are_an_hour_apart_one_asks() {
    for ahead in APART {
        let app = Setting::new(small_mailbox(3)).start().await;
        let id = app.connect().await;
        app.sync(&id).await;
        let (other, other_clock) = app.beside(ahead).await;
        let day = TimeDelta::hours(24);
        let step = TimeDelta::minutes(3);
        let mut asked = 0;
        let mut passed = TimeDelta::zero();
        while passed < day {
            app.clock.advance(step);
            other_clock.advance(step);
            passed += step;
            for _ in 0..2 {
                asked += app.tick().await.requested;
                asked += scheduler::tick(&other).await.unwrap().requested;
            }
            worker::drain(&other, &CancellationToken::new())
                .await
                .unwrap();
            worker::drain(&app.app, &CancellationToken::new())
                .await
                .unwrap();
        }
        // What one scheduler alone asks for in a day, and one at the beginning.
        assert!((21..=25).contains(&asked), "{ahead}: {asked}");
        let runs = app.all(&format!("/integrations/{id}/runs")).await;
        assert_eq!(runs.len(), asked + 1);
    }
}

async fn begin(app: &TestApp, entity: &str) -> Value {
    let body = json!({"entity_id": entity});
    let begun = app.post("/integrations/gmail/oauth/start", body).await;
    let url = begun["authorization_url"].as_str().unwrap();
    let answer = app.google.authorize(url, &Consent::default()).await;
    let url: url::Url = answer.unwrap();
    let part = |name: &str| {
        let mut pairs = url.query_pairs();
        pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    json!({"state": part("state"), "code": part("code")})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_a_clock_set_forward_ends_is_refused_whole_and_begun_anew() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let entity = app.entity().await;
    let answer = begin(&app, &entity).await;
    app.clock.advance(HOUR);
    let (status, problem) = app.send("POST", CALLBACK, Some(answer)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("state_expired")));
    assert_eq!(app.calls(Method::Token), 0);
    assert!(app.all("/integrations").await.is_empty());
    // The clock is corrected, and the person tries again.
    app.clock.set_back(HOUR);
    let answer = begin(&app, &entity).await;
    let (status, connected) = app.send("POST", CALLBACK, Some(answer)).await;
    assert!((200..300).contains(&status), "{connected}");
    app.drain().await;
    assert_eq!(app.all("/integrations").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_under_a_clock_set_back_goes_on_and_still_ends() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let (entity, other) = (app.entity().await, app.entity().await);
    let answered = begin(&app, &entity).await;
    let left = begin(&app, &other).await;
    app.clock.set_back(HOUR);
    app.tick().await;
    let (status, connected) = app.send("POST", CALLBACK, Some(answered)).await;
    assert!((200..300).contains(&status), "{connected}");
    app.drain().await;
    // The other has ten minutes and what the clock was set back.
    app.clock.advance(HOUR + TimeDelta::minutes(11));
    let (status, problem) = app.send("POST", CALLBACK, Some(left)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("state_expired")));
    assert_eq!(app.all("/integrations").await.len(), 1);
}
