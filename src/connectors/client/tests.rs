//! The client against a small server, answer by answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    super::{
        ConnectorError,
        testing::{Answer, Asked, TestServer},
    },
    *,
};
use crate::domain::Clock;

/// 100,002 bytes, compressed.
const GZIP_BOMB: &str = "H4sIAAAAAAACA+3BQREAAAwCoCr29Oy+GnsACQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPBVd8ndMT6ihgEA";
const GZIP_SMALL: &str = "H4sIAAAAAAACA6tWSlSyMqwFAK+sG1YHAAAA";

fn plain_rule(status: StatusCode, _: &HeaderMap, _: &[u8]) -> Class {
    match status.as_u16() {
        401 => Class::Unauthorized,
        404 => Class::NotFound,
        429 => Class::RateLimited(None),
        500.. => Class::Retry,
        _ => Class::Rejected {
            code: "rejected",
            detail: "no".into(),
        },
    }
}

const REQUEST: Request<'static> = Request {
    method: "things.list",
    target: Target::Path {
        path: &["v1", "thing"],
        query: &[("page", "secret-page")],
    },
    headers: &[],
    shape: Shape::Object,
    units: 3,
    cap: 1000,
    classify: plain_rule,
};

/// Answers with each of `answers` in turn and then with an object.
async fn stage(answers: Vec<fn() -> Answer>) -> TestServer {
    let next = AtomicUsize::new(0);
    TestServer::new(move |_: &Asked| {
        let next = next.fetch_add(1, Ordering::SeqCst);
        answers
            .get(next)
            .map_or_else(|| Answer::json(json!({"ok": true})), |answer| answer())
    })
    .await
}

async fn get(stage: &TestServer) -> Result<Reply, ClientError> {
    stage.access.client.get(&stage.access, REQUEST).await
}

fn status(status: u16) -> Answer {
    Answer::status(status, "")
}

#[tokio::test]
async fn a_reply_comes_with_the_token_and_escapes_the_path() {
    let mut stage = stage(vec![]).await;
    stage.access.base_url = stage.access.base_url.join("prefix/").unwrap();
    let request = Request {
        target: Target::Path {
            path: &["a/b", "c?d"],
            query: &[("q", "x&y")],
        },
        ..REQUEST
    };
    let reply = stage.access.client.get(&stage.access, request).await;
    assert_eq!(&reply.unwrap().body[..], b"{\"ok\":true}");
    let asked = &stage.asked()[0];
    assert_eq!(asked.path, "/prefix/a%2Fb/c%3Fd");
    assert_eq!(asked.get("q"), "x&y");
    assert_eq!(asked.token, "token-0");
    assert!(asked.agent.starts_with("nucleus/"), "{}", asked.agent);
    assert_eq!(stage.access.governor.units(), 3);
}

#[tokio::test]
async fn faults_are_retried_with_growing_waits_and_every_attempt_costs() {
    let truncated = || Answer::status(200, "{\"messages\":[{\"id\":\"1");
    let empty = || Answer::status(200, "");
    let answers: Vec<fn() -> Answer> = vec![|| status(500), truncated, empty, || status(503)];
    let stage = stage(answers).await;
    let before = stage.clock.now();
    get(&stage).await.unwrap();
    assert_eq!(stage.asked().len(), 5);
    assert_eq!(stage.access.governor.units(), 15);
    let waited = (stage.clock.now() - before).num_milliseconds();
    assert!(
        (15_000..=30_000).contains(&waited),
        "1+2+4+8 s and jitter: {waited}"
    );
}

#[tokio::test]
async fn a_lasting_fault_is_unavailable_after_five_attempts() {
    let stage = stage(vec![|| status(502); 9]).await;
    let error = get(&stage).await.unwrap_err();
    assert_eq!(
        error,
        ClientError::Unavailable("the service answered 502".into())
    );
    assert_eq!(stage.asked().len(), ATTEMPTS);
}

#[tokio::test]
async fn a_dead_network_is_unavailable_and_says_nothing_of_the_query() {
    let mut stage = stage(vec![]).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    stage.access.base_url.set_port(Some(port)).unwrap();
    let ClientError::Unavailable(reason) = get(&stage).await.unwrap_err() else {
        panic!("not unavailable");
    };
    assert!(reason.contains("refused"), "{reason}");
    assert!(!reason.contains("secret-page"), "{reason}");
    assert!(!reason.contains("token-0"), "{reason}");
}

#[tokio::test]
async fn a_silent_service_is_given_up_at_the_deadline() {
    let mut stage = stage(vec![]).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    stage.access.base_url.set_port(Some(port)).unwrap();
    stage.access.client = ApiClient::with_deadline(Duration::from_millis(20)).unwrap();
    let error = get(&stage).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_wait_that_the_service_asks_for_is_kept_up_to_ten_minutes() {
    let seconds = || status(503).header("retry-after", "600");
    let stage = stage(vec![seconds]).await;
    let before = stage.clock.now();
    get(&stage).await.unwrap();
    assert_eq!((stage.clock.now() - before).num_seconds(), 600);
}

#[tokio::test]
async fn a_longer_wait_ends_the_call_at_once() {
    for code in [503, 429] {
        let stage =
            TestServer::new(move |_: &Asked| status(code).header("retry-after", "601")).await;
        let before = stage.clock.now();
        let retry_after = Duration::from_secs(601);
        assert_eq!(
            get(&stage).await.unwrap_err(),
            ClientError::RateLimited { retry_after }
        );
        assert_eq!(stage.asked().len(), 1);
        assert_eq!(stage.clock.now(), before);
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_call_repeated() {
    let stage = stage(vec![|| status(401)]).await;
    get(&stage).await.unwrap();
    let tokens: Vec<String> = stage.asked().into_iter().map(|asked| asked.token).collect();
    assert_eq!(tokens, ["token-0", "token-1"]);
    assert_eq!(*stage.tokens.replaced.lock().unwrap(), ["token-0"]);
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_ends_the_call() {
    let stage = stage(vec![|| status(401); 5]).await;
    let error = get(&stage).await.unwrap_err();
    let revoked = ConnectorError::Revoked("refused".into());
    assert_eq!(error, ClientError::Access(revoked));
    assert_eq!(stage.asked().len(), 2);
}

#[tokio::test]
async fn refusals_are_waited_out() {
    let named = || status(429).header("retry-after", "30");
    let stage = stage(vec![named, || status(429), || status(429)]).await;
    let before = stage.clock.now();
    get(&stage).await.unwrap();
    assert_eq!(stage.asked().len(), 4);
    let waited = (stage.clock.now() - before).num_seconds();
    assert!((33..=34).contains(&waited), "30, 1 and 2 s: {waited}");
}

#[tokio::test]
async fn lasting_refusals_end_the_call_with_a_minute() {
    let stage = stage(vec![|| status(429); 50]).await;
    let retry_after = Duration::from_secs(60);
    assert_eq!(
        get(&stage).await.unwrap_err(),
        ClientError::RateLimited { retry_after }
    );
    assert_eq!(stage.asked().len(), 8);
}

#[tokio::test]
async fn what_cannot_be_mended_is_asked_once() {
    for (code, expected) in [(404, None), (400, Some(400)), (302, Some(302))] {
        let stage = TestServer::new(move |_: &Asked| status(code)).await;
        let error = get(&stage).await.unwrap_err();
        match expected {
            None => assert_eq!(error, ClientError::NotFound),
            Some(expected) => assert!(
                matches!(&error, ClientError::Rejected { status, .. } if *status == expected),
                "{error:?}"
            ),
        }
        assert_eq!(stage.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_moved_at_its_origin_is_followed_once() {
    for code in [301, 302, 307, 308] {
        let stage = TestServer::new(move |asked: &Asked| match asked.path.as_str() {
            "/v1/thing" => status(code).header("location", "/things/7"),
            _ => Answer::json(json!({"ok": true})),
        })
        .await;
        get(&stage).await.unwrap();
        let asked = stage.asked();
        assert_eq!((asked.len(), asked[1].path.as_str()), (2, "/things/7"));
        assert_eq!(asked[1].get("page"), "secret-page");
        assert_eq!(asked[1].token, "token-0");
        assert_eq!(stage.access.governor.units(), 6);
    }
    let stage = TestServer::new(|_: &Asked| status(301).header("location", "/again?page=2")).await;
    let error = get(&stage).await.unwrap_err();
    let is_code = |error: &ClientError, expected: &str| matches!(error, ClientError::Rejected { code, .. } if *code == expected);
    assert!(is_code(&error, "moved_again"), "{error:?}");
    let asked = stage.asked();
    assert_eq!((asked.len(), asked[1].get("page")), (2, "2"));
    // Another port is another origin, and so is another scheme.
    let other = TestServer::new(|_: &Asked| status(404)).await;
    for location in [other.access.base_url.as_str(), "https://127.0.0.1/"] {
        let location = location.to_owned();
        let stage =
            TestServer::new(move |_: &Asked| status(301).header("location", location.clone()))
                .await;
        let error = get(&stage).await.unwrap_err();
        assert!(is_code(&error, "foreign_link"), "{error:?}");
        assert_eq!((stage.asked().len(), other.asked().len()), (1, 0));
    }
}

#[tokio::test]
async fn all_waits_of_a_call_together_end_with_what_is_left_of_the_patience() {
    for code in [503, 429] {
        let stage =
            TestServer::new(move |_: &Asked| status(code).header("retry-after", "250")).await;
        let before = stage.clock.now();
        let retry_after = Duration::from_secs(250);
        assert_eq!(
            get(&stage).await.unwrap_err(),
            ClientError::RateLimited { retry_after }
        );
        let waited = (stage.clock.now() - before).num_seconds();
        assert!((500..600).contains(&waited), "{waited}");
        assert_eq!(stage.asked().len(), 3);
    }
}

#[tokio::test]
async fn a_body_is_capped_as_announced_and_as_unpacked() {
    let plain = || Answer::status(200, &format!("{{{}}}", " ".repeat(999)));
    let packed = |text: &str| Answer {
        status: 200,
        headers: vec![("content-encoding", "gzip".into())],
        body: STANDARD.decode(text).unwrap(),
    };
    let stage = TestServer::new(move |asked: &Asked| match asked.path.as_str() {
        "/plain" => plain(),
        "/bomb" => packed(GZIP_BOMB),
        _ => packed(GZIP_SMALL),
    })
    .await;
    for (path, expected) in [("plain", None), ("bomb", None), ("small", Some(7))] {
        let request = Request {
            target: Target::Path {
                path: &[path],
                query: &[],
            },
            ..REQUEST
        };
        let reply = stage.access.client.get(&stage.access, request).await;
        match expected {
            None => assert_eq!(reply.unwrap_err(), ClientError::TooLarge(1000), "{path}"),
            Some(bytes) => assert_eq!(reply.unwrap().body.len(), bytes, "{path}"),
        }
    }
}

#[tokio::test]
async fn one_large_body_is_in_memory_at_a_time() {
    let stage = TestServer::new(|_: &Asked| {
        Answer::status(200, &format!("{{{}}}", " ".repeat(LARGE_BYTES)))
    })
    .await;
    let request = Request {
        cap: 2 * LARGE_BYTES,
        ..REQUEST
    };
    let client = &stage.access.client;
    let first = client.get(&stage.access, request).await.unwrap();
    assert!(first.large.is_some());
    let mut second = Box::pin(client.get(&stage.access, request));
    let asked_twice = async {
        while stage.access.governor.units() < 6 || client.large.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut second => panic!("two large bodies at a time"),
        () = asked_twice => {}
    }
    drop(first);
    let second = second.await.unwrap();
    assert!(second.large.is_some());
    drop(second);
    assert_eq!(client.large.available_permits(), 1);
}

#[test]
fn loopback_hosts_are_known() {
    for (text, expected) in [
        ("http://127.0.0.1:80/", true),
        ("http://[::1]/", true),
        ("http://localhost/", true),
        ("https://gmail.googleapis.com/", false),
        ("https://127.example.com/", false),
    ] {
        assert_eq!(is_loopback(&Url::parse(text).unwrap()), expected, "{text}");
    }
}
