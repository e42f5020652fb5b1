//! `/runs/{id}/stream`: a run as it goes.

use std::time::Duration;

use nucleus::{
    api::Deadlines,
    demo::{Mailbox, Method, generate},
};
use serde_json::{Value, json};

use super::{NOBODY, OWNER, assert_is_problem, bearer, key_of};
use crate::{
    child::{happens, in_time},
    contract,
    harness::{OPERATOR_KEY, Setting, TestApp},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream as a client reads it.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(app: &TestApp, run: &str) -> Result<Self, (u16, Value)> {
        Self::open_by(app, run, OPERATOR_KEY).await
    }

    async fn open_by(app: &TestApp, run: &str, key: &str) -> Result<Self, (u16, Value)> {
        let url = format!("{}/runs/{run}/stream", app.url);
        let client = reqwest::Client::new();
        let request = client.get(url).header("authorization", bearer(key));
        let response = request.send().await.unwrap();
        if response.status() != 200 {
            let path = format!("/runs/{run}/stream");
            let (status, body) = contract::read("GET", &path, response).await.unwrap();
            return Err((status, serde_json::from_slice(&body).unwrap()));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Ok(Self {
            response,
            text: String::new(),
        })
    }

    /// The next block of lines; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = in_time(PATIENCE, self.response.chunk()).await.unwrap();
            let Some(chunk) = chunk else {
                assert_eq!(self.text, "", "a block broke off");
                return None;
            };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event: its name and its data.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let (name, data) = block.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
        }
    }

    /// Reads on to the end; the last event's name.
    async fn last(&mut self) -> String {
        let mut last = String::new();
        while let Some((name, _)) = self.event().await {
            last = name;
        }
        last
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_as_it_goes_and_as_it_ends() {
    let app = Setting::new(generate::mailbox(300, 1)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let path = format!("/runs/{run}");
    let mut stream = Stream::open(&app, &run).await.unwrap();
    let (name, first) = stream.event().await.unwrap();
    assert_eq!(
        (name.as_str(), &first["status"]),
        ("progress", &json!("queued"))
    );
    assert_eq!(first, app.get(&path).await);
    app.google.hold(Method::MessagesGet);
    let watching = async {
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        let (name, running) = stream.event().await.unwrap();
        assert_eq!(
            (name.as_str(), &running["status"]),
            ("progress", &json!("running"))
        );
        app.google.release(Method::MessagesGet);
        let mut stored = 0;
        loop {
            let (name, told) = stream.event().await.unwrap();
            assert_eq!(told["run_id"], json!(run));
            let now = told["counts"]["stored"].as_u64().unwrap();
            assert!(now >= stored, "{told}");
            stored = now;
            if name == "done" {
                return told;
            }
            assert_eq!(
                (name.as_str(), &told["status"]),
                ("progress", &json!("running"))
            );
        }
    };
    let ((), done) = tokio::join!(app.drain(), watching);
    assert_eq!(done["status"], "success");
    assert_eq!(done, app.get(&path).await);
    assert_eq!(stream.event().await, None);
    // One that is over is told once.
    let mut stream = Stream::open(&app, &run).await.unwrap();
    assert_eq!(stream.event().await, Some(("done".to_owned(), done)));
    assert_eq!(stream.event().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_its_owners() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let stranger = app.entity().await;
    let key = key_of(&app, &stranger).await;
    let path = format!("/runs/{run}/stream");
    let (status, answer) = app.send_as(Some(&key), "GET", &path, None).await;
    assert_is_problem(&answer, 404, "not_found");
    assert_eq!(status, 404);
    let (status, answer) = app.send_as(None, "GET", &path, None).await;
    assert_is_problem(&answer, 401, "unauthorized");
    assert_eq!(status, 401);
    let (status, answer) = Stream::open(&app, NOBODY).await.err().unwrap();
    assert_is_problem(&answer, 404, "not_found");
    assert_eq!(status, 404);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_removed_ends_its_stream() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let mut stream = Stream::open(&app, &run).await.unwrap();
    assert_eq!(stream.event().await.unwrap().0, "progress");
    let (status, _) = app
        .send("DELETE", &format!("/integrations/{id}"), None)
        .await;
    assert_eq!(status, 200);
    let (name, data) = stream.event().await.unwrap();
    assert_eq!(name, "gone");
    assert_eq!(
        (&data["run_id"], &data["code"]),
        (&json!(run), &json!("not_found"))
    );
    assert_eq!(stream.event().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_end_ends_a_stream() {
    let grace = Duration::from_secs(60);
    let app = Setting::new(generate::mailbox(8, 1))
        .deadlines(|deadlines| deadlines.grace = grace)
        .start()
        .await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let mut stream = Stream::open(&app, &run).await.unwrap();
    assert_eq!(stream.event().await.unwrap().0, "progress");
    app.shutdown.cancel();
    assert_eq!(stream.event().await, None);
    app.app.tasks.close();
    in_time(grace / 2, app.app.tasks.wait()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_streams_are_open_and_no_more() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let mut streams = Vec::new();
    let refused = loop {
        match Stream::open(&app, &run).await {
            Ok(stream) => streams.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.0, streams.len()), (429, 100));
    assert_is_problem(&refused.1, 429, "too_many");
    // The others are told all the same, and so is everybody else.
    for stream in &mut streams {
        assert_eq!(stream.event().await.unwrap().0, "progress");
    }
    assert_eq!(app.get(&format!("/runs/{run}")).await["status"], "queued");
    // A client that goes makes room.
    streams.pop();
    let opened = happens(PATIENCE, async || Stream::open(&app, &run).await.is_ok());
    assert!(opened.await);
    app.drain().await;
    for stream in &mut streams {
        assert_eq!(stream.last().await, "done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entity_takes_the_streams_of_all() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let (noisy, quiet) = (app.entity().await, app.entity().await);
    let mut opened = Vec::new();
    let mut runs = Vec::new();
    for entity in [&noisy, &quiet] {
        let id = app.connect_for(entity, json!({})).await;
        runs.push(app.request_sync(&id).await);
    }
    // Keys of the same entity share its room.
    let keys = [key_of(&app, &noisy).await, key_of(&app, &noisy).await];
    let refused = loop {
        let key = &keys[opened.len() % 2];
        match Stream::open_by(&app, &runs[0], key).await {
            Ok(stream) => opened.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.0, opened.len()), (429, 10));
    assert_is_problem(&refused.1, 429, "too_many");
    let key = key_of(&app, &quiet).await;
    let mut other = Stream::open_by(&app, &runs[1], &key).await.unwrap();
    assert_eq!(other.event().await.unwrap().0, "progress");
    // One that ends makes room for its own entity.
    opened.pop();
    let again = async || Stream::open_by(&app, &runs[0], &keys[0]).await.is_ok();
    assert!(happens(PATIENCE, again).await);
    app.drain().await;
    assert_eq!(other.last().await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_kept_alive_past_every_deadline() {
    let deadline = Duration::from_secs(3);
    let comment = Duration::from_millis(500);
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .deadlines(|deadlines| {
            *deadlines = Deadlines {
                head: deadline,
                body: deadline,
                answer: deadline,
                rest: deadline,
                stall: deadline,
                comment,
                ..*deadlines
            }
        })
        .start()
        .await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    let begin = app.real_time();
    let mut stream = Stream::open(&app, &run).await.unwrap();
    assert_eq!(stream.event().await.unwrap().0, "progress");
    for _ in 0..8 {
        let block = stream.block().await.unwrap();
        assert_eq!(block, ": still here");
    }
    let waited = app.real_time() - begin;
    assert!(
        (deadline..10 * deadline).contains(&waited),
        "eight comments in {waited:?}"
    );
    app.drain().await;
    assert_eq!(stream.last().await, "done");
}
