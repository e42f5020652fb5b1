//! What Prometheus is told, against what the stand-in counted and what the tables hold; and that the
//! document speaks of metrics that there are.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use nucleus::{
    demo::{Fault, Match, Method, QuotaEnforcement, RefusalStyle, cost},
    domain::QuotaTable,
    metrics::{FAMILIES, Kind},
};
use serde_json::json;

use crate::{
    child::{Child, World, happens},
    contract,
    doubles::{mail, small_mailbox},
    harness::{OPERATOR_KEY, Setting, TestApp},
};

/// What one look at `/metrics` tells: series to number.
pub struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    pub async fn of(url: &str) -> Self {
        let request = reqwest::Client::new().get(format!("{url}/metrics"));
        let response = request.bearer_auth(OPERATOR_KEY).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        let (_, text) = contract::read("GET", "/metrics", response).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect();
        Self { text, series }
    }

    fn get(&self, series: &str) -> f64 {
        let found = self.series.get(series);
        *found.unwrap_or_else(|| panic!("no {series} in {}", self.text))
    }

    /// The sum of a family's series that hold all of these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        self.series
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(family))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label.as_str())))
            .map(|(_, value)| value)
            .sum()
    }
}

/// Calls of the stand-in's log with one of these statuses, or all, by method.
fn logged(app: &TestApp, method: Method, statuses: Option<&[u16]>) -> f64 {
    let log = app.google.requests();
    let counts = log.iter().filter(|call| call.method == method);
    counts
        .filter(|call| statuses.is_none_or(|statuses| statuses.contains(&call.status)))
        .count() as f64
}

const CALLS: [Method; 4] = [
    Method::GetProfile,
    Method::MessagesList,
    Method::MessagesGet,
    Method::HistoryList,
];

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_are_those_of_the_stand_in_and_of_the_runs() {
    let quota = QuotaEnforcement {
        table: QuotaTable::Y2026,
        user_minute: 3000,
        style: RefusalStyle::Alternating,
        retry_after: false,
    };
    let app = Setting::new(small_mailbox(260))
        .options(|options| options.quota = Some(quota))
        .start()
        .await;
    let id = app.connect().await;
    let ids = app.google.with_mailbox(|mailbox| mailbox.ids());
    // One message fails for good, one call is not authorized, one token call is in vain.
    let broken = Fault::status(500, "backendError");
    app.google
        .inject_times(Match::id(&ids[3]), broken.clone(), 10_000);
    app.google.inject(
        Match::method(Method::Token).nth(2),
        Fault::status(503, "server_error"),
    );
    let first = app.sync(&id).await;
    assert_eq!(first["status"], "partial", "{first}");
    app.google.expire_access_tokens();
    app.google.with_mailbox(|mailbox| {
        mailbox.deliver(mail(1), &["INBOX"]);
        mailbox.relabel(&ids[0], &["STARRED"], &[]);
        mailbox.delete(&ids[1]);
    });
    let second = app.sync(&id).await;
    app.google.revoke_grant();
    app.google.expire_access_tokens();
    let third = app.sync(&id).await;
    assert_eq!(third["status"], "failed", "{third}");
    let runs = [&first, &second, &third];

    let scrape = Scrape::of(&app.url).await;
    let mut refused = 0.0;
    for method in CALLS {
        let name = [("method", method.name()), ("service", "gmail")];
        let calls = logged(&app, method, None);
        assert!(calls > 0.0, "{method:?} was never called");
        let units = f64::from(cost(&QuotaTable::Y2026, method)) * calls;
        assert_eq!(
            scrape.sum("nucleus_quota_units_total", &name),
            units,
            "{method:?}"
        );
        assert_eq!(scrape.sum("nucleus_provider_calls_total", &name), calls);
        let duration = "nucleus_provider_call_duration_seconds_count";
        assert_eq!(scrape.sum(duration, &name), calls);
        for (outcome, statuses) in [
            ("ok", &[200][..]),
            ("rate_limited", &[403, 429]),
            ("unauthorized", &[401]),
            ("unavailable", &[500]),
            ("not_found", &[404]),
        ] {
            let expected = logged(&app, method, Some(statuses));
            let labels = [name[0], ("outcome", outcome)];
            let told = scrape.sum("nucleus_provider_calls_total", &labels);
            assert_eq!(told, expected, "{method:?} {outcome}");
            if outcome == "rate_limited" {
                refused += told;
            }
        }
    }
    assert!(refused > 0.0, "nothing was refused");
    assert!(scrape.sum("nucleus_quota_wait_seconds_total", &[]) > 60.0);
    let spent: u64 = runs
        .iter()
        .map(|run| run["quota_units"].as_u64().unwrap())
        .sum();
    let told = scrape.sum("nucleus_quota_units_total", &[]);
    assert_eq!(told, spent as f64, "the runs say so too");

    for (outcome, expected) in [
        ("success", logged(&app, Method::Token, Some(&[200]))),
        ("unavailable", logged(&app, Method::Token, Some(&[503]))),
        ("revoked", logged(&app, Method::Token, Some(&[400]))),
        ("client_refused", 0.0),
    ] {
        let series =
            format!("nucleus_token_refreshes_total{{service=\"gmail\",outcome=\"{outcome}\"}}");
        assert_eq!(scrape.get(&series), expected, "{outcome}");
        assert!(expected > 0.0 || outcome == "client_refused", "{outcome}");
    }

    for outcome in ["success", "partial", "failed", "cancelled"] {
        let expected = runs.iter().filter(|run| run["status"] == outcome).count();
        let labels = [("outcome", outcome), ("trigger", "manual")];
        let told = scrape.sum("nucleus_sync_runs_total", &labels);
        assert_eq!(told, expected as f64, "{outcome}");
        let count = "nucleus_sync_run_duration_seconds_count";
        let told = scrape.sum(count, &[("outcome", outcome)]);
        assert_eq!(told, expected as f64, "{outcome}");
    }
    for outcome in ["stored", "updated", "deleted", "failed"] {
        let expected: u64 = runs
            .iter()
            .map(|run| run["counts"][outcome].as_u64().unwrap())
            .sum();
        assert!(expected > 0, "nothing {outcome}");
        let told = scrape.sum("nucleus_sync_items_total", &[("outcome", outcome)]);
        assert_eq!(told, expected as f64, "{outcome}");
    }
    for step in ["understand", "write"] {
        let count = "nucleus_batch_duration_seconds_count";
        assert!(scrape.sum(count, &[("step", step)]) > 2.0, "{step}");
    }
    let events = app.all("/events").await.len();
    assert_eq!(scrape.get("nucleus_dna_events_total"), events as f64);
    assert_eq!(scrape.get("nucleus_sync_gaps_open"), 1.0);
    assert_eq!(
        scrape.get("nucleus_integrations{service=\"gmail\",status=\"revoked\"}"),
        1.0
    );

    // A question that no run asks counts as well.
    app.google.set_refresh_token("1//consented-again");
    let path = format!("/integrations/{id}");
    let body = json!({"credentials": {"refresh_token": "1//consented-again"}});
    assert_eq!(app.send("PATCH", &path, Some(body)).await.0, 200);
    let tested = app.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
    let later = Scrape::of(&app.url).await;
    let profile = [("method", "getProfile"), ("service", "gmail")];
    for family in ["nucleus_quota_units_total", "nucleus_provider_calls_total"] {
        let before = scrape.sum(family, &profile);
        assert_eq!(later.sum(family, &profile), before + 1.0, "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_as_it_stands() {
    let app = Setting::new(small_mailbox(5)).start().await;
    let (one, other) = (app.connect().await, app.connect().await);
    let due = "nucleus_outbox_messages{topic=\"nucleus-sync-requests\",state=\"due\"}";
    let delayed = "nucleus_outbox_messages{topic=\"nucleus-sync-requests\",state=\"delayed\"}";
    let age = "nucleus_outbox_oldest_due_age_seconds{topic=\"nucleus-sync-requests\"}";
    let scrape = Scrape::of(&app.url).await;
    assert_eq!((scrape.get(due), scrape.get(age)), (0.0, 0.0));
    assert_eq!(scrape.get("nucleus_integrations_due"), 0.0);

    let run = app.request_sync(&one).await;
    app.request_sync(&other).await;
    app.clock.advance(TimeDelta::seconds(90));
    let scrape = Scrape::of(&app.url).await;
    assert_eq!((scrape.get(due), scrape.get(age)), (2.0, 90.0));
    let queued = "nucleus_sync_runs_active{status=\"queued\"}";
    let running = "nucleus_sync_runs_active{status=\"running\"}";
    assert_eq!((scrape.get(queued), scrape.get(running)), (2.0, 0.0));

    // A cancelled run ends without a worker; the message that woke nobody up is still there.
    app.post(&format!("/runs/{run}/cancel"), json!({})).await;
    let scrape = Scrape::of(&app.url).await;
    assert_eq!(scrape.get(queued), 1.0);
    let cancelled = [("outcome", "cancelled")];
    assert_eq!(scrape.sum("nucleus_sync_runs_total", &cancelled), 1.0);
    app.drain().await;
    assert_eq!(Scrape::of(&app.url).await.get(due), 0.0);

    // A service that asks for more patience than a call has.
    app.google
        .inject(Match::method(Method::HistoryList), Fault::retry_after(3600));
    app.request_sync(&other).await;
    nucleus::worker::drain(&app.app, &Default::default())
        .await
        .unwrap();
    let scrape = Scrape::of(&app.url).await;
    assert_eq!((scrape.get(due), scrape.get(delayed)), (0.0, 1.0));
    assert_eq!(scrape.get(age), 0.0, "what waits for its time is not late");

    app.clock.advance(TimeDelta::minutes(100));
    let scrape = Scrape::of(&app.url).await;
    assert_eq!(scrape.get("nucleus_integrations_due"), 2.0);
    assert_eq!(scrape.get("nucleus_integrations_overdue"), 2.0);
    assert_eq!(scrape.get("nucleus_dead_letters"), 0.0);
    assert_eq!(scrape.get("nucleus_sync_runs_abandoned"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_by_their_route_and_no_label_holds_an_id() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    for path in [
        format!("/integrations/{id}"),
        format!("/integrations/{nobody}"),
        format!("/no/such/{id}"),
    ] {
        app.send("GET", &path, None).await;
    }
    app.send("BREW", &format!("/integrations/{id}"), None).await;
    app.send_as(None, "GET", "/events", None).await;
    let scrape = Scrape::of(&app.url).await;
    for (labels, count) in [
        (
            "method=\"GET\",route=\"/integrations/{id}\",status=\"200\"",
            1.0,
        ),
        (
            "method=\"GET\",route=\"/integrations/{id}\",status=\"404\"",
            1.0,
        ),
        (
            "method=\"other\",route=\"/integrations/{id}\",status=\"405\"",
            1.0,
        ),
        ("method=\"GET\",route=\"none\",status=\"404\"", 1.0),
        ("method=\"GET\",route=\"/events\",status=\"401\"", 1.0),
        (
            "method=\"POST\",route=\"/integrations/{id}/sync\",status=\"202\"",
            1.0,
        ),
    ] {
        let series = format!("nucleus_http_requests_total{{{labels}}}");
        assert_eq!(scrape.get(&series), count, "{labels}");
    }
    let count = "nucleus_http_request_duration_seconds_count";
    let route = [("route", "/integrations/{id}")];
    assert_eq!(scrape.sum(count, &route), 3.0);
    let entity = app.integration(&id).await["entity_id"].clone();
    for secret in [
        id.as_str(),
        nobody,
        run["run_id"].as_str().unwrap(),
        entity.as_str().unwrap(),
        "me@example.com",
    ] {
        assert!(!scrape.text.contains(secret), "{secret}: {}", scrape.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_go_on_after_a_restart_and_never_fall() {
    let mut app = Setting::new(small_mailbox(30)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    let before = Scrape::of(&app.url).await;
    app.app.save_totals().await.unwrap();
    let saved = Scrape::of(&app.url).await;
    app.restart().await;
    let after = Scrape::of(&app.url).await;
    app.sync(&id).await;
    let last = Scrape::of(&app.url).await;
    let totals = |scrape: &Scrape| -> BTreeMap<String, f64> {
        let kept = scrape.series.iter().filter(|(series, _)| {
            let families = FAMILIES.iter();
            let mut kept = families.filter(|family| family.source.as_str() == "totals");
            kept.any(|family| series.starts_with(family.name))
        });
        kept.map(|(series, value)| (series.clone(), *value))
            .collect()
    };
    let (before, after) = (totals(&before), totals(&after));
    assert!(before.len() > 50, "{before:?}");
    for (series, value) in &before {
        for other in [&totals(&saved), &after] {
            assert!((other[series] - value).abs() < 1e-9, "{series}");
        }
    }
    let runs = "nucleus_sync_runs_total";
    assert_eq!(last.sum(runs, &[("outcome", "success")]), 2.0);
    for (series, value) in totals(&last) {
        let before = after.get(&series).copied().unwrap_or_default();
        assert!(value >= before, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_the_process_still_tells_of_itself() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.sync(&id).await;
    assert_eq!(Scrape::of(&app.url).await.get("nucleus_database_up"), 1.0);
    app.app.engine.db.clone().close().await.unwrap();
    let scrape = Scrape::of(&app.url).await;
    assert_eq!(scrape.get("nucleus_database_up"), 0.0);
    assert!(scrape.get("process_start_time_seconds") > 1e9);
    // Half of a sum would look like a counter that was set back.
    for family in FAMILIES {
        let is_told = scrape.text.contains(&format!("\n{}", family.name));
        let is_own = family.source.as_str() == "process";
        assert!(is_own || !is_told, "{}", family.name);
    }
    assert!(app.app.save_totals().await.is_err());
    assert!(
        !app.app.engine.metrics.unsaved().is_empty(),
        "kept for later"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_port_is_told_of_by_the_api() {
    let world = World::new(small_mailbox(40)).await;
    world.run(&["migrate"]).await.ok();
    // Makes the vault's key, which the roles by themselves expect.
    let up = world.listen("up").await;
    let id = up.api.connect(&world).await;
    up.stop().await;
    let server = world.listen("serve").await;
    let mut worker = Child::spawn(world.command(&["work"]));
    worker.says("the worker takes sync requests").await;
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let stored = [("outcome", "stored")];
    let told = happens(crate::child::PATIENCE, async || {
        let scrape = Scrape::of(&server.api.url).await;
        scrape.sum("nucleus_sync_items_total", &stored) == 40.0
    })
    .await;
    assert!(told, "{}", Scrape::of(&server.api.url).await.text);
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    worker.exit(crate::child::PATIENCE).await;
    let scrape = Scrape::of(&server.api.url).await;
    let gets = [("method", "messages.get")];
    assert_eq!(scrape.sum("nucleus_quota_units_total", &gets), 800.0);
    assert_eq!(
        scrape.sum("nucleus_sync_runs_total", &[("outcome", "success")]),
        1.0
    );
    assert_eq!(scrape.get("nucleus_loop_running{loop=\"metrics\"}"), 1.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_loop_has_ended_is_not_ready() {
    let app = Setting::new(small_mailbox(1)).start().await;
    let (status, _) = app.send_as(None, "GET", "/readyz", None).await;
    assert_eq!(status, 200);
    let work = app.app.loops.watch("worker", std::future::ready(()));
    let (status, body) = app.send_as(None, "GET", "/readyz", None).await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")));
    work.await;
    let (status, _) = app.send_as(None, "GET", "/readyz", None).await;
    assert_eq!(status, 503);
    let (status, health) = app.send_as(None, "GET", "/health", None).await;
    assert_eq!(
        (status, &health["checks"]["loops"]),
        (503, &json!("unavailable"))
    );
    let scrape = Scrape::of(&app.url).await;
    assert_eq!(scrape.get("nucleus_loop_running{loop=\"worker\"}"), 0.0);
    assert_eq!(app.send_as(None, "GET", "/livez", None).await.0, 200);
}

#[test]
fn the_document_names_every_metric_with_its_labels_and_no_other() {
    let document = include_str!("../../docs/metrics.md");
    let rows: BTreeSet<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| `nucleus_") || line.starts_with("| `process_"))
        .map(|line| line.split('|').skip(1).take(4).map(str::trim).collect())
        .collect();
    let quoted = |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        quoted.join(", ")
    };
    let expected: Vec<[String; 4]> = FAMILIES
        .iter()
        .map(|family| {
            [
                quoted(&[family.name]),
                family.kind.as_str().to_owned(),
                quoted(family.labels),
                family.source.as_str().to_owned(),
            ]
        })
        .collect();
    let expected: BTreeSet<Vec<&str>> = expected
        .iter()
        .map(|row| row.iter().map(String::as_str).collect())
        .collect();
    assert_eq!(rows, expected);
    assert!(
        FAMILIES
            .iter()
            .any(|family| matches!(family.kind, Kind::Histogram(_)))
    );
}
