//! Numbers go to the database and come back, and are written as Prometheus reads them.

use chrono::DateTime;

use super::*;

fn metrics() -> Metrics {
    Metrics::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap(), [])
}

fn saved(metrics: &Metrics) -> Values {
    Values::from_totals(metrics.take_unsaved().totals())
}

#[test]
fn totals_read_back_as_they_were_saved() {
    let metrics = metrics();
    metrics.call_begins(ServiceName::Gmail, "messages.get", 20, 1.25);
    for seconds in [0.01, 0.3, 1000.0] {
        metrics.call_ended(ServiceName::Gmail, "messages.get", CallOutcome::Ok, seconds);
    }
    let before = metrics.unsaved();
    let read = saved(&metrics);
    assert_eq!(read, before);
    assert!(metrics.unsaved().is_empty());
    metrics.give_back(read);
    assert_eq!(metrics.unsaved(), before);
}

#[test]
fn sums_of_two_processes_are_one_series() {
    let (one, other) = (metrics(), metrics());
    one.batch(ServiceName::Gmail, Step::Write, 0.02);
    other.batch(ServiceName::Gmail, Step::Write, 0.2);
    let mut sum = saved(&one);
    sum.extend(other.unsaved());
    let text = sum.text().unwrap();
    let labels = "service=\"gmail\",step=\"write\"";
    for line in [
        format!("nucleus_batch_duration_seconds_bucket{{{labels},le=\"0.01\"}} 0"),
        format!("nucleus_batch_duration_seconds_bucket{{{labels},le=\"0.025\"}} 1"),
        format!("nucleus_batch_duration_seconds_bucket{{{labels},le=\"0.25\"}} 2"),
        format!("nucleus_batch_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
        format!("nucleus_batch_duration_seconds_sum{{{labels}}} 0.22"),
        format!("nucleus_batch_duration_seconds_count{{{labels}}} 2"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn what_another_version_keeps_is_left_out() {
    let total = |metric: &str, labels: &str, part: &str| Total {
        metric: metric.to_owned(),
        labels: labels.to_owned(),
        part: part.to_owned(),
        value: 1.0,
    };
    let unknown = vec![
        total("nucleus_of_tomorrow_total", "gmail", ""),
        total("nucleus_quota_units_total", "gmail", ""),
        total("nucleus_quota_units_total", "gmail,messages.get", "sum"),
        total("nucleus_batch_duration_seconds", "gmail,write", ""),
        total("nucleus_batch_duration_seconds", "gmail,write", "le=0.3"),
        total("nucleus_dead_letters", "", ""),
    ];
    assert!(Values::from_totals(unknown).is_empty());
}

#[test]
fn what_is_watched_for_its_first_occurrence_is_there_as_a_zero() {
    let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let metrics = Metrics::new(start, [ServiceName::Gmail]);
    let text = metrics.unsaved().text().unwrap();
    let refused = "nucleus_token_refreshes_total{service=\"gmail\",outcome=\"client_refused\"} 0";
    let failed = "nucleus_sync_runs_total{service=\"gmail\",kind=\"sync\",trigger=\"schedule\",\
                  outcome=\"failed\"} 0";
    assert!(text.contains(refused) && text.contains(failed), "{text}");
}

#[test]
fn every_family_has_a_name_by_the_rules_and_a_sentence() {
    for (index, family) in FAMILIES.iter().enumerate() {
        let name = family.name;
        assert!(name.starts_with("nucleus_") || name.starts_with("process_"));
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
        let is_counter = matches!(family.kind, Kind::Counter);
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        if let Kind::Histogram(bounds) = family.kind {
            assert!(name.ends_with("_seconds") && bounds.is_sorted(), "{name}");
        }
        assert!(
            !family.help.is_empty() && !family.help.ends_with('.'),
            "{name}"
        );
        let later = &FAMILIES[index + 1..];
        assert!(later.iter().all(|other| other.name != name), "{name} twice");
    }
}

#[test]
fn a_process_tells_what_the_system_knows_of_it() {
    let text = metrics().own().text().unwrap();
    assert!(
        text.contains("process_start_time_seconds 1800000000\n"),
        "{text}"
    );
    assert!(text.contains("nucleus_build_info{version=\""), "{text}");
    if cfg!(target_os = "linux") {
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let value: f64 = line.trim_start_matches(name).parse().unwrap();
            assert!(value >= 0.0, "{line}");
        }
    }
}
