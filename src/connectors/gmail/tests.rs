//! The connector against a small server, page by page.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{super::testing::*, *};
use crate::domain::Clock;

const GMAIL: Gmail = Gmail {
    quota: QuotaTable::Y2026,
    fetch_concurrency: 4,
};

fn ids(ids: &[&str]) -> Value {
    ids.iter()
        .map(|id| json!({"id": id, "threadId": "t"}))
        .collect()
}

fn profile() -> Answer {
    Answer::json(json!({"emailAddress": "a@example.com", "historyId": "100", "messagesTotal": 3}))
}

/// An account whose history is empty at 200, and which lists what `list` answers.
async fn account(list: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> TestServer {
    TestServer::new(move |asked: &Asked| match asked.path.as_str() {
        "/gmail/v1/users/me/profile" => profile(),
        "/gmail/v1/users/me/history" => Answer::json(json!({"historyId": "200"})),
        _ => list(asked),
    })
    .await
}

async fn start(stage: &TestServer, listing: Listing) -> Cursor {
    let account = GMAIL.account(&stage.access).await.unwrap();
    assert_eq!(account.name, "a@example.com");
    stage.asked();
    let [main] = GMAIL.streams() else {
        panic!("not one stream");
    };
    let cursor = GMAIL
        .start(&account, *main, listing, stage.clock.now())
        .unwrap();
    assert_eq!(GMAIL.listing(&cursor), Some(listing));
    cursor
}

async fn next(stage: &TestServer, cursor: &mut Cursor) -> Page {
    let page = GMAIL.changes(&stage.access, cursor).await.unwrap();
    *cursor = page.next.clone();
    page
}

/// Last segment of the path, label and page token of each call since the last time.
fn calls(stage: &TestServer) -> Vec<String> {
    let mut calls = Vec::new();
    for asked in stage.asked() {
        let method = asked.path.rsplit('/').next().unwrap();
        let call = format!(
            "{method} {} {}",
            asked.get("labelIds"),
            asked.get("pageToken")
        );
        calls.push(call.trim_end().to_owned());
    }
    calls
}

fn seen(ids: &[&str]) -> Vec<Change> {
    ids.iter().map(|&id| Change::Seen(id.into())).collect()
}

fn labelled(label: &str, ids: &[&str]) -> Vec<Change> {
    ids.iter()
        .map(|&id| Change::Labelled(id.into(), label.into()))
        .collect()
}

/// A cursor with nothing under way.
async fn caught_up(stage: &TestServer) -> Cursor {
    let mut position = Position::read(&start(stage, Listing::Full).await).unwrap();
    position.listing = None;
    position.write().unwrap()
}

#[tokio::test]
async fn a_full_listing_is_paged_and_ends_with_the_history_since_its_start() {
    let stage = account(|asked| match asked.get("pageToken") {
        "" => Answer::json(
            json!({"messages": ids(&["a", "b", "a"]), "nextPageToken": "p2",
            "resultSizeEstimate": 201}),
        ),
        "p2" => Answer::json(json!({"messages": ids(&["c"])})),
        _ => Answer::google(400, "invalidArgument"),
    })
    .await;
    let mut cursor = start(&stage, Listing::Full).await;
    let page = next(&stage, &mut cursor).await;
    assert_eq!((page.changes, page.more), (seen(&["a", "b"]), true));
    let page = next(&stage, &mut cursor).await;
    assert_eq!((page.changes, page.more), (seen(&["c"]), true));
    assert!(!page.listing_complete);
    let asked = stage.asked();
    assert_eq!(asked[0].get("maxResults"), "500");
    assert_eq!(asked[0].get("includeSpamTrash"), "");

    assert_eq!(GMAIL.listing(&cursor), None);
    let page = next(&stage, &mut cursor).await;
    assert_eq!((page.changes, page.more), (vec![], false));
    let asked = stage.asked();
    assert_eq!(asked[0].get("startHistoryId"), "100");
    let types: Vec<&str> = asked[0]
        .query
        .iter()
        .filter(|(name, _)| name == "historyTypes")
        .map(|(_, value)| value.as_str())
        .collect();
    let expected = [
        "messageAdded",
        "messageDeleted",
        "labelAdded",
        "labelRemoved",
    ];
    assert_eq!(types, expected);

    next(&stage, &mut cursor).await;
    assert_eq!(stage.asked()[0].get("startHistoryId"), "200");
    assert_eq!(stage.access.governor.units(), 1 + 2 * 5 + 2 * 2);
}

#[tokio::test]
async fn spam_and_trash_are_listed_when_they_are_wanted() {
    let mut stage = account(|_| Answer::json(json!({}))).await;
    stage.access.include_spam_trash = true;
    let mut cursor = start(&stage, Listing::Full).await;
    assert_eq!(next(&stage, &mut cursor).await.changes, []);
    assert_eq!(stage.asked()[0].get("includeSpamTrash"), "true");
}

#[tokio::test]
async fn once_spam_and_trash_are_wanted_a_cursor_that_went_without_them_is_too_old() {
    let mut stage = account(|_| Answer::json(json!({}))).await;
    let mut cursor = start(&stage, Listing::Full).await;
    stage.access.include_spam_trash = true;
    next(&stage, &mut cursor.clone()).await;
    stage.access.include_spam_trash = false;
    next(&stage, &mut cursor).await;
    stage.access.include_spam_trash = true;
    let page = GMAIL.changes(&stage.access, &cursor).await;
    assert_eq!(page.unwrap_err(), ConnectorError::CursorExpired);
    stage.access.include_spam_trash = false;
    next(&stage, &mut cursor).await;
}

#[tokio::test]
async fn live_changes_go_before_a_long_listing() {
    let stage =
        account(|_| Answer::json(json!({"messages": ids(&["a"]), "nextPageToken": "p"}))).await;
    let mut cursor = start(&stage, Listing::Full).await;
    next(&stage, &mut cursor).await;
    stage.clock.advance(299);
    next(&stage, &mut cursor).await;
    stage.clock.advance(1);
    let live = next(&stage, &mut cursor).await;
    assert!(live.more);
    next(&stage, &mut cursor).await;
    assert_eq!(
        calls(&stage),
        ["messages", "messages  p", "history", "messages  p"]
    );
}

#[tokio::test]
async fn a_pass_moves_to_the_history_id_of_its_first_page() {
    let stage =
        TestServer::new(
            |asked: &Asked| match (asked.path.as_str(), asked.get("pageToken")) {
                ("/gmail/v1/users/me/profile", _) => profile(),
                (_, "") => Answer::json(
                    json!({"historyId": "200", "nextPageToken": "h2", "history": [
            {"id": "150", "messagesAdded": [{"message": {"id": "a"}}]},
            {"id": "151", "labelsAdded": [{"message": {"id": "a"}, "labelIds": ["X"]}]}]}),
                ),
                _ => Answer::json(json!({"historyId": "300", "history": [
            {"id": "160", "messagesDeleted": [{"message": {"id": "b"}}]}]})),
            },
        )
        .await;
    let mut cursor = caught_up(&stage).await;
    let first = next(&stage, &mut cursor).await;
    assert!(first.more);
    assert_eq!(first.changes.len(), 1);
    let second = next(&stage, &mut cursor).await;
    assert_eq!(second.changes, [Change::Gone("b".into())]);
    assert!(!second.more);
    assert_eq!(Position::read(&cursor).unwrap().history_id, 200);
    for asked in stage.asked() {
        assert_eq!(asked.get("startHistoryId"), "100");
    }
}

#[tokio::test]
async fn an_unknown_history_id_expires_the_cursor_also_in_mid_pass() {
    let stage =
        TestServer::new(
            |asked: &Asked| match (asked.path.as_str(), asked.get("startHistoryId")) {
                ("/gmail/v1/users/me/profile", _) => profile(),
                (_, "100") if asked.get("pageToken").is_empty() => {
                    Answer::json(json!({"historyId": "200", "nextPageToken": "h2"}))
                }
                _ => Answer::google(404, "notFound"),
            },
        )
        .await;
    let mut cursor = caught_up(&stage).await;
    next(&stage, &mut cursor).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    assert_eq!(error, ConnectorError::CursorExpired);
}

#[tokio::test]
async fn a_listing_that_is_not_found_does_not_expire_the_cursor() {
    let stage = account(|_| Answer::google(404, "notFound")).await;
    let cursor = start(&stage, Listing::Full).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    let rejected = matches!(
        error,
        ConnectorError::Rejected {
            code: "not_found",
            ..
        }
    );
    assert!(rejected, "{error:?}");
}

#[tokio::test]
async fn a_refused_page_token_restarts_the_listing_three_times() {
    let stage = account(|asked| match asked.get("pageToken") {
        "" => Answer::json(json!({"messages": ids(&["a"]), "nextPageToken": "stale"})),
        _ => Answer::google(400, "invalidArgument"),
    })
    .await;
    let mut cursor = start(&stage, Listing::Full).await;
    for _ in 0..3 {
        assert_eq!(next(&stage, &mut cursor).await.changes, seen(&["a"]));
        let restarted = next(&stage, &mut cursor).await;
        assert_eq!((restarted.changes, restarted.more), (vec![], true));
        assert_eq!(Position::read(&cursor).unwrap().history_id, 100);
    }
    next(&stage, &mut cursor).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    let refused = matches!(
        error,
        ConnectorError::Rejected {
            code: "page_token_refused",
            ..
        }
    );
    assert!(refused, "{error:?}");
    assert_eq!(stage.asked().len(), 8);
}

#[tokio::test]
async fn a_refused_page_token_restarts_a_history_pass_from_the_same_history_id() {
    let stale = Mutex::new(true);
    let stage =
        TestServer::new(
            move |asked: &Asked| match (asked.path.as_str(), asked.get("pageToken")) {
                ("/gmail/v1/users/me/profile", _) => profile(),
                (_, "") => {
                    let id = if *stale.lock().unwrap() { "200" } else { "210" };
                    Answer::json(json!({"historyId": id, "nextPageToken": "h2"}))
                }
                _ if std::mem::take(&mut *stale.lock().unwrap()) => {
                    Answer::google(400, "badRequest")
                }
                _ => Answer::json(json!({"historyId": "220"})),
            },
        )
        .await;
    let mut cursor = caught_up(&stage).await;
    let mut more = Vec::new();
    for _ in 0..4 {
        more.push(next(&stage, &mut cursor).await.more);
    }
    assert_eq!(more, [true, true, true, false]);
    assert_eq!(Position::read(&cursor).unwrap().history_id, 210);
    assert_eq!(
        calls(&stage),
        ["history", "history  h2", "history", "history  h2"]
    );
}

#[tokio::test]
async fn a_bad_request_without_a_page_token_is_rejected() {
    let stage = account(|_| Answer::google(400, "invalidArgument")).await;
    let cursor = start(&stage, Listing::Full).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    let rejected = matches!(
        error,
        ConnectorError::Rejected {
            code: "rejected",
            ..
        }
    );
    assert!(rejected, "{error:?}");
}

#[tokio::test]
async fn a_resync_lists_everything_then_each_label_then_follows() {
    let stage = account(|asked| {
        if asked.path.ends_with("/labels") {
            return Answer::json(json!({"labels": [
                {"id": "INBOX", "name": "INBOX", "type": "system"}, {"id": "EMPTY"}, {"id": "TRASH"}]}));
        }
        match (asked.get("labelIds"), asked.get("pageToken")) {
            ("", "") => Answer::json(json!({"messages": ids(&["a"]), "nextPageToken": "m2"})),
            ("", "m2") => Answer::json(json!({"messages": ids(&["b"])})),
            ("INBOX", "") => Answer::json(json!({"messages": ids(&["a"]), "nextPageToken": "i2"})),
            ("INBOX", "i2") => Answer::json(json!({"messages": ids(&["b", "b"])})),
            ("TRASH", "") => Answer::json(json!({"messages": ids(&["d"])})),
            _ => Answer::json(json!({"resultSizeEstimate": 0})),
        }
    })
    .await;
    let mut cursor = start(&stage, Listing::Resync).await;
    let mut pages = Vec::new();
    loop {
        let page = next(&stage, &mut cursor).await;
        let more = page.more;
        pages.push((page.changes, page.listing_complete));
        if !more {
            break;
        }
    }
    assert_eq!(
        pages,
        [
            (seen(&["a"]), false),
            (seen(&["b"]), false),
            (labelled("INBOX", &["a"]), false),
            (labelled("INBOX", &["b"]), false),
            (vec![], false),
            (labelled("TRASH", &["d"]), true),
            (vec![], false),
        ]
    );
    let asked = stage.asked();
    assert!(asked[2].path.ends_with("/labels"));
    assert_eq!(asked[3].get("includeSpamTrash"), "true");
    assert_eq!(stage.access.governor.units(), 1 + 6 * 5 + 1 + 2);
}

#[tokio::test]
async fn a_resync_of_an_account_without_labels_is_complete_too() {
    let stage = account(|_| Answer::json(json!({}))).await;
    let mut cursor = start(&stage, Listing::Resync).await;
    assert!(!next(&stage, &mut cursor).await.listing_complete);
    let page = next(&stage, &mut cursor).await;
    assert_eq!((page.listing_complete, page.more), (true, true));
    assert!(!next(&stage, &mut cursor).await.more);
    assert_eq!(calls(&stage), ["messages", "labels", "history"]);
}

#[tokio::test]
async fn a_label_that_was_removed_meanwhile_is_on_no_message() {
    let removed = Arc::new(Mutex::new(false));
    let known = removed.clone();
    let stage = account(move |asked| {
        if asked.path.ends_with("/labels") {
            let labels = match *known.lock().unwrap() {
                true => json!([{"id": "B"}]),
                false => json!([{"id": "A"}, {"id": "B"}]),
            };
            return Answer::json(json!({"labels": labels}));
        }
        match asked.get("labelIds") {
            "A" => Answer::google(400, "invalidArgument"),
            _ => Answer::json(json!({"messages": ids(&["a"])})),
        }
    })
    .await;
    let mut cursor = start(&stage, Listing::Resync).await;
    next(&stage, &mut cursor).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    assert!(
        matches!(error, ConnectorError::Rejected { .. }),
        "{error:?}"
    );
    let mut position = Position::read(&cursor).unwrap();
    position.listing.as_mut().unwrap().stage = cursor::Stage::Labels(vec!["A".into(), "B".into()]);
    cursor = position.write().unwrap();
    *removed.lock().unwrap() = true;
    assert_eq!(next(&stage, &mut cursor).await.changes, []);
    let last = next(&stage, &mut cursor).await;
    assert_eq!(last.changes, labelled("B", &["a"]));
    assert!(last.listing_complete);
}

#[tokio::test]
async fn a_page_that_is_cut_like_a_whole_one_is_asked_for_again() {
    let cut = Mutex::new(true);
    let stage = account(move |_| match std::mem::take(&mut *cut.lock().unwrap()) {
        true => Answer::status(200, r#"{"messages":[{"id":"a"},{"id":"b"}"#),
        false => Answer::json(json!({"messages": ids(&["a", "b"])})),
    })
    .await;
    let mut cursor = start(&stage, Listing::Full).await;
    assert_eq!(next(&stage, &mut cursor).await.changes, seen(&["a", "b"]));
}

#[tokio::test]
async fn refusals_of_both_kinds_are_waited_out_within_one_page() {
    let answers = Mutex::new(vec![
        Answer::google(429, "rateLimitExceeded"),
        Answer::google(403, "userRateLimitExceeded"),
        Answer::google(403, "rateLimitExceeded"),
    ]);
    let stage = account(move |_| match answers.lock().unwrap().pop() {
        Some(refusal) => refusal,
        None => Answer::json(json!({"messages": ids(&["a"])})),
    })
    .await;
    let mut cursor = start(&stage, Listing::Full).await;
    let before = stage.clock.now();
    assert_eq!(next(&stage, &mut cursor).await.changes, seen(&["a"]));
    assert_eq!(stage.asked().len(), 4);
    assert!((stage.clock.now() - before).num_seconds() >= 7);
}

#[tokio::test]
async fn a_used_up_day_sends_the_run_away_for_an_hour() {
    let stage = account(|_| Answer::google(403, "dailyLimitExceeded")).await;
    let cursor = start(&stage, Listing::Full).await;
    let error = GMAIL.changes(&stage.access, &cursor).await.unwrap_err();
    let retry_after = std::time::Duration::from_secs(3600);
    assert_eq!(error, ConnectorError::RateLimited { retry_after });
    assert_eq!(stage.asked().len(), 1);
}

#[tokio::test]
async fn an_anchor_that_is_no_history_id_gives_no_cursor() {
    let account = Account {
        id: "x".to_owned(),
        name: "a@example.com".into(),
        anchor: json!({"since": 1}),
    };
    let clock = TestClock::new();
    let main = GMAIL.streams()[0];
    let error = GMAIL.start(&account, main, Listing::Full, clock.now());
    assert_eq!(error, Err(ConnectorError::CursorExpired));
}
