//! How many requests who may send, and what the rest is told.

use std::time::Duration;

use nucleus::{db::api_key::KeyScope, keys::Key};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{Answer, OWNER, ask, bearer, key_of, key_that_may};
use crate::{
    contract::operations,
    db::PostgresDatabase,
    harness::{OPERATOR_KEY, Setting, TestApp},
    waiting::in_time,
};
use nucleus::demo::Mailbox;

/// The program with limits that are soon reached; what is spent comes back after 20 s and more.
async fn start(per_key: &str, per_address: &str, failures: &str) -> TestApp {
    setting(per_key, per_address, failures).start().await
}

fn setting(per_key: &str, per_address: &str, failures: &str) -> Setting {
    Setting::new(Mailbox::new(OWNER, 1))
        .variable("NUCLEUS_HTTP__REQUESTS_PER_KEY", per_key)
        .variable("NUCLEUS_HTTP__REQUESTS_PER_ADDRESS", per_address)
        .variable("NUCLEUS_HTTP__FAILURES_PER_ADDRESS", failures)
}

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(app, "GET", path, headers, b"").await
}

/// Fails unless the answer says that it was too much, when to come back, and by which limit.
fn assert_limited(answer: &Answer, policy: &str) {
    answer.assert_problem(429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some(policy));
    let limit = answer.header("ratelimit").unwrap();
    let name = policy.split(';').next().unwrap();
    assert!(limit.starts_with(&format!("{name};r=0;t=")), "{limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_own_limit_and_nobody_elses() {
    let app = start("3", "0", "0").await;
    let (entity, other) = (app.entity().await, app.entity().await);
    let key = bearer(&key_of(&app, &entity).await);
    let policy = "\"key\";q=3;w=60";
    for left in [2, 1, 0] {
        let answer = get(&app, "/integrations", &[("authorization", &key)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some(policy));
        let limit = answer.header("ratelimit").unwrap();
        assert!(
            limit.starts_with(&format!("\"key\";r={left};t=")),
            "{limit}"
        );
    }
    // Whatever it asks for next; and nothing is done.
    for (method, path, body) in [
        ("GET", "/integrations".to_owned(), json!(null)),
        ("GET", "/docs".to_owned(), json!(null)),
        (
            "POST",
            "/integrations".to_owned(),
            super::by_token(&entity, "github"),
        ),
        (
            "DELETE",
            format!("/integrations/{}", super::NOBODY),
            json!(null),
        ),
    ] {
        let headers = [
            ("authorization", key.as_str()),
            ("content-type", "application/json"),
        ];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = ask(&app, method, &path, &headers, body.as_bytes()).await;
        assert_limited(&answer, policy);
    }
    assert!(app.all("/integrations").await.is_empty());
    // Another key of the same entity, another entity and the operator have lost nothing.
    for key in [
        key_that_may(&app, &entity, KeyScope::Read).await,
        key_of(&app, &other).await,
    ] {
        let answer = get(&app, "/integrations", &[("authorization", &bearer(&key))]).await;
        assert!(
            answer.header("ratelimit").unwrap().contains(";r=2;"),
            "{answer:?}"
        );
    }
    for _ in 0..6 {
        let operator = [("authorization", bearer(OPERATOR_KEY))];
        let operator = operator
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let answer = get(&app, "/integrations", &operator).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_an_address_is_limited_and_with_a_wrong_one_too() {
    let app = start("0", "2", "3").await;
    let entity = app.entity().await;
    let key = bearer(&key_of(&app, &entity).await);
    let unused = bearer(&key_of(&app, &entity).await);
    let known = get(&app, "/integrations", &[("authorization", &key)]).await;
    assert_eq!(known.status, 200);
    for path in ["/docs", "/integrations"] {
        let answer = get(&app, path, &[]).await;
        assert_ne!(answer.status, 429, "{path}");
    }
    for path in ["/docs", "/integrations", "/health"] {
        assert_limited(&get(&app, path, &[]).await, "\"address\";q=2;w=60");
    }
    // Where there is nothing there is no room for an answer either.
    let nowhere = get(&app, "/no/such/path", &[]).await;
    assert_limited(&nowhere, "\"address\";q=2;w=60");
    // A made-up key brings nobody past it, and guessing has an end.
    for _ in 0..3 {
        let answer = get(&app, "/integrations", &[("authorization", "Bearer x")]).await;
        answer.assert_problem(401, "unauthorized");
    }
    for wrong in ["Bearer x", "Basic eDp4", "", "Bearer nk_0"] {
        for path in ["/integrations", "/docs"] {
            let answer = get(&app, path, &[("authorization", wrong)]).await;
            assert_limited(&answer, "\"failures\";q=3;w=60");
        }
    }
    // A guess that is right does not show: whose key was not seen before waits as guessers do.
    let guessed = get(&app, "/integrations", &[("authorization", &unused)]).await;
    assert_limited(&guessed, "\"failures\";q=3;w=60");
    // Who had a key before is not refused for it, and whoever runs the process is always answered.
    for _ in 0..5 {
        assert_eq!(
            get(&app, "/integrations", &[("authorization", &key)])
                .await
                .status,
            200
        );
        assert_eq!(get(&app, "/livez", &[]).await.status, 200);
        assert_eq!(get(&app, "/readyz", &[]).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_past_the_limit_costs_no_look_up() {
    let database = PostgresDatabase::create().await;
    let setting = setting("0", "0", "3").variable("NUCLEUS_DATABASE__URL", &database.url);
    let app = setting.start().await;
    let entity = app.entity().await;
    let (used, revoked) = (key_of(&app, &entity).await, key_of(&app, &entity).await);
    for key in [&used, &revoked] {
        let found = get(&app, "/integrations", &[("authorization", &bearer(key))]).await;
        assert_eq!(found.status, 200);
    }
    let mut direct = PgConnection::connect(&database.url).await.unwrap();
    let revoke = "UPDATE dna.api_keys SET revoked_at = now() WHERE hash = $1";
    let hash = nucleus::keys::hash(&revoked);
    let done = sqlx::query(revoke).bind(hash).execute(&mut direct).await;
    assert_eq!(done.unwrap().rows_affected(), 1);
    // One that is revoked is looked up once more, and is no better than any other from then on.
    let revoked = bearer(&revoked);
    let guess = async || get(&app, "/integrations", &[("authorization", &revoked)]).await;
    guess().await.assert_problem(401, "unauthorized");
    for _ in 0..2 {
        let wrong = get(&app, "/integrations", &[("authorization", "Bearer x")]).await;
        wrong.assert_problem(401, "unauthorized");
    }
    // Whoever looks a key up from here on waits for the lock.
    let mut lock = direct.begin().await.unwrap();
    let locked = "LOCK TABLE dna.api_keys IN ACCESS EXCLUSIVE MODE";
    sqlx::query(locked).execute(&mut *lock).await.unwrap();
    let second = Duration::from_secs(1);
    // All within the minute after which it would be looked up again.
    for _ in 0..6 {
        let guessed = in_time(10 * second, guess()).await;
        assert_limited(&guessed, "\"failures\";q=3;w=60");
    }
    let used = bearer(&used);
    let header = [("authorization", used.as_str())];
    let looked_up = get(&app, "/integrations", &header);
    let waits = tokio::time::timeout(second, looked_up).await;
    assert!(waits.is_err(), "{waits:?}");
    lock.rollback().await.unwrap();
    assert_eq!(
        get(&app, "/integrations", &[("authorization", &used)])
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_keys_that_are_not_known_have_an_end_too() {
    let app = start("0", "0", "3").await;
    let entity = app.entity().await;
    let known = bearer(&key_of(&app, &entity).await);
    let ask_with = async |key: &str| get(&app, "/integrations", &[("authorization", key)]).await;
    assert_eq!(ask_with(&known).await.status, 200);
    app.app.engine.db.clone().close().await.unwrap();
    let made_up = bearer(Key::generate().expose());
    for _ in 0..3 {
        ask_with(&made_up).await.assert_problem(503, "unavailable");
    }
    for _ in 0..3 {
        let limited = ask_with(&made_up).await;
        assert_limited(&limited, "\"failures\";q=3;w=60");
        // Whose key was valid a moment ago is told what is the matter.
        ask_with(&known).await.assert_problem(503, "unavailable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_the_connections_unless_a_proxy_is_trusted() {
    let forged = |address: &'static str| [("x-forwarded-for", address)];
    let app = start("0", "1", "0").await;
    assert_eq!(get(&app, "/docs", &forged("192.0.2.1")).await.status, 200);
    assert_eq!(get(&app, "/docs", &forged("192.0.2.2")).await.status, 429);

    let setting = setting("0", "1", "0").variable("NUCLEUS_HTTP__TRUSTED_PROXIES", "1");
    let app = setting.start().await;
    for (chain, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        // What the client itself has written before the proxy's word.
        ("192.0.2.3, 192.0.2.2", 429),
        ("192.0.2.2, 192.0.2.3", 200),
        ("\u{e4}\u{ff}, 192.0.2.3", 429),
    ] {
        assert_eq!(
            get(&app, "/docs", &forged(chain)).await.status,
            status,
            "{chain}"
        );
    }
    // A line of a client's own that is no text does not have the proxy's ignored.
    let lines = [
        ("x-forwarded-for", "\u{e4}"),
        ("x-forwarded-for", "192.0.2.4"),
    ];
    for status in [200, 429] {
        assert_eq!(get(&app, "/docs", &lines).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_tenant_floods_others_are_answered() {
    let app = start("20", "0", "0").await;
    let (noisy, quiet) = (app.entity().await, app.entity().await);
    let (noisy, quiet) = (key_of(&app, &noisy).await, key_of(&app, &quiet).await);
    let mut limited = 0;
    for turn in 0..20 {
        let flood = (0..20).map(|_| app.send_as(Some(&noisy), "GET", "/integrations", None));
        let (answers, (status, body)) = tokio::join!(
            futures_util::future::join_all(flood),
            app.send_as(Some(&quiet), "GET", "/integrations", None),
        );
        assert_eq!(status, 200, "turn {turn}: {body}");
        limited += answers.iter().filter(|(status, _)| *status == 429).count();
    }
    // 400 requests; what comes back meanwhile is a third of one a second.
    assert!(limited > 300, "{limited}");
}

#[tokio::test]
async fn the_document_says_where_too_much_may_be_asked() {
    for operation in operations() {
        let is_probe = ["/livez", "/readyz"].contains(&operation.path.as_str());
        let responses = &operation.described["responses"];
        assert_eq!(
            responses["429"].is_object(),
            !is_probe,
            "{}",
            operation.path
        );
    }
}
