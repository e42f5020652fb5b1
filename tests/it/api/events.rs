//! `/events`: oldest first, to be followed by a cursor that lasts as long as retention.

use chrono::TimeDelta;
use nucleus::demo::generate;
use serde_json::{Value, json};

use super::{assert_id, assert_is_problem, assert_keys, assert_time, key_of};
use crate::harness::{OPERATOR_KEY, Setting, TestApp};

/// One page, as somebody sees it.
async fn page(app: &TestApp, key: &str, query: &str) -> Value {
    let (status, body) = app
        .send_as(Some(key), "GET", &format!("/events?{query}"), None)
        .await;
    assert_eq!(status, 200, "{body}");
    assert_keys(&body, &["items", "next_cursor", "resume_cursor"]);
    assert!(body["resume_cursor"].is_string());
    body
}

fn count(page: &Value) -> usize {
    page["items"].as_array().unwrap().len()
}

fn cursor(page: &Value) -> String {
    format!("cursor={}", page["resume_cursor"].as_str().unwrap())
}

/// A mail comes and is synced.
async fn mail(app: &TestApp, id: &str) {
    app.google
        .with_mailbox(|mailbox| mailbox.deliver("Subject: new\r\n\r\nnew", &["INBOX"]));
    app.sync(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_cloud_events_oldest_first() {
    let app = Setting::new(generate::mailbox(250, 1)).start().await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    let all = page(&app, OPERATOR_KEY, "limit=1000").await;
    assert_eq!(count(&all) as u64, run["events"].as_u64().unwrap());
    assert!(count(&all) >= 3);
    let mut told = 0;
    for event in all["items"].as_array().unwrap() {
        assert_keys(
            event,
            &[
                "specversion",
                "id",
                "source",
                "type",
                "subject",
                "time",
                "datacontenttype",
                "data",
            ],
        );
        assert_eq!(
            (&event["specversion"], &event["source"]),
            (&json!("1.0"), &json!("nucleus/gmail"))
        );
        assert_eq!(event["type"], "dev.nucleus.dna.analysis_requested.v1");
        assert_eq!(
            (&event["subject"], &event["datacontenttype"]),
            (&json!(id), &json!("application/json"))
        );
        assert_id(&event["id"]);
        assert_time(&event["time"]);
        assert_keys(
            &event["data"],
            &["entity_id", "integration_id", "run_id", "trust", "records"],
        );
        assert_eq!(event["data"]["run_id"], run["run_id"]);
        let records = event["data"]["records"].as_array().unwrap();
        assert!((1..=100).contains(&records.len()));
        told += records.len();
    }
    assert_eq!(told as u64, run["counts"]["stored"].as_u64().unwrap());
    let items = all["items"].as_array().unwrap();
    assert!(items.is_sorted_by_key(|event| event["id"].as_str().unwrap().to_owned()));
    // Page by page it is the same.
    let mut query = "limit=1".to_owned();
    let mut paged = Vec::new();
    loop {
        let one = page(&app, OPERATOR_KEY, &query).await;
        paged.extend(one["items"].as_array().unwrap().clone());
        let Some(next) = one["next_cursor"].as_str() else {
            break;
        };
        assert_eq!(one["next_cursor"], one["resume_cursor"]);
        query = format!("limit=1&cursor={next}");
    }
    assert_eq!(&paged, items);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_goes_on_where_it_was() {
    let app = Setting::new(generate::mailbox(8, 2)).start().await;
    let id = app.connect().await;
    let nothing = page(&app, OPERATOR_KEY, "").await;
    assert_eq!(
        (count(&nothing), &nothing["next_cursor"]),
        (0, &Value::Null)
    );
    app.sync(&id).await;
    let first = page(&app, OPERATOR_KEY, &cursor(&nothing)).await;
    assert!(count(&first) > 0 && first["next_cursor"].is_null());
    let end = page(&app, OPERATOR_KEY, &cursor(&first)).await;
    assert_eq!((count(&end), &end["next_cursor"]), (0, &Value::Null));
    assert_eq!(end["resume_cursor"], first["resume_cursor"]);
    mail(&app, &id).await;
    let next = page(&app, OPERATOR_KEY, &cursor(&end)).await;
    assert_eq!(count(&next), 1);
    // The end is the end, with a full page too.
    let full = page(&app, OPERATOR_KEY, &format!("limit=1&{}", cursor(&end))).await;
    assert_eq!((count(&full), &full["next_cursor"]), (1, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_older_than_retention_is_gone() {
    let app = Setting::new(generate::mailbox(8, 3)).start().await;
    let id = app.connect().await;
    let start = page(&app, OPERATOR_KEY, "").await;
    app.sync(&id).await;
    let seen = page(&app, OPERATOR_KEY, "").await;
    app.clock.advance(TimeDelta::days(29));
    app.tick().await;
    app.drain().await;
    assert_eq!(
        count(&page(&app, OPERATOR_KEY, &cursor(&start)).await),
        count(&seen)
    );
    app.clock.advance(TimeDelta::days(2));
    app.tick().await;
    app.drain().await;
    let (status, answer) = app
        .send("GET", &format!("/events?{}", cursor(&start)), None)
        .await;
    assert_eq!(status, 410);
    assert_is_problem(&answer, 410, "cursor_expired");
    // Whoever had seen what is gone misses nothing, and a new tail begins with what there is.
    mail(&app, &id).await;
    assert_eq!(count(&page(&app, OPERATOR_KEY, &cursor(&seen)).await), 1);
    assert_eq!(count(&page(&app, OPERATOR_KEY, "").await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_follows_its_own_events_alone() {
    let app = Setting::new(generate::mailbox(8, 4)).start().await;
    let (busy, quiet) = (app.entity().await, app.entity().await);
    let (busy_key, quiet_key) = (key_of(&app, &busy).await, key_of(&app, &quiet).await);
    let id = app.connect_for(&busy, json!({})).await;
    app.sync(&id).await;
    mail(&app, &id).await;
    let everything = page(&app, OPERATOR_KEY, "").await;
    assert_eq!(
        page(&app, &busy_key, "").await["items"],
        everything["items"]
    );
    let tail = page(&app, &quiet_key, "").await;
    assert_eq!(count(&tail), 0);
    // The events of others end; the cursor of an entity that had none does not end with them.
    app.clock.advance(TimeDelta::days(31));
    app.tick().await;
    app.drain().await;
    let own = app.connect_for(&quiet, json!({})).await;
    app.sync(&own).await;
    let next = page(&app, &quiet_key, &cursor(&tail)).await;
    assert!(count(&next) > 0);
    for event in next["items"].as_array().unwrap() {
        assert_eq!(event["data"]["entity_id"], quiet);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_the_newest_event_is_not_of_this_list() {
    let app = Setting::new(generate::mailbox(8, 5)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let end = page(&app, OPERATOR_KEY, "").await;
    // The same cursor at a database that was restored from an earlier copy.
    let other = Setting::new(generate::mailbox(8, 5)).start().await;
    let (status, answer) = other
        .send("GET", &format!("/events?{}", cursor(&end)), None)
        .await;
    assert_eq!(status, 400);
    assert_is_problem(&answer, 400, "invalid_cursor");
}
