//! The quota, kept so that the service need not refuse: with both tables, with an own one, across a
//! restart, and when the service grants less than it says. The clock jumps; nothing waits in truth.

use nucleus::{
    demo::{Fault, Match, Method, QuotaEnforcement, RefusalStyle},
    domain::QuotaTable,
};
use serde_json::{Value, json};

use crate::{
    doubles::small_mailbox,
    harness::{Setting, TestApp},
};

const STYLES: [RefusalStyle; 3] = [
    RefusalStyle::Status403,
    RefusalStyle::Status429,
    RefusalStyle::Alternating,
];

fn enforced(table: QuotaTable, user_minute: u32, style: RefusalStyle) -> QuotaEnforcement {
    QuotaEnforcement {
        table,
        user_minute,
        style,
        retry_after: false,
    }
}

fn setting(count: u64, quota: QuotaEnforcement) -> Setting {
    Setting::new(small_mailbox(count)).options(|options| options.quota = Some(quota))
}

/// For each call whether it was refused, in order.
fn refusals(app: &TestApp) -> Vec<bool> {
    let log = app.google.requests();
    log.iter()
        .map(|request| [403, 429].contains(&request.status))
        .collect()
}

/// Syncs everything in one run; gives it and the seconds that passed.
async fn sync_all(app: &TestApp) -> (Value, i64) {
    let id = app.connect().await;
    let before = app.app.now();
    let run = app.request_sync(&id).await;
    app.drain().await;
    let seconds = (app.app.now() - before).num_seconds();
    assert_eq!(app.all(&format!("/integrations/{id}/runs")).await.len(), 1);
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{run}");
    app.assert_matches_ledger(&id).await;
    (run, seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_table_of_2026_it_waits_and_is_never_refused() {
    for style in STYLES {
        let app = setting(700, enforced(QuotaTable::Y2026, 6000, style))
            .start()
            .await;
        let (run, seconds) = sync_all(&app).await;
        assert!(!refusals(&app).contains(&true), "{style:?}");
        // 14,013 units: two whole minutes and what is left.
        assert!((120..=300).contains(&seconds), "{style:?}: {seconds} s");
        assert_eq!(run["quota_units"].as_u64().unwrap(), app.google.units());
        assert_eq!(run["quota_units"], 700 * 20 + 1 + 2 * 5 + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_lower_limit_it_is_refused_in_one_burst_only() {
    for style in STYLES {
        let app = setting(700, enforced(QuotaTable::Y2026, 4000, style))
            .start()
            .await;
        let (_, seconds) = sync_all(&app).await;
        let refusals = refusals(&app);
        let first = refusals.iter().position(|&refused| refused).unwrap();
        let last = refusals.iter().rposition(|&refused| refused).unwrap();
        let count = refusals.iter().filter(|&&refused| refused).count();
        assert!((1..=10).contains(&count), "{style:?}: {count} refusals");
        assert!(
            last - first < 30,
            "{style:?}: refused from call {first} to call {last}"
        );
        assert!(
            refusals.len() - last > 400,
            "{style:?}: refused at call {last}"
        );
        // Which of the calls in flight are refused decides how far the rate is lowered, and so whether it
        // takes six minutes or seven.
        assert!((180..=480).contains(&seconds), "{style:?}: {seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_old_and_of_ones_own_are_kept_too() {
    let own = "get=10,threads_get=20,list=50,history=7,profile=3,user_minute=900";
    let cases = [
        ("legacy", QuotaTable::LEGACY, 15_000, 3 * 5 + 2),
        (own, own.parse().unwrap(), 900, 3 * 50 + 7 + 2),
    ];
    for (name, table, user_minute, beside) in cases {
        let app = setting(1100, enforced(table, user_minute, RefusalStyle::Status429))
            .variable("NUCLEUS_SERVICES__GMAIL__QUOTA", name)
            .start()
            .await;
        let (run, _) = sync_all(&app).await;
        assert!(!refusals(&app).contains(&true), "{name}");
        let gets = 1100 * u64::from(table.get);
        let units = gets + beside + u64::from(table.profile);
        assert!(
            run["quota_units"].as_u64().unwrap() >= units - 2,
            "{name}: {run}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_budget_nothing_waits_and_refusals_still_back_off() {
    let app = Setting::new(small_mailbox(700))
        .variable("NUCLEUS_SERVICES__GMAIL__QUOTA", "off")
        .start()
        .await;
    let (run, seconds) = sync_all(&app).await;
    assert_eq!(seconds, 0);
    assert_eq!(run["quota_units"], 700 * 20 + 1 + 2 * 5 + 2);
    let app = setting(
        400,
        enforced(QuotaTable::Y2026, 6000, RefusalStyle::Alternating),
    )
    .variable("NUCLEUS_SERVICES__GMAIL__QUOTA", "off")
    .start()
    .await;
    let (_, seconds) = sync_all(&app).await;
    assert!(refusals(&app).contains(&true));
    assert!(seconds >= 60, "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_does_not_overspend() {
    for served in [30, 150, 290] {
        let quota = enforced(QuotaTable::Y2026, 6000, RefusalStyle::Status403);
        let mut app = setting(700, quota).start().await;
        let id = app.connect().await;
        let run = app.request_sync(&id).await;
        app.drain_until_served(Method::MessagesGet, served).await;
        app.restart().await;
        app.drain().await;
        let run = app.get(&format!("/runs/{run}")).await;
        assert_eq!(run["status"], "success", "{run}");
        assert!(!refusals(&app).contains(&true), "killed after {served}");
        // A kill costs at most what was fetched and not yet written.
        let gets = app.calls(Method::MessagesGet);
        assert!(gets <= 700 + 189, "{gets} gets, killed after {served}");
        app.assert_matches_ledger(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_time_is_waited_for_and_a_long_one_in_the_queue() {
    let app = Setting::new(small_mailbox(5)).start().await;
    let id = app.connect().await;
    app.google
        .inject(Match::method(Method::MessagesList), Fault::retry_after(300));
    let before = app.app.now();
    assert_eq!(app.sync(&id).await["status"], "success");
    let waited = (app.app.now() - before).num_seconds();
    assert!((300..400).contains(&waited), "{waited}");
    app.google
        .inject(Match::method(Method::HistoryList), Fault::retry_after(2000));
    let run = app.request_sync(&id).await;
    let none = tokio_util::sync::CancellationToken::new();
    nucleus::worker::drain(&app.app, &none).await.unwrap();
    assert_eq!(app.get(&format!("/runs/{run}")).await["status"], "queued");
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&run["status"], &run["mode"]),
        (&json!("success"), &json!("incremental"))
    );
}
