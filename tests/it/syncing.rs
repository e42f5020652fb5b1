//! Gmail through the whole program: full, incremental and resync, gaps, refresh, quota, counts.

use nucleus::demo::generate;
use serde_json::json;

use crate::harness::{Setting, assert_adds_up};

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
