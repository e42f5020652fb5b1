//! Gmail through the whole program: full, incremental and resync, gaps, refresh, quota, counts.

use chrono::TimeDelta;
use nucleus::demo::{Match, Method, generate};
use serde_json::{Value, json};

use crate::{
    doubles::{mail, small_mailbox},
    harness::{Setting, TestApp, assert_adds_up},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_stores_every_message_once_and_tells_of_it() {
    let app = Setting::new(generate::mailbox(700, 1)).start().await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(run["mode"], "full");
    assert_adds_up(&run);
    let expected = app.ledger().len();
    assert_eq!(run["counts"]["stored"], expected);
    assert_eq!(run["counts"]["fetched"], expected);
    assert_eq!(run["quota_units"].as_u64().unwrap(), app.google.units());
    app.assert_matches_ledger(&id).await;
    let integration = app.integration(&id).await;
    assert_eq!(integration["last_sync_status"], "success");
    assert_eq!(
        integration["account"],
        app.google.with_mailbox(|m| m.email_address().to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sync_costs_two_units_when_nothing_is_new() {
    let app = Setting::new(generate::mailbox(60, 2)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("incremental"))
    );
    assert_eq!(run["quota_units"], 2);
    assert_eq!(run["counts"]["listed"], 0);
    assert_eq!(run["events"], 0);
}

/// Everything that is stored, erased records included, by the service's ids.
async fn with_deleted(app: &TestApp, id: &str) -> Vec<Value> {
    app.all(&format!("/integrations/{id}/records?deleted=include"))
        .await
}

async fn record_of(app: &TestApp, id: &str, message: &str) -> Value {
    let records = with_deleted(app, id).await;
    let mut found = records
        .into_iter()
        .filter(|record| record["external_id"] == message);
    let record = found.next().unwrap();
    assert!(found.next().is_none(), "{message} has two rows");
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_changes_cost_their_gets_and_one_look_at_the_history() {
    let app = Setting::new(small_mailbox(30)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    app.google.with_mailbox(|mailbox| {
        for serial in 0..10 {
            mailbox.deliver(mail(serial), &["INBOX", "UNREAD"]);
        }
    });
    let run = app.sync(&id).await;
    assert_eq!(run["quota_units"], 2 + 10 * 20);
    assert_eq!(run["counts"]["stored"], 10);
    // One event, or two where the machine stood still for a while.
    let events = app.all("/events").await;
    let told = events
        .iter()
        .filter(|event| event["data"]["run_id"] == run["run_id"]);
    let records = told
        .clone()
        .map(|event| event["data"]["records"].as_array().unwrap().len());
    assert_eq!(records.sum::<usize>(), 10);
    assert_eq!(run["events"], told.count());
    app.google.clear_requests();
    let ids = app.google.with_mailbox(|mailbox| mailbox.ids());
    app.google.with_mailbox(|mailbox| {
        for id in &ids[..5] {
            mailbox.relabel(id, &["STARRED"], &["UNREAD"]);
        }
        for id in &ids[5..10] {
            mailbox.delete(id);
        }
    });
    let run = app.sync(&id).await;
    assert_eq!(run["quota_units"], 2);
    assert_eq!(app.calls(Method::MessagesGet), 0);
    assert_eq!(
        (&run["counts"]["updated"], &run["counts"]["deleted"]),
        (&json!(5), &json!(5))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_change_is_an_update_with_the_same_hash_and_no_get() {
    let app = Setting::new(small_mailbox(4)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let message = app.google.with_mailbox(|mailbox| mailbox.ids()[2].clone());
    let before = record_of(&app, &id, &message).await;
    app.google.clear_requests();
    app.clock.advance(TimeDelta::minutes(1));
    app.google.with_mailbox(|mailbox| {
        mailbox.relabel(&message, &["STARRED", "IMPORTANT"], &["UNREAD"]);
        mailbox.relabel(&message, &[], &["IMPORTANT"]);
    });
    let run = app.sync(&id).await;
    assert_eq!(run["counts"]["updated"], 1);
    assert_eq!(run["counts"]["fetched"], 0);
    assert_eq!(app.calls(Method::MessagesGet), 0);
    let after = record_of(&app, &id, &message).await;
    assert_eq!(after["meta_data"]["labels"], json!(["INBOX", "STARRED"]));
    assert_eq!(after["content_hash"], before["content_hash"]);
    assert_eq!(after["data_content"], before["data_content"]);
    assert_ne!(after["updated_at"], before["updated_at"]);
    let events = app.all("/events").await;
    let last = &events.last().unwrap()["data"]["records"];
    assert_eq!(last.as_array().unwrap().len(), 1);
    assert_eq!(last[0]["change"], "updated");
    assert_eq!(last[0]["content_hash"], before["content_hash"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_leaves_a_row_without_anything_personal() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let message = app.google.with_mailbox(|mailbox| mailbox.ids()[1].clone());
    let before = record_of(&app, &id, &message).await;
    app.google
        .with_mailbox(|mailbox| assert!(mailbox.delete(&message)));
    let run = app.sync(&id).await;
    assert_eq!(run["counts"]["deleted"], 1);
    assert_eq!(app.records(&id).await.len(), 2);
    let row = record_of(&app, &id, &message).await;
    assert_eq!(row["id"], before["id"]);
    assert_eq!(row["content_hash"], before["content_hash"]);
    assert_eq!(row["data_content"], Value::Null);
    assert!(row["deleted_at"].is_string());
    assert_eq!(
        row["meta_data"],
        json!({"integration_id": id, "trust": "untrusted_external", "labels": []})
    );
    let path = format!("/records/{}", before["id"].as_str().unwrap());
    assert_eq!(app.send("GET", &path, None).await.0, 404);
    assert_eq!(
        app.get(&format!("{path}?deleted=include")).await["id"],
        before["id"]
    );
    let told = app.told(&id).await;
    assert_eq!(told[before["id"].as_str().unwrap()], "deleted");
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_and_trash_stay_out_and_what_leaves_them_comes_in() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let (spam, trash) = app.google.with_mailbox(|mailbox| {
        let spam = mailbox.deliver(mail(1), &["SPAM", "UNREAD"]);
        let trash = mailbox.deliver(mail(2), &["TRASH"]);
        (spam, trash)
    });
    let id = app.connect().await;
    let run = app.sync(&id).await;
    assert_eq!(run["counts"]["stored"], 3);
    // New spam is named by the history, and left out without a get.
    app.google.clear_requests();
    app.google.with_mailbox(|mailbox| {
        mailbox.deliver(mail(3), &["SPAM"]);
        mailbox.relabel(&trash, &["UNREAD"], &[]);
    });
    let run = app.sync(&id).await;
    assert_eq!(app.calls(Method::MessagesGet), 0);
    assert_eq!(
        run["counts"]["skipped"],
        json!({"spam_trash": 1, "not_stored": 1})
    );
    app.google.with_mailbox(|mailbox| {
        mailbox.relabel(&spam, &["INBOX"], &["SPAM"]);
        mailbox.relabel(&trash, &["INBOX"], &["TRASH"]);
    });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["counts"]["stored"], app.calls(Method::MessagesGet)),
        (&json!(2), 2)
    );
    app.assert_matches_ledger(&id).await;
    // A stored one keeps its row, with the label, and is not fetched when it comes back.
    app.google
        .with_mailbox(|mailbox| mailbox.relabel(&spam, &["TRASH"], &["INBOX"]));
    app.sync(&id).await;
    let row = record_of(&app, &id, &spam).await;
    assert!(row["data_content"].is_string());
    assert_eq!(row["meta_data"]["labels"], json!(["UNREAD", "TRASH"]));
    app.google
        .with_mailbox(|mailbox| mailbox.relabel(&spam, &["INBOX"], &["TRASH"]));
    app.sync(&id).await;
    assert_eq!(app.calls(Method::MessagesGet), 2);
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_and_trash_are_stored_where_they_are_wanted() {
    let app = Setting::new(small_mailbox(2)).start().await;
    app.google.with_mailbox(|mailbox| {
        mailbox.deliver(mail(1), &["SPAM"]);
        mailbox.deliver(mail(2), &["TRASH"]);
    });
    let entity = app.entity().await;
    let id = app
        .connect_for(&entity, json!({"include_spam_trash": true}))
        .await;
    assert_eq!(app.sync(&id).await["counts"]["stored"], 4);
    app.google
        .with_mailbox(|mailbox| mailbox.deliver(mail(3), &["SPAM"]));
    assert_eq!(app.sync(&id).await["counts"]["stored"], 1);
    assert_eq!(app.records(&id).await.len(), 5);
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_during_a_run_is_one_more_pass_of_that_run() {
    let app = Setting::new(small_mailbox(5)).start().await;
    let id = app.connect().await;
    app.google.hold(Method::MessagesGet);
    let run = app.request_sync(&id).await;
    let meanwhile = async {
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        let again = app.request_sync(&id).await;
        assert_eq!(app.request_sync(&id).await, again);
        app.google.release(Method::MessagesGet);
        again
    };
    let ((), again) = tokio::join!(app.drain(), meanwhile);
    assert_eq!(again, run);
    // One pass after the listing and one because of the requests.
    assert_eq!(app.calls(Method::HistoryList), 2);
    assert_eq!(app.calls(Method::MessagesList), 1);
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("full"))
    );
    assert_adds_up(&run);
    assert_eq!(app.all(&format!("/integrations/{id}/runs")).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_run_is_given_back_as_it_is() {
    let app = Setting::new(small_mailbox(2)).start().await;
    let id = app.connect().await;
    let run = app.request_sync(&id).await;
    assert_eq!(app.request_sync(&id).await, run);
    app.drain().await;
    assert_eq!(app.calls(Method::HistoryList), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_during_a_full_sync_is_in_it() {
    let app = Setting::new(small_mailbox(90))
        .options(|options| options.page_size_cap = Some(20))
        .start()
        .await;
    let id = app.connect().await;
    for nth in [3, 25, 60] {
        let hook = move |mailbox: &mut nucleus::demo::Mailbox| {
            let ids = mailbox.ids();
            mailbox.deliver(mail(u64::from(nth)), &["INBOX"]);
            mailbox.delete(&ids[40]);
            mailbox.relabel(&ids[1], &["STARRED"], &["UNREAD"]);
            mailbox.relabel(&ids[70], &["TRASH"], &["INBOX"]);
        };
        app.google
            .on(Match::method(Method::MessagesGet).nth(nth), hook);
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("full"))
    );
    app.assert_matches_ledger(&id).await;
    let (log, mut seen) = (app.google.requests(), std::collections::HashSet::new());
    for request in log.iter().filter(|request| request.id.is_some()) {
        assert!(seen.insert(request.id.clone()), "{request:?} is the second");
    }
}

/// Switches spam and trash on or off.
async fn want_spam_and_trash(app: &TestApp, id: &str, wanted: bool) {
    let path = format!("/integrations/{id}");
    let body = json!({"sync_settings": {"include_spam_trash": wanted}});
    let (status, answer) = app.send("PATCH", &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_and_trash_that_are_there_come_once_they_are_wanted() {
    let app = Setting::new(generate::mailbox(131, 5)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let (wanted, all) = (app.ledger().len(), 131);
    assert!(wanted < all);
    want_spam_and_trash(&app, &id, true).await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"], &run["counts"]["stored"]),
        (&json!("success"), &json!("resync"), &json!(all - wanted)),
        "{run}"
    );
    assert_eq!(run["counts"]["fetched"], all - wanted);
    assert_eq!(app.records(&id).await.len(), all);
    assert_eq!(app.sync(&id).await["quota_units"], 2);

    // What comes while they are not wanted is listed when they are again.
    want_spam_and_trash(&app, &id, false).await;
    app.google
        .with_mailbox(|mailbox| mailbox.deliver(mail(1), &["SPAM"]));
    let run = app.sync(&id).await;
    assert_eq!(run["counts"]["skipped"], json!({"spam_trash": 1}), "{run}");
    want_spam_and_trash(&app, &id, true).await;
    assert_eq!(app.sync(&id).await["counts"]["stored"], 1);
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_asked_for_after_a_change_of_the_settings_knows_of_it() {
    let app = Setting::new(generate::mailbox(131, 5)).start().await;
    let id = app.connect().await;
    app.google.hold(Method::MessagesGet);
    let run = app.request_sync(&id).await;
    let meanwhile = async {
        app.google.wait_for_held(Method::MessagesGet, 1).await;
        want_spam_and_trash(&app, &id, true).await;
        assert_eq!(app.request_sync(&id).await, run);
        app.google.release(Method::MessagesGet);
    };
    tokio::join!(app.drain(), meanwhile);
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(app.records(&id).await.len(), 131);
    app.assert_matches_ledger(&id).await;
}
