//! Hostile clients, many at once: slow ones, long bodies, heaps of headers. The process stays small,
//! and who behaves is served as if nobody else were there.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use nucleus::demo::Mailbox;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    child::{Api, Server, World, in_time, moment},
    harness::OPERATOR_KEY,
};

/// Clients that hold a connection.
const SLOW_CLIENTS: usize = 500;
/// The process must not grow beyond this.
const MEMORY_KIB: u64 = 256 * 1024;
/// Of a hundred answers to somebody who behaves, 99 are there by then. Who were held up would wait for the
/// deadlines of the slow ones, which are ten times that.
const P99: Duration = Duration::from_secs(1);

fn address(server: &Server) -> String {
    server.api.url.strip_prefix("http://").unwrap().to_owned()
}

/// The head of a request that may create something, and announces so many bytes.
fn head(length: usize) -> String {
    format!(
        "POST /entities HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {OPERATOR_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends a beginning, and then a byte each half second for as long as it is let; gives the status
/// that it was sent away with, or 0 where it was cut off.
async fn trickle(address: &str, begin: &[u8], byte: &[u8]) -> u16 {
    let Ok(mut socket) = TcpStream::connect(address).await else {
        return 0;
    };
    if socket.write_all(begin).await.is_err() {
        return 0;
    }
    let (mut reader, mut writer) = socket.split();
    let mut answer = Vec::new();
    let writing = async {
        while writer.write_all(byte).await.is_ok() {
            moment(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => {}
        _ = reader.read_to_end(&mut answer) => {}
    }
    status(&answer)
}

fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Sends all of it and reads the answer.
async fn send(address: &str, bytes: &[u8]) -> u16 {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    status(&answer)
}

/// What one hostile client after the other sends, and what it is to be answered; where there is no
/// room for a long body, 503.
fn monsters() -> Vec<(Vec<u8>, u16)> {
    let with_body = |body: &[u8]| [head(body.len()).as_bytes(), body].concat();
    let mut many_headers = b"GET /livez HTTP/1.1\r\nhost: x\r\n".to_vec();
    for number in 0..10_000 {
        many_headers.extend(format!("x-{number}: 1\r\n").as_bytes());
    }
    many_headers.extend(b"\r\n");
    let deep = [vec![b'['; 500_000], vec![b']'; 500_000]].concat();
    let wide = [b"{\"name\":[".as_slice(), &b"[],".repeat(300_000), b"[]]}"].concat();
    vec![
        (with_body(&vec![b' '; 8 * 1024 * 1024]), 413),
        (many_headers, 431),
        (with_body(&deep), 400),
        (with_body(&wide), 422),
    ]
}

/// Asks again and again until it is told to end; how long each answer took.
async fn healthy(api: &Api, mut done: tokio::sync::oneshot::Receiver<()>) -> Vec<Duration> {
    let mut took = Vec::new();
    while done.try_recv().is_err() {
        for (method, path, body) in [
            ("GET", "/livez", None),
            ("GET", "/entities?limit=1", None),
            ("POST", "/entities", Some(json!({"name": "Ada"}))),
        ] {
            let begin = Instant::now();
            let (status, answer) = api.try_send(method, path, body).await.unwrap();
            took.push(begin.elapsed());
            assert!((200..300).contains(&status), "{method} {path}: {answer}");
        }
        moment(Duration::from_millis(10)).await;
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_monsters_cost_little_and_hold_nobody_up() {
    let world = World::new(Mailbox::new("me@example.com", 1)).await;
    let server = world.listen("up").await;
    let address = address(&server);
    let almost_all = [head(1_000_000).as_bytes(), &vec![b' '; 900_000]].concat();
    let begins = [
        b"".to_vec(),
        b"GET /livez HTTP/1.1\r\nx-a: ".to_vec(),
        head(1_000_000).into_bytes(),
        almost_all,
    ];
    let mut slow = JoinSet::new();
    for number in 0..SLOW_CLIENTS {
        let kind = number % begins.len();
        let (address, begin) = (address.clone(), begins[kind].clone());
        let byte: &[u8] = if kind == 0 { b"" } else { b" " };
        slow.spawn(async move { (kind, trickle(&address, &begin, byte).await) });
    }
    let (end, ended) = tokio::sync::oneshot::channel();
    let mut answered = BTreeMap::new();
    let hostile = async {
        let mut told = [(); 4].map(|()| Vec::new());
        for (monster, expected) in monsters().iter().cycle().take(24) {
            let status = send(&address, monster).await;
            let no_room = status == 503 && matches!(expected, 400 | 422);
            assert!(status == *expected || no_room, "{status} for {expected}");
            *answered.entry(status).or_insert(0) += 1;
        }
        while let Some(result) = slow.join_next().await {
            let (kind, status) = result.unwrap();
            told[kind].push(status);
        }
        end.send(()).unwrap();
        told
    };
    let (told, took) = in_time(
        Duration::from_secs(60),
        futures_util::future::join(hostile, healthy(&server.api, ended)),
    )
    .await;
    // With the slow ones gone there is room again.
    for (monster, expected) in monsters() {
        assert_eq!(send(&address, &monster).await, expected);
    }
    assert!(told[0].iter().all(|status| *status == 0), "{told:?}");
    assert!(told[1].iter().all(|status| *status == 408), "{told:?}");
    assert!(told[2].iter().all(|status| *status == 408), "{told:?}");
    // Long ones for which there was no room were told so.
    assert!(
        told[3].iter().all(|status| matches!(status, 408 | 503)),
        "{told:?}"
    );
    let p99 = took[took.len() * 99 / 100];
    let peak = server.child.peak_memory_kib();
    println!(
        "{} answers, 99 % within {p99:?}; {peak} KiB; monsters: {answered:?}",
        took.len()
    );
    assert!(took.len() > 100, "{}", took.len());
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    assert!(p99 < P99, "{p99:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_is_room_for_make_way_for_each_other() {
    let world = World::new(Mailbox::new("me@example.com", 1)).await;
    let server = world.listen("up").await;
    let address = address(&server);
    let mut held = Vec::new();
    for number in 0..1_200 {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(b"GET /li").await.unwrap();
        }
        held.push(socket);
        if number % 100 == 99 {
            // A new connection each time, at the end of the queue.
            let asked = send(
                &address,
                b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            );
            assert_eq!(in_time(Duration::from_secs(5), asked).await, 200);
        }
    }
    // The oldest were let go, the youngest are still there.
    let mut first = held.swap_remove(0);
    let mut text = String::new();
    let _ = in_time(Duration::from_secs(5), first.read_to_string(&mut text)).await;
    assert_eq!(text, "");
    let mut last = held.pop().unwrap();
    let request = b"vez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    last.write_all(request).await.unwrap();
    in_time(Duration::from_secs(5), last.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(status(text.as_bytes()), 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_out_of_file_descriptors_still_answers() {
    let world = World::new(Mailbox::new("me@example.com", 1)).await;
    let inner = world.command(&["up"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 80; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(world.folder.path())
        .env_clear();
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    let server = Server::start(command).await;
    let address = address(&server);
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(TcpStream::connect(&address).await.unwrap());
    }
    let asked = send(
        &address,
        b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(in_time(Duration::from_secs(20), asked).await, 200);
    drop(held);
    assert_eq!(server.api.get("/readyz").await["status"], "ok");
    let finished = server.stop().await;
    let complaint = "a connection could not be accepted";
    assert!(finished.stderr.contains(complaint), "it was never short");
}
