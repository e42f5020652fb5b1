//! Messages and answers that go wrong: each is fetched later, or counted by a named reason, and
//! nothing else suffers.

use axum::{Json, Router, extract::Path, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use nucleus::demo::{Fault, Match, Method, generate};
use serde_json::{Value, json};

use crate::{
    doubles::{mail, serve, small_mailbox},
    harness::{Setting, TestApp},
};

const BACKEND_ERROR: Fault = Fault::status(500, "backendError");

async fn start(count: u64) -> (TestApp, String, Vec<String>) {
    let app = Setting::new(small_mailbox(count)).start().await;
    let id = app.connect().await;
    let ids = app.google.with_mailbox(|mailbox| mailbox.ids());
    (app, id, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_is_retried_by_later_runs_and_heals() {
    let (app, id, ids) = start(20).await;
    app.google
        .inject_times(Match::id(&ids[7]), BACKEND_ERROR, 500);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("partial"), &json!("gaps_open"))
    );
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["failed"]),
        (&json!(19), &json!(1))
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("partial"), &json!("incremental"))
    );
    assert_eq!(
        (&run["counts"]["listed"], &run["counts"]["failed"]),
        (&json!(1), &json!(1))
    );
    app.google.calm();
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["stored"]),
        (&json!("success"), &json!(1))
    );
    app.assert_matches_ledger(&id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_runs_a_message_is_given_up() {
    let (app, id, ids) = start(6).await;
    app.google
        .inject_times(Match::id(&ids[2]), BACKEND_ERROR, 500);
    for _ in 0..4 {
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["failed"]),
            (&json!("partial"), &json!(1))
        );
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["failed"]),
        (&json!("success"), &json!(0))
    );
    assert_eq!(run["counts"]["skipped"], json!({"gave_up": 1}));
    app.google.clear_requests();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_eq!(app.calls(Method::MessagesGet), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_whose_message_is_gone_closes() {
    let (app, id, ids) = start(6).await;
    app.google
        .inject_times(Match::id(&ids[2]), BACKEND_ERROR, 5);
    assert_eq!(app.sync(&id).await["status"], "partial");
    app.google.with_mailbox(|mailbox| mailbox.delete(&ids[2]));
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success");
    assert_eq!(run["counts"]["skipped"], json!({"deleted": 1}));
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_always_fail_do_not_stop_the_others_however_many_they_are() {
    let (app, id, ids) = start(40).await;
    for message in &ids[10..22] {
        app.google
            .inject_times(Match::id(message), BACKEND_ERROR, 5000);
    }
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "partial", "{run}");
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["failed"]),
        (&json!(28), &json!(12))
    );
    app.google
        .with_mailbox(|mailbox| mailbox.deliver(mail(1), &["INBOX"]));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["failed"]),
        (&json!(1), &json!(12))
    );
    app.google.calm();
    app.sync_until_success(&id, 2).await;
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_uses_up_no_attempts_of_single_messages() {
    let (app, id, ids) = start(40).await;
    app.google
        .inject_times(Match::id(&ids[30]), BACKEND_ERROR, 5);
    assert_eq!(app.sync(&id).await["status"], "partial");
    app.google.with_mailbox(|mailbox| {
        for serial in 0..10 {
            mailbox.deliver(mail(serial), &["INBOX"]);
        }
    });
    app.google.chaos(1, 1000, vec![BACKEND_ERROR]);
    for _ in 0..6 {
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("unavailable"))
        );
        assert_eq!(app.integration(&id).await["status"], "active");
    }
    app.google.calm();
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["stored"]),
        (&json!("success"), &json!(11))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_gone_between_list_and_get_is_skipped() {
    let (app, id, ids) = start(10).await;
    let gone = ids[9].clone();
    app.google
        .on(Match::method(Method::MessagesGet), move |mailbox| {
            mailbox.delete(&gone);
        });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["stored"]),
        (&json!("success"), &json!(9))
    );
    assert_eq!(run["counts"]["skipped"], json!({"deleted": 1}));
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_gmail_lets_messages_be_is_skipped() {
    let (app, id, _) = start(8).await;
    app.google.with_mailbox(|mailbox| {
        let mut raw = mail(1);
        raw.resize(60 * 1024 * 1024, b'a');
        mailbox.deliver(raw, &["INBOX"]);
    });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["stored"]),
        (&json!("success"), &json!(8))
    );
    assert_eq!(run["counts"]["skipped"], json!({"too_large": 1}));
    // It was refused by its announced length, once, and is no gap.
    assert_eq!(app.calls(Method::MessagesGet), 9);
    assert_eq!(app.sync(&id).await["counts"]["listed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_are_asked_for_again() {
    for fault in [
        Fault::TruncatedJson,
        Fault::NotJson,
        Fault::EmptyBody,
        Fault::ResetConnection,
        Fault::retry_after(2),
        Fault::status(403, "userRateLimitExceeded"),
        Fault::status(502, "backendError"),
    ] {
        let app = Setting::new(small_mailbox(4)).start().await;
        let id = app.connect().await;
        for method in [
            Method::GetProfile,
            Method::MessagesList,
            Method::MessagesGet,
            Method::HistoryList,
        ] {
            app.google.inject(Match::method(method), fault.clone());
        }
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{fault:?}: {run}");
        assert_eq!(app.calls(Method::MessagesGet), 5, "{fault:?}");
        app.assert_matches_ledger(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_fails_the_run_with_its_reason() {
    for (fault, code) in [
        (
            Fault::status(403, "insufficientPermissions"),
            "insufficient_permissions",
        ),
        (Fault::status(403, "domainPolicy"), "domain_policy"),
        (
            Fault::status(400, "failedPrecondition"),
            "mail_service_not_enabled",
        ),
    ] {
        let app = Setting::new(small_mailbox(4)).start().await;
        let id = app.connect().await;
        app.google
            .inject(Match::method(Method::MessagesList), fault);
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        let integration = app.integration(&id).await;
        assert_eq!(
            (&integration["status"], &integration["last_sync_status"]),
            (&json!("error"), &json!("failed"))
        );
        assert!(integration["sync_error_message"].is_string());
        // An integration in error may sync, and is active again by a success.
        assert_eq!(app.sync(&id).await["status"], "success");
        let integration = app.integration(&id).await;
        assert_eq!(
            (&integration["status"], &integration["sync_error_message"]),
            (&json!("active"), &Value::Null)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_used_up_is_waited_for_in_the_queue() {
    let app = Setting::new(small_mailbox(4)).start().await;
    let id = app.connect().await;
    let fault = Fault::status(403, "dailyLimitExceeded");
    app.google
        .inject(Match::method(Method::MessagesList), fault);
    let before = app.app.now();
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success");
    assert!(app.app.now() - before >= chrono::TimeDelta::minutes(59));
    assert_eq!(app.all(&format!("/integrations/{id}/runs")).await.len(), 1);
}

/// A Gmail of one page with these messages, each as often as it is named. One whose id begins with x
/// comes without its contents.
async fn gmail_with(ids: &[&str]) -> String {
    let message = async |Path(id): Path<String>| {
        let raw = URL_SAFE.encode(generate::arrival(1, 1));
        let mut answer = json!({"id": id, "threadId": id, "labelIds": ["INBOX"]});
        if !id.starts_with('x') {
            answer["raw"] = json!(raw);
        }
        Json(answer)
    };
    let base = "/gmail/v1/users/me";
    let profile = json!({"emailAddress": "me@example.com", "historyId": "7"});
    let messages: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    let list = json!({"messages": messages});
    let history = json!({"historyId": "7"});
    let router = Router::new()
        .route(&format!("{base}/profile"), get(async move || Json(profile)))
        .route(&format!("{base}/messages"), get(async move || Json(list)))
        .route(&format!("{base}/history"), get(async move || Json(history)))
        .route(&format!("{base}/messages/{{id}}"), get(message));
    serve(router).await
}

async fn sync_of(ids: &[&str]) -> (TestApp, String, Value) {
    let app = Setting::new(small_mailbox(0))
        .variable("NUCLEUS_SERVICES__GMAIL__API_URL", gmail_with(ids).await)
        .start()
        .await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    (app, id, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_twice_on_one_page_is_one_message() {
    let (app, id, run) = sync_of(&["a1", "b2", "a1", "b2"]).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(
        (&run["counts"]["listed"], &run["counts"]["fetched"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(app.records(&id).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lacks_what_gmail_promises_is_a_gap() {
    let (app, id, run) = sync_of(&["a1", "x2", "b3"]).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("partial"), &json!("gaps_open"))
    );
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["failed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(app.records(&id).await.len(), 2);
    // The mailbox is empty to the history: only the gap is tried, five times in all.
    for _ in 0..3 {
        assert_eq!(app.sync(&id).await["counts"]["failed"], 1);
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["skipped"]),
        (&json!("success"), &json!({"gave_up": 1}))
    );
}
