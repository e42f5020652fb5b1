//! Connections: what is spoken on them, how long they are waited for, and how they end.

use std::time::{Duration, Instant};

use nucleus::demo::{Mailbox, Method};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{Answer, OWNER, bearer, start};
use crate::{
    child::{PATIENCE, happens, in_time},
    harness::{OPERATOR_KEY, Setting, TestApp},
    waiting::is_asked_for_the_body,
};

/// How long the server waits for a head,
const HEAD: Duration = Duration::from_secs(1);
/// for a body,
const BODY: Duration = Duration::from_millis(1500);
/// and for a client that takes nothing.
const STALL: Duration = Duration::from_secs(1);
/// How much longer it may take where the machine has much else to do.
const BUSY: Duration = Duration::from_secs(5);

async fn connect(app: &TestApp) -> TcpStream {
    let address = app.url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer, whose length is told, and leaves the connection open.
async fn answer(socket: &mut TcpStream) -> Answer {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let answer = Answer {
                status,
                head: head.to_owned(),
                text: body.to_owned(),
            };
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            if body.len() == length {
                return answer;
            }
        }
        let mut bytes = [0];
        let read = in_time(Duration::from_secs(20), socket.read(&mut bytes)).await;
        assert_eq!(read.unwrap(), 1, "closed after {text:?}");
        text.push(char::from(bytes[0]));
    }
}

/// Reads until the server closes; what came, and how long after `begin`.
async fn until_closed(begin: Instant, socket: &mut TcpStream) -> (String, Duration) {
    let mut text = String::new();
    let read = socket.read_to_string(&mut text);
    in_time(Duration::from_secs(40), read).await.unwrap();
    (text, begin.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_one_request_after_the_other() {
    let app = start().await;
    let mut socket = connect(&app).await;
    for _ in 0..3 {
        socket
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(answer(&mut socket).await.status, 200);
    }
    // Several at once are answered in their order.
    let both = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /entities HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(both).await.unwrap();
    assert_eq!(answer(&mut socket).await.status, 200);
    assert_eq!(answer(&mut socket).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_without_tls() {
    let app = start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let requests = (0..50).map(|_| client.get(format!("{}/entities", app.url)).send());
    for response in futures_util::future::join_all(requests).await {
        let response = response.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["cache-control"], "no-store");
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["request_id"], id);
    }
}

/// Asks for more than fits between two machines, of what costs nothing to make, and reads nothing; what
/// came in the end, once it is read, and what was asked for.
async fn slow_reader(app: &TestApp) -> (usize, usize) {
    const TIMES: usize = 50;
    let path = "/docs/swagger-ui-bundle.js";
    let file = app.http.get(format!("{}{path}", app.url)).send().await;
    let asked_for = TIMES * file.unwrap().bytes().await.unwrap().len();
    // Linux gives a socket a few MB at most.
    assert!(asked_for > 32 * 1024 * 1024, "{asked_for}");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = app.url.strip_prefix("http://").unwrap();
    let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    for _ in 0..TIMES {
        socket.write_all(request.as_bytes()).await.unwrap();
    }
    crate::child::moment(STALL + Duration::from_secs(2)).await;
    let mut read = Vec::new();
    // Cut, not closed.
    let _ = in_time(Duration::from_secs(20), socket.read_to_end(&mut read)).await;
    (read.len(), asked_for)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_is_told_so_and_let_go() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .deadlines(|deadlines| {
            deadlines.head = HEAD;
            deadlines.body = BODY;
            deadlines.stall = STALL;
        })
        .start()
        .await;
    let key = bearer(OPERATOR_KEY);
    let silent = async {
        let begin = app.real_time();
        let mut socket = connect(&app).await;
        until_closed(begin, &mut socket).await
    };
    let slow_head = async |first: &[u8]| {
        let begin = app.real_time();
        let mut socket = connect(&app).await;
        socket.write_all(first).await.unwrap();
        until_closed(begin, &mut socket).await
    };
    let after_a_request = async {
        let mut socket = connect(&app).await;
        socket
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(answer(&mut socket).await.status, 200);
        let begin = app.real_time();
        socket.write_all(b"GET /livez HT").await.unwrap();
        until_closed(begin, &mut socket).await
    };
    let rests = async {
        let mut socket = connect(&app).await;
        for _ in 0..2 {
            socket
                .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(answer(&mut socket).await.status, 200);
            crate::child::moment(HEAD + Duration::from_millis(300)).await;
        }
    };
    let slow_body = async {
        let begin = app.real_time();
        let mut socket = connect(&app).await;
        let head = format!(
            "POST /entities HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n\
             content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        until_closed(begin, &mut socket).await
    };
    let (silent, slow_head, half_line, preface, after_a_request, slow_body, (read, asked_for), ()) = tokio::join!(
        silent,
        slow_head(b"GET /livez HTTP/1.1\r\nx-a: "),
        slow_head(b"G"),
        slow_head(b"PRI * HTTP/2.0\r\n"),
        after_a_request,
        slow_body,
        slow_reader(&app),
        rests,
    );
    assert!(read > 0 && read < asked_for, "{read} of {asked_for}");
    // Who has asked for nothing is told nothing.
    assert_eq!((silent.0.as_str(), preface.0.as_str()), ("", ""));
    for (text, _) in [&slow_head, &half_line, &after_a_request, &slow_body] {
        assert!(
            text.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{text}"
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        super::assert_is_problem(&body, 408, "timeout");
        assert!(
            head.contains(body["request_id"].as_str().unwrap()),
            "{head}"
        );
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    for (_, waited) in [&silent, &slow_head, &half_line, &preface, &after_a_request] {
        assert!((HEAD..HEAD + BUSY).contains(waited), "{waited:?}");
    }
    let waited = slow_body.1;
    assert!((BODY..BODY + BUSY).contains(&waited), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .deadlines(|deadlines| deadlines.linger = Duration::from_secs(30))
        .start()
        .await;
    let key = bearer(OPERATOR_KEY);
    for (headers, status) in [("", 401), (key.as_str(), 413)] {
        for _ in 0..20 {
            let mut socket = connect(&app).await;
            let authorization = match headers {
                "" => String::new(),
                key => format!("authorization: {key}\r\n"),
            };
            let head = format!(
                "POST /entities HTTP/1.1\r\nhost: x\r\n{authorization}\
                 content-type: application/json\r\ncontent-length: 16000000\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            // No write may fail, and only then is the answer looked at, as simple clients do.
            let chunk = vec![b' '; 1_000_000];
            for _ in 0..16 {
                socket.write_all(&chunk).await.unwrap();
            }
            assert_eq!(answer(&mut socket).await.status, status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_what_is_under_way_is_answered() {
    let far = Duration::from_secs(60);
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .deadlines(|deadlines| (deadlines.head, deadlines.grace) = (far, far))
        .start()
        .await;
    let id = app.connect().await;
    let mut idle = connect(&app).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer(&mut idle).await.status, 200);
    let mut silent = connect(&app).await;
    app.google.hold(Method::GetProfile);
    let mut busy = connect(&app).await;
    let request = format!(
        "POST /integrations/{id}/test HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
         content-length: 0\r\n\r\n",
        bearer(OPERATOR_KEY)
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    app.google.wait_for_held(Method::GetProfile, 1).await;
    let begin = app.real_time();
    app.shutdown.cancel();
    // Who has asked for nothing is let go at once.
    for socket in [&mut idle, &mut silent] {
        let (text, waited) = until_closed(begin, socket).await;
        assert!(text.is_empty() && waited < far / 2, "{text} {waited:?}");
    }
    let address = app.url.strip_prefix("http://").unwrap();
    let refused = async || TcpStream::connect(address).await.is_err();
    assert!(happens(PATIENCE, refused).await);
    app.google.release(Method::GetProfile);
    let answered = answer(&mut busy).await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("connection"), Some("close"));
    app.app.tasks.close();
    in_time(far / 2, app.app.tasks.wait()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_nobody_is_waited_for_forever() {
    let grace = Duration::from_secs(1);
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .deadlines(|deadlines| deadlines.grace = grace)
        .start()
        .await;
    let mut socket = connect(&app).await;
    let head = format!(
        "POST /entities HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n",
        bearer(OPERATOR_KEY)
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    is_asked_for_the_body(&mut socket).await;
    socket.write_all(b"{").await.unwrap();
    let begin = app.real_time();
    app.shutdown.cancel();
    app.app.tasks.close();
    in_time(Duration::from_secs(8), app.app.tasks.wait()).await;
    let waited = app.real_time() - begin;
    assert!((grace..grace + BUSY).contains(&waited), "{waited:?}");
}
