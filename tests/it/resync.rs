//! A cursor that is too old: everything is listed again, only what is missing is fetched, and what
//! vanished is erased, unless it is suspiciously much.

use nucleus::{
    db::api_key::KeyScope,
    demo::{Fault, Mailbox, Match, Method},
};
use serde_json::{Value, json};

use crate::{
    doubles::{mail, small_mailbox},
    harness::{Setting, TestApp},
};

/// A synced mailbox of so many messages, served in pages of at most 40.
async fn synced(count: u64) -> (TestApp, String) {
    let app = Setting::new(small_mailbox(count))
        .options(|options| options.page_size_cap = Some(40))
        .start()
        .await;
    let id = app.connect().await;
    assert_eq!(app.sync(&id).await["status"], "success");
    app.google.clear_requests();
    (app, id)
}

/// Some of everything happens, and the history forgets it.
fn change_and_forget(mailbox: &mut Mailbox) {
    let ids = mailbox.ids();
    mailbox.deliver(mail(1), &["INBOX"]);
    mailbox.deliver(mail(2), &["SPAM"]);
    mailbox.relabel(&ids[3], &["STARRED"], &["UNREAD"]);
    mailbox.relabel(&ids[4], &["TRASH"], &["INBOX"]);
    mailbox.relabel(&ids[50], &[], &["INBOX", "UNREAD"]);
    mailbox.delete(&ids[5]);
    mailbox.delete(&ids[60]);
    mailbox.expire_history();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_cursor_heals_by_one_listing_that_fetches_only_what_is_missing() {
    let (app, id) = synced(100).await;
    app.google.with_mailbox(change_and_forget);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("resync"))
    );
    assert_eq!(app.calls(Method::MessagesGet), 1);
    assert_eq!(run["counts"]["fetched"], 1);
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["deleted"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(run["counts"]["updated"], 3);
    app.assert_matches_ledger(&id).await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["mode"], &run["quota_units"]),
        (&json!("incremental"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_expires_in_mid_page_heals_too() {
    let (app, id) = synced(100).await;
    app.google.with_mailbox(|mailbox| {
        let ids = mailbox.ids();
        for (serial, message) in ids.iter().take(60).enumerate() {
            mailbox.relabel(message, &["STARRED"], &[]);
            if serial % 10 == 0 {
                mailbox.deliver(mail(10 + serial as u64), &["INBOX"]);
            }
        }
    });
    // What the first page brought is gone by the time everything is listed again.
    app.google
        .on(Match::method(Method::HistoryList).nth(2), |mailbox| {
            let ids = mailbox.ids();
            for message in [&ids[0], &ids[1], &ids[30], &ids[70]] {
                mailbox.delete(message);
            }
            mailbox.relabel(&ids[8], &[], &["STARRED", "INBOX"]);
            mailbox.expire_history();
        });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("resync"))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_expires_again_during_the_resync_heals_too() {
    let (app, id) = synced(100).await;
    app.google.with_mailbox(change_and_forget);
    // The listing's third page, and later the history that follows it.
    app.google
        .on(Match::method(Method::MessagesList).nth(3), |mailbox| {
            let ids = mailbox.ids();
            mailbox.delete(&ids[0]);
            mailbox.delete(&ids[10]);
            mailbox.relabel(&ids[12], &["IMPORTANT"], &["INBOX"]);
            mailbox.deliver(mail(3), &["INBOX"]);
            mailbox.expire_history();
        });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("resync"))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_erases_nothing_and_goes_on_later() {
    let (app, id) = synced(100).await;
    app.google.with_mailbox(change_and_forget);
    let broken = Match::method(Method::MessagesList).nth(2);
    app.google
        .inject_times(broken, Fault::status(503, "backendError"), 12);
    let run = app.request_sync(&id).await;
    let never = tokio_util::sync::CancellationToken::new();
    nucleus::worker::drain(&app.app, &never).await.unwrap();
    let waiting = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&waiting["status"], &waiting["mode"]),
        (&json!("queued"), &json!("resync"))
    );
    assert_eq!(waiting["counts"]["deleted"], 0);
    assert_eq!(app.records(&id).await.len(), 101);
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("resync"))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_is_refused_during_a_listing_costs_no_get_twice() {
    let app = Setting::new(small_mailbox(100))
        .options(|options| options.page_size_cap = Some(30))
        .start()
        .await;
    let id = app.connect().await;
    let refused = Fault::status(400, "badRequest");
    app.google
        .inject(Match::method(Method::MessagesList).nth(3), refused);
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success");
    assert_eq!(app.calls(Method::MessagesGet), 100);
    app.assert_matches_ledger(&id).await;
    // The same in a history of several pages.
    app.google.with_mailbox(|mailbox| {
        for message in mailbox.ids() {
            mailbox.relabel(&message, &["STARRED"], &[]);
        }
    });
    let refused = Fault::status(400, "badRequest");
    app.google
        .inject(Match::method(Method::HistoryList).nth(3), refused);
    assert_eq!(app.sync(&id).await["status"], "success");
    app.assert_matches_ledger(&id).await;
}

/// More than 50 messages, and more than one in twenty, vanish while the history forgets.
fn lose_many(app: &TestApp) -> Vec<String> {
    app.google.with_mailbox(|mailbox| {
        let lost: Vec<String> = mailbox.ids().into_iter().take(60).collect();
        for message in &lost {
            mailbox.delete(message);
        }
        mailbox.expire_history();
        lost
    })
}

fn assert_unconfirmed(run: &Value) {
    assert_eq!(run["status"], "partial", "{run}");
    assert_eq!(run["error"]["code"], "mass_deletion_unconfirmed");
    assert_eq!(run["counts"]["deleted"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deletions_at_once_wait_for_a_second_listing() {
    let (app, id) = synced(100).await;
    lose_many(&app);
    assert_unconfirmed(&app.sync(&id).await);
    assert_eq!(app.records(&id).await.len(), 100);
    assert_eq!(app.integration(&id).await["last_sync_status"], "partial");
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(60))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_confirm_many_deletions_and_an_entity_may_not() {
    let (app, id) = synced(100).await;
    lose_many(&app);
    assert_unconfirmed(&app.sync(&id).await);
    let entity = app.integration(&id).await["entity_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = app
        .app
        .create_key(Some(entity.parse().unwrap()), KeyScope::Write)
        .await
        .unwrap();
    let key = secrecy::ExposeSecret::expose_secret(&key).to_owned();
    let path = format!("/integrations/{id}/sync");
    let body = json!({"confirm_mass_deletion": true});
    let (status, _) = app
        .send_as(Some(&key), "POST", &path, Some(body.clone()))
        .await;
    assert_eq!(status, 403);
    assert_eq!(app.send_as(Some(&key), "POST", &path, None).await.0, 202);
    app.post(&path, body).await;
    app.drain().await;
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_during_the_run_that_asks_for_it_counts() {
    let (app, id) = synced(100).await;
    lose_many(&app);
    app.google.hold(Method::LabelsList);
    let run = app.request_sync(&id).await;
    let confirming = async {
        app.google.wait_for_held(Method::LabelsList, 1).await;
        let path = format!("/integrations/{id}/sync");
        app.post(&path, json!({"confirm_mass_deletion": true}))
            .await;
        app.google.release(Method::LabelsList);
    };
    tokio::join!(app.drain(), confirming);
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(60))
    );
    app.assert_matches_ledger(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_after_a_doubtful_listing_was_never_erased() {
    let (app, id) = synced(100).await;
    // Twice, with a listing between that shows everything: the second is as doubtful as the first.
    for _ in 0..2 {
        // A listing that shows an empty mailbox once: a fault of the service, not of the person.
        let kept = app.google.with_mailbox(|mailbox| {
            mailbox.expire_history();
            std::mem::replace(mailbox, Mailbox::new("me@example.com", 7))
        });
        assert_unconfirmed(&app.sync(&id).await);
        app.google.with_mailbox(|mailbox| *mailbox = kept);
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["deleted"]),
            (&json!("success"), &json!(0))
        );
    }
    assert_eq!(app.calls(Method::MessagesGet), 0);
    app.assert_matches_ledger(&id).await;
}
