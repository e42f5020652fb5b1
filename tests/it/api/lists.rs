//! Lists: newest first, by pages that do not slip; and what records look like.

use chrono::TimeDelta;
use nucleus::demo::generate;
use serde_json::{Value, json};

use super::{assert_id, assert_is_problem, assert_keys, assert_time, by_token, fields, start};
use crate::harness::{Setting, TestApp};

const SERVICES: [&str; 8] = [
    "github",
    "google_calendar",
    "notion",
    "slack",
    "google_drive",
    "linkedin",
    "twitter",
    "spotify",
];
const RECORD: [&str; 11] = [
    "id",
    "entity_id",
    "integration_id",
    "external_id",
    "data_type",
    "data_content",
    "meta_data",
    "content_hash",
    "ingested_at",
    "updated_at",
    "deleted_at",
];

fn ids(items: &[Value], field: &str) -> Vec<String> {
    items
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

/// Every page of `limit`, with something new before the second.
async fn pages(
    app: &TestApp,
    path: &str,
    limit: usize,
    between: impl AsyncFn(),
) -> Vec<Vec<Value>> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app
            .get(&format!("{path}{joint}limit={limit}{cursor}"))
            .await;
        assert_keys(&page, &["items", "next_cursor"]);
        found.push(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
        if found.len() == 1 {
            between().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_listed_newest_first_by_pages() {
    let app = start().await;
    let mut made = Vec::new();
    let mut entities = Vec::new();
    for _ in 0..15 {
        let entity = app.entity().await;
        for service in SERVICES {
            let body = by_token(&entity, service);
            made.push(
                app.post("/integrations", body).await["id"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        entities.push(entity);
    }
    made.reverse();
    let default = app.get("/integrations").await;
    assert_eq!(ids(default["items"].as_array().unwrap(), "id"), made[..50]);
    assert!(default["next_cursor"].is_string());
    // What comes meanwhile is newer than the first page and shifts nothing.
    let entity = app.entity().await;
    let found = pages(&app, "/integrations", 50, async || {
        app.post("/integrations", by_token(&entity, "github")).await;
    })
    .await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
    assert_eq!(ids(&found.concat(), "id"), made);
    // A page that ends the list exactly has no cursor.
    let page = app.get("/integrations/?limit=121").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 121);
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_filtered() {
    let app = start().await;
    let (one, other) = (app.entity().await, app.entity().await);
    for entity in [&one, &other] {
        for service in &SERVICES[..3] {
            app.post("/integrations", by_token(entity, service)).await;
        }
    }
    let off = app.all("/integrations?service_name=github").await[0].clone();
    let path = format!("/integrations/{}", off["id"].as_str().unwrap());
    app.send("PATCH", &path, Some(json!({"status": "inactive"})))
        .await;
    for (query, count) in [
        (format!("entity_id={one}"), 3),
        ("service_name=github".to_owned(), 2),
        ("status=active".to_owned(), 5),
        ("status=inactive".to_owned(), 1),
        ("status=revoked".to_owned(), 0),
        (
            format!("entity_id={other}&service_name=github&status=inactive"),
            1,
        ),
        (
            format!("entity_id={one}&service_name=github&status=inactive"),
            0,
        ),
    ] {
        assert_eq!(
            app.all(&format!("/integrations?{query}")).await.len(),
            count,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named_on_every_list() {
    let app = start().await;
    let id = app.connect().await;
    for path in [
        "/entities".to_owned(),
        "/integrations".to_owned(),
        format!("/integrations/{id}/runs"),
        format!("/integrations/{id}/records"),
        "/events".to_owned(),
    ] {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=abc", "limit"),
            ("limit=-1", "limit"),
            ("limit=", "limit"),
            ("limit=5.5", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=5&limit=5", "limit"),
            ("page=2", "page"),
            ("Limit=5", "Limit"),
        ] {
            let (status, answer) = app.send("GET", &format!("{path}?{query}"), None).await;
            assert_eq!(status, 422, "{path}?{query}");
            assert_is_problem(&answer, 422, "invalid_fields");
            assert_eq!(fields(&answer), [field.to_owned()].into(), "{path}?{query}");
        }
        for limit in ["1", "1000"] {
            app.get(&format!("{path}?limit={limit}")).await;
        }
        for cursor in [
            "",
            "x",
            "abc",
            "!!!",
            "%00",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "9223372036854775807",
            "__________8",
            "%2e%2e%2f",
        ] {
            let (status, answer) = app
                .send("GET", &format!("{path}?cursor={cursor}"), None)
                .await;
            assert_eq!(status, 400, "{path}?cursor={cursor}: {answer}");
            assert_is_problem(&answer, 400, "invalid_cursor");
        }
    }
    for (query, field) in [
        ("/integrations?status=on", "status"),
        ("/integrations?service_name=hotmail", "service_name"),
        ("/integrations?entity_id=me", "entity_id"),
    ] {
        let (status, answer) = app.send("GET", query, None).await;
        assert_eq!(
            (status, fields(&answer)),
            (422, [field.to_owned()].into()),
            "{query}"
        );
    }
    for value in ["", "exclude", "true"] {
        let path = format!("/integrations/{id}/records?deleted={value}");
        let (status, answer) = app.send("GET", &path, None).await;
        assert_eq!(
            (status, fields(&answer)),
            (422, ["deleted".to_owned()].into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_newest_first_by_pages() {
    let app = start().await;
    let id = app.connect().await;
    let mut made = Vec::new();
    for _ in 0..7 {
        let run = app.request_sync(&id).await;
        app.send("POST", &format!("/runs/{run}/cancel"), None).await;
        made.push(run);
    }
    made.reverse();
    let path = format!("/integrations/{id}/runs");
    let found = pages(&app, &path, 3, async || {
        app.request_sync(&id).await;
    })
    .await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(ids(&found.concat(), "run_id"), made);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_listed_newest_first_by_pages() {
    let app = Setting::new(generate::mailbox(150, 1)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let all = app.records(&id).await;
    assert!(all.len() >= 120, "{}", all.len());
    for record in &all {
        assert_keys(record, &RECORD);
        assert_id(&record["id"]);
        assert_time(&record["ingested_at"]);
        assert_eq!(record["data_type"], "email");
        assert_eq!(record["integration_id"], id);
        assert_eq!(record["content_hash"].as_str().unwrap().len(), 64);
        assert!(record["meta_data"].is_object() && record["data_content"].is_string());
        assert_eq!(record["deleted_at"], Value::Null);
    }
    let listed = ids(&all, "id");
    assert!(listed.is_sorted_by(|newer, older| newer > older));
    let path = format!("/integrations/{id}/records");
    let found = pages(&app, &path, 50, async || {
        app.google
            .with_mailbox(|mailbox| mailbox.deliver("Subject: new\r\n\r\nnew", &["INBOX"]));
        app.sync(&id).await;
    })
    .await;
    assert_eq!(ids(&found.concat(), "id"), listed);
    let one = app.get(&format!("/records/{}", listed[0])).await;
    assert_eq!(one, all[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_record_is_shown_on_request_only() {
    let app = Setting::new(generate::mailbox(8, 2)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let record = app.records(&id).await.remove(0);
    let external = record["external_id"].as_str().unwrap().to_owned();
    assert!(app.google.with_mailbox(|mailbox| mailbox.delete(&external)));
    app.clock.advance(TimeDelta::minutes(1));
    app.sync(&id).await;
    let path = format!("/records/{}", record["id"].as_str().unwrap());
    let (status, answer) = app.send("GET", &path, None).await;
    assert_eq!(status, 404);
    assert_is_problem(&answer, 404, "not_found");
    let erased = app.get(&format!("{path}/?deleted=include")).await;
    assert_keys(&erased, &RECORD);
    assert_time(&erased["deleted_at"]);
    assert_eq!(erased["data_content"], Value::Null);
    assert_eq!(erased["external_id"], external);
    assert_eq!(erased["content_hash"], record["content_hash"]);
    let listed = app.records(&id).await;
    assert!(listed.iter().all(|other| other["id"] != record["id"]));
    let all = app
        .all(&format!("/integrations/{id}/records?deleted=include"))
        .await;
    assert_eq!(all.len(), listed.len() + 1);
    let (status, answer) = app.send("GET", &format!("{path}?deleted=yes"), None).await;
    assert_eq!(
        (status, fields(&answer)),
        (422, ["deleted".to_owned()].into())
    );
}
