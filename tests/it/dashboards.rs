//! The dashboard and the alerts ask for metrics, labels and words that there are, and the document lists
//! the alerts that there are. Whether they are PromQL is for `promtool`, which a test does not need.

use std::collections::BTreeSet;

use nucleus::metrics::{FAMILIES, Family, Kind};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../infra/grafana/nucleus.json");
const ALERTS: &str = include_str!("../../infra/prometheus/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../infra/prometheus/alerts_test.yml");
const SCRAPE: &str = include_str!("../../infra/prometheus/prometheus.yml");

/// Labels that Prometheus adds.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// Every text under this key, however deep.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(text) if name == key => found.push(text),
                    _ => texts(member, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

fn queries_of_the_dashboard() -> Vec<String> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    texts(&dashboard, "expr", &mut found);
    found.into_iter().map(str::to_owned).collect()
}

/// What stands after `expr:`, on its line or folded below it.
fn queries_of_the_alerts() -> Vec<String> {
    let mut found = Vec::new();
    for rest in ALERTS.split("        expr:").skip(1) {
        let mut lines = rest.lines();
        let mut query = lines
            .next()
            .unwrap()
            .trim()
            .trim_start_matches(">-")
            .to_owned();
        for line in lines.take_while(|line| line.starts_with("          ")) {
            query.push_str(line);
        }
        found.push(query);
    }
    found
}

fn names_after<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    let lines = text.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix(before)).collect()
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The family that a name of a series belongs to.
fn family(series: &str) -> Option<&'static Family> {
    let of_it = |family: &&&Family| match family.kind {
        Kind::Histogram(_) => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| series.strip_suffix(end) == Some(family.name)),
        _ => series == family.name,
    };
    FAMILIES.iter().find(of_it).copied()
}

/// What is wrong with a query, and the families that it asks for.
fn check(query: &str) -> (Vec<String>, BTreeSet<&'static str>) {
    let mut wrong = Vec::new();
    let mut families = BTreeSet::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| is_word(c)) {
        let word_on = &rest[start..];
        let end = word_on.find(|c: char| !is_word(c)).unwrap_or(word_on.len());
        let (word, after) = word_on.split_at(end);
        rest = after;
        if word == "by" || word == "without" {
            let labels = after.trim_start().trim_start_matches('(');
            let labels = labels.split(')').next().unwrap();
            let known = |label: &str| {
                label == "le"
                    || TARGET_LABELS.contains(&label)
                    || FAMILIES.iter().any(|family| family.labels.contains(&label))
            };
            let unknown = labels
                .split(',')
                .map(str::trim)
                .filter(|label| !known(label));
            wrong.extend(unknown.map(|label| format!("no label {label}")));
        }
        if !word.starts_with("nucleus_") && !word.starts_with("process_") {
            continue;
        }
        let Some(family) = family(word) else {
            wrong.push(format!("no metric {word}"));
            continue;
        };
        families.insert(family.name);
        let Some(matchers) = after.strip_prefix('{') else {
            continue;
        };
        let matchers = matchers.split('}').next().unwrap();
        rest = &after[matchers.len()..];
        for matcher in matchers.split(',') {
            let (label, value) = matcher.split_once('=').unwrap();
            let value = value.trim_matches(|c: char| c == '~' || c == '"');
            if TARGET_LABELS.contains(&label) {
                continue;
            }
            if !family.labels.contains(&label) {
                wrong.push(format!("{word} has no label {label}"));
            }
            if !DOCUMENT.contains(&format!("`{value}`")) {
                wrong.push(format!("{word}: no {label} is {value}"));
            }
        }
    }
    let opening = query.matches(['(', '[', '{']).count();
    if opening != query.matches([')', ']', '}']).count() {
        wrong.push("brackets do not match".to_owned());
    }
    (wrong, families)
}

#[test]
fn every_query_asks_for_what_there_is() {
    let (shown, alerts) = (queries_of_the_dashboard(), queries_of_the_alerts());
    assert!(shown.len() > 30 && alerts.len() > 10);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for query in &shown {
        let (mistakes, families) = check(query);
        assert!(!families.is_empty(), "{query}");
        seen.extend(families);
        wrong.extend(
            mistakes
                .into_iter()
                .map(|mistake| format!("{mistake}: {query}")),
        );
    }
    for query in &alerts {
        let (mistakes, families) = check(query);
        let is_of_prometheus = query == "up{job=\"nucleus\"} == 0";
        assert!(!families.is_empty() || is_of_prometheus, "{query}");
        wrong.extend(
            mistakes
                .into_iter()
                .map(|mistake| format!("{mistake}: {query}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let all: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let unseen: Vec<&&str> = all.difference(&seen).collect();
    assert!(unseen.is_empty(), "nobody sees {unseen:?}");
}

#[test]
fn a_query_for_what_is_not_there_is_found() {
    for (query, mistake) in [
        ("max(nucleus_dead_letter)", "no metric nucleus_dead_letter"),
        (
            "rate(nucleus_batch_duration_seconds[5m])",
            "no metric nucleus_batch_duration_seconds",
        ),
        (
            "nucleus_dna_events_total_bucket",
            "no metric nucleus_dna_events_total_bucket",
        ),
        (
            "sum by (outcome, user) (nucleus_dead_letters)",
            "no label user",
        ),
        (
            "nucleus_dead_letters{job=~\"$job\",topic=\"x\"}",
            "nucleus_dead_letters has no label topic",
        ),
        (
            "nucleus_sync_runs_total{outcome=\"broken\"}",
            "nucleus_sync_runs_total: no outcome is broken",
        ),
        ("max(nucleus_dead_letters", "brackets do not match"),
    ] {
        let (found, _) = check(query);
        assert!(
            found.iter().any(|found| found == mistake),
            "{query}: {found:?}"
        );
    }
}

#[test]
fn the_document_lists_the_alerts_that_there_are_and_each_is_tried() {
    let alerts = names_after(ALERTS, "- alert: ");
    assert_eq!(alerts.len(), queries_of_the_alerts().len());
    let table = DOCUMENT.split("## What to alert on").nth(1).unwrap();
    let documented: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `Nucleus")?.split('`').next())
        .collect();
    let named: BTreeSet<&str> = alerts
        .iter()
        .map(|name| name.strip_prefix("Nucleus").unwrap())
        .collect();
    assert_eq!(documented, named);
    let tried = names_after(ALERTS_TEST, "alertname: ");
    assert_eq!(tried, alerts);
    for severity in names_after(ALERTS, "severity: ") {
        assert!(["critical", "warning"].contains(&severity), "{severity}");
    }
    assert!(SCRAPE.contains("job_name: nucleus\n") && SCRAPE.contains("alerts.yml"));
}

#[test]
fn the_dashboard_s_panels_stand_apart_and_ask_the_chosen_source() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let number = |member: &str| panel["gridPos"][member].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24, "{title}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{title}"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job"]);
}
