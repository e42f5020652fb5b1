//! Removing a connection: what becomes of its records, its grant and a run under way; and how a new
//! connection of the same account takes over what was kept.

mod interrupted;

use std::collections::BTreeMap;

use nucleus::demo::{Mailbox, Method};
use serde_json::{Value, json};

use crate::{
    doubles::{mail, small_mailbox},
    harness::{Setting, TestApp},
};

async fn start(count: u64) -> (TestApp, String, String) {
    let app = Setting::new(small_mailbox(count)).start().await;
    let entity = app.entity().await;
    let id = app.connect_for(&entity, json!({})).await;
    (app, entity, id)
}

async fn remove(app: &TestApp, id: &str, query: &str) -> Value {
    let path = format!("/integrations/{id}{query}");
    let (status, answer) = app.send("DELETE", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        app.send("GET", &format!("/integrations/{id}"), None)
            .await
            .0,
        404
    );
    answer
}

async fn rows(app: &TestApp, id: &str) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let records = app.records(id).await;
    records
        .iter()
        .map(|record| (text(&record["external_id"]), text(&record["id"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_account_adopts_what_was_kept_without_a_get() {
    // More than are kept, or adopted, in one transaction.
    let (app, entity, id) = start(530).await;
    app.sync(&id).await;
    let before = rows(&app, &id).await;
    let removed = remove(&app, &id, "").await;
    assert_eq!(
        removed,
        json!({"integration_id": id, "revoked": true, "records": 530})
    );
    app.google.set_refresh_token("1//again");
    app.google.clear_requests();
    let again = app.connect_for(&entity, json!({})).await;
    app.google.with_mailbox(|mailbox| {
        let ids = mailbox.ids();
        mailbox.delete(&ids[3]);
        mailbox.relabel(&ids[4], &["STARRED"], &["UNREAD"]);
        mailbox.deliver(mail(1), &["INBOX"]);
    });
    let run = app.sync(&again).await;
    assert_eq!(
        (&run["status"], &run["counts"]["fetched"]),
        (&json!("success"), &json!(1))
    );
    assert_eq!(app.calls(Method::MessagesGet), 1);
    let after = rows(&app, &again).await;
    assert_eq!(after.len(), 530);
    let kept = after
        .iter()
        .filter(|(message, row)| before.get(*message) == Some(row));
    assert_eq!(kept.count(), 529);
    for record in app.records(&again).await {
        assert_eq!(record["meta_data"]["integration_id"], json!(again));
    }
    assert_eq!(app.sync(&again).await["quota_units"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_or_entity_adopts_nothing() {
    let (app, entity, id) = start(5).await;
    app.sync(&id).await;
    remove(&app, &id, "?data=keep").await;
    app.google.set_refresh_token("1//stranger");
    let stranger = app.connect().await;
    let run = app.sync(&stranger).await;
    assert_eq!(
        (&run["mode"], &run["counts"]["stored"]),
        (&json!("full"), &json!(5))
    );
    let mut other = Mailbox::new("other@example.com", 3);
    other.deliver(mail(9), &["INBOX"]);
    app.google.with_mailbox(|mailbox| *mailbox = other);
    app.google.set_refresh_token("1//other");
    let id = app.connect_for(&entity, json!({})).await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["mode"], &run["counts"]["stored"]),
        (&json!("full"), &json!(1))
    );
    assert_eq!(app.records(&id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_deleted_goes_and_events_tell_of_it() {
    let (app, _, id) = start(620).await;
    app.sync(&id).await;
    app.google.with_mailbox(|mailbox| {
        let first = mailbox.ids()[0].clone();
        mailbox.delete(&first);
    });
    app.sync(&id).await;
    let before = rows(&app, &id).await;
    let told_before = app.all("/events").await.len();
    let removed = remove(&app, &id, "?data=delete").await;
    assert_eq!(removed["records"], 620);
    let events = app.all("/events").await;
    let mut told = Vec::new();
    for event in &events[told_before..] {
        assert_eq!(
            (&event["subject"], &event["data"]["run_id"]),
            (&json!(id), &Value::Null)
        );
        assert!(event["data"]["records"].as_array().unwrap().len() <= 100);
        for record in event["data"]["records"].as_array().unwrap() {
            assert_eq!(record["change"], "deleted");
            told.push(record["id"].as_str().unwrap().to_owned());
        }
    }
    told.sort_unstable();
    let mut expected: Vec<String> = before.into_values().collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
    let path = format!("/records/{}?deleted=include", told[0]);
    assert_eq!(app.send("GET", &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_another_connection_lives_on_is_not_revoked() {
    let (app, _, first) = start(3).await;
    let second = app.connect().await;
    app.sync(&first).await;
    app.sync(&second).await;
    let removed = remove(&app, &first, "").await;
    assert_eq!(
        (&removed["revoked"], &removed["reason"]),
        (&json!(false), &json!("shared_grant"))
    );
    assert_eq!(app.calls(Method::Revoke), 0);
    assert_eq!(app.sync(&second).await["status"], "success");
    let removed = remove(&app, &second, "").await;
    assert_eq!(removed["revoked"], true);
    assert_eq!(app.calls(Method::Revoke), 1);
    assert_eq!(app.google.refresh_token(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_services_share_one_grant() {
    let (app, entity, gmail) = start(3).await;
    let body = json!({
        "entity_id": entity, "service_name": "google_calendar", "credential_type": "oauth2",
        "credentials": {"refresh_token": app.google.refresh_token()},
    });
    let calendar = app.post("/integrations/", body).await;
    app.sync(&gmail).await;
    let removed = remove(&app, &gmail, "").await;
    assert_eq!(
        (&removed["revoked"], &removed["reason"]),
        (&json!(false), &json!("shared_grant"))
    );
    assert_eq!(app.calls(Method::Revoke), 0);
    remove(&app, calendar["id"].as_str().unwrap(), "").await;
    let asked = app.google.requests();
    let revoking = asked
        .iter()
        .filter(|request| request.method == Method::Revoke);
    assert!(
        revoking
            .map(|request| request.status)
            .all(|status| status == 200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_does_not_stop_a_removal() {
    let (app, _, id) = start(3).await;
    app.sync(&id).await;
    let fault = nucleus::demo::Fault::status(503, "internal_failure");
    app.google
        .inject(nucleus::demo::Match::method(Method::Revoke), fault);
    let removed = remove(&app, &id, "").await;
    assert_eq!(removed["revoked"], false);
    assert!(removed["reason"].as_str().unwrap().contains("503"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_writes_nothing_after_the_removal() {
    for query in ["?data=keep", "?data=delete"] {
        let (app, entity, id) = start(250).await;
        app.request_sync(&id).await;
        let removing = async {
            app.google.wait_for(Method::MessagesGet, 150).await;
            app.google.hold(Method::MessagesGet);
            app.google.wait_for_held(Method::MessagesGet, 1).await;
            let removed = remove(&app, &id, query).await;
            let told = app.all("/events").await.len();
            app.google.release(Method::MessagesGet);
            (removed["records"].as_u64().unwrap(), told)
        };
        let ((), (records, told)) = tokio::join!(app.drain(), removing);
        assert_eq!(app.all("/events").await.len(), told, "{query}");
        app.google.set_refresh_token("1//again");
        app.google.clear_requests();
        let again = app.connect_for(&entity, json!({})).await;
        let run = app.sync(&again).await;
        assert_eq!(run["status"], "success");
        assert_eq!(app.records(&again).await.len(), 250);
        // The account was known by then, so what was kept is adopted.
        let adopted = if query == "?data=keep" {
            records as usize
        } else {
            0
        };
        assert_eq!(app.calls(Method::MessagesGet), 250 - adopted, "{query}");
    }
}
