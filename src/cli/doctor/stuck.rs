//! What does not move: messages, syncs, runs and integrations that somebody has to look after.

use chrono::TimeDelta;

use super::{
    answered,
    report::{Check, Report},
};
use crate::{
    db::{
        Db, Slicing, dead_letter, disconnection,
        integration::{self, Filter},
        overview::{self, ENDING, Overview},
        secret_intent,
    },
    domain::{
        Clock, SystemClock,
        event::{DNA_ANALYSIS, SYNC_REQUESTS},
        sync::{IntegrationStatus, Scope},
        time,
    },
    integrations::INTENT_AGE,
};

/// The parts of this file, as they are reported.
pub(super) const NAMES: &[&str] = &[
    "queue",
    "schedule",
    "runs",
    "dead_letters",
    "secret_intents",
    "integrations",
    "consents",
    "revocations",
];

/// How many are told one by one.
const SHOWN: u64 = 5;
/// The scheduler destroys what is left of an intent within this time after its age.
const SWEPT_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// Grants that were not revoked are told of for so long.
const REVOCATIONS_SHOWN: TimeDelta = TimeDelta::days(30);
/// Intents that are counted.
const INTENTS: u64 = 100;

/// Adds all of them.
pub(super) async fn all(report: &mut Report, db: &Db, is_locked: bool) {
    let overview = match answered(overview::overview(db, SystemClock.now())).await {
        Ok(overview) => overview,
        Err(reason) => {
            for name in NAMES {
                report.add(Check::skip(name, reason.clone()));
            }
            return;
        }
    };
    report.add(queue(&overview, is_locked));
    report.add(schedule(&overview));
    report.add(runs(&overview));
    report.add(dead_letters(db, &overview).await);
    report.add(secret_intents(db).await);
    for check in integrations(db, &overview).await {
        report.add(check);
    }
    report.add(consents(db, &overview).await);
    report.add(revocations(db).await);
}

fn queue(overview: &Overview, is_locked: bool) -> Check {
    const NAME: &str = "queue";
    let now = SystemClock.now();
    let topic = overview
        .topics
        .iter()
        .find(|(name, _)| *name == SYNC_REQUESTS);
    let Some((_, topic)) = topic else {
        return Check::skip(NAME, "there is no queue");
    };
    let detail = format!(
        "{} sync requests due, {} for later, {} in work",
        topic.due, topic.delayed, topic.leased
    );
    let events = overview
        .topics
        .iter()
        .find(|(name, _)| *name == DNA_ANALYSIS);
    if let Some((_, events)) = events.filter(|(_, events)| events.is_behind(now)) {
        let minutes = events.oldest_due_age(now).num_minutes();
        return Check::warn(
            NAME,
            format!(
                "{detail}; {} events wait to be published, the longest for {minutes} min",
                events.due
            ),
            "mend what the check of the broker names, and start a worker with `nucleus work`",
        );
    }
    if !topic.is_behind(now) {
        return Check::ok(NAME, detail);
    }
    let minutes = topic.oldest_due_age(now).num_minutes();
    let mend = match is_locked {
        true => {
            "start more workers with `nucleus work`, or raise NUCLEUS_SYNC__MAX_CONCURRENT_RUNS"
        }
        false => "start `nucleus up`, or a worker with `nucleus work`",
    };
    Check::warn(
        NAME,
        format!("{detail}; the longest waits for {minutes} min"),
        mend,
    )
}

fn schedule(overview: &Overview) -> Check {
    let (due, overdue) = (overview.due.due, overview.due.overdue);
    if overdue == 0 {
        return Check::ok("schedule", format!("{due} syncs due"));
    }
    Check::warn(
        "schedule",
        format!("{overdue} integrations have been due for more than five minutes"),
        "start `nucleus up`, or call `nucleus tick` by the clock",
    )
}

fn runs(overview: &Overview) -> Check {
    let counted = overview.active_runs.iter();
    let counted: Vec<String> = counted
        .map(|counted| format!("{} {}", counted.count, counted.status))
        .collect();
    let active = match counted.is_empty() {
        true => "none under way".to_owned(),
        false => counted.join(", "),
    };
    match overview.abandoned_runs {
        0 => Check::ok("runs", active),
        abandoned => Check::warn(
            "runs",
            format!("{active}; the workers of {abandoned} are gone"),
            "start `nucleus up` or `nucleus work`: each takes them up within five seconds",
        ),
    }
}

async fn dead_letters(db: &Db, overview: &Overview) -> Check {
    const NAME: &str = "dead_letters";
    if overview.dead_letters == 0 {
        return Check::ok(NAME, "none");
    }
    let newest = match answered(dead_letter::newest(db, SHOWN)).await {
        Ok(newest) => newest,
        Err(reason) => return Check::skip(NAME, reason),
    };
    let shown: Vec<String> = newest
        .iter()
        .map(|letter| format!("{}: {}", letter.id, letter.reason))
        .collect();
    Check::warn(
        NAME,
        format!(
            "{} were given up; the newest: {}",
            overview.dead_letters,
            shown.join("; ")
        ),
        "mend what the reason names, then ask for them again with `nucleus dead-letter redrive`",
    )
}

async fn secret_intents(db: &Db) -> Check {
    const NAME: &str = "secret_intents";
    let time = SystemClock.now() - INTENT_AGE - SWEPT_WITHIN;
    match answered(secret_intent::older_than(db, time, INTENTS)).await {
        Ok(old) if old.is_empty() => Check::ok(NAME, "none is old"),
        Ok(old) => Check::warn(
            NAME,
            format!(
                "{} versions of secrets may have nobody, and were not destroyed",
                old.len()
            ),
            "start `nucleus up` or run `nucleus tick`, which destroys them; else its log says why not",
        ),
        Err(reason) => Check::skip(NAME, reason),
    }
}

/// Those that do not stand well, a check for each reason; one check if all do.
async fn integrations(db: &Db, overview: &Overview) -> Vec<Check> {
    const NAME: &str = "integrations";
    let again =
        "connect the account again with POST /integrations/gmail/oauth/start: its records stay";
    let mut checks = Vec::new();
    for (status, mend) in [
        (IntegrationStatus::Revoked, again),
        (IntegrationStatus::Expired, again),
        (
            IntegrationStatus::Error,
            "mend what the message names; the next sync by schedule makes it active again",
        ),
    ] {
        let standing = overview.integrations.iter();
        let count: i64 = standing
            .filter(|standing| standing.status == status.as_str())
            .map(|standing| standing.count)
            .sum();
        if count == 0 {
            continue;
        }
        let shown = match shown(db, status).await {
            Ok(shown) => shown,
            Err(reason) => reason,
        };
        let detail = format!("{count} {}: {shown}", status.as_str());
        checks.push(Check::warn(NAME, detail, mend));
    }
    let active = overview
        .integrations
        .iter()
        .filter(|standing| standing.status == IntegrationStatus::Active.as_str());
    let (mut all, mut failing) = (0, 0);
    for standing in active {
        all += standing.count;
        failing += if standing.is_failing() {
            standing.count
        } else {
            0
        };
    }
    if failing > 0 {
        checks.push(Check::warn(
            NAME,
            format!("{failing} of {all} active ones failed in their last sync"),
            "read their sync_error_message with GET /integrations/?status=active",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::ok(NAME, format!("{all} active")));
    }
    checks
}

/// Consents that end soon: they cannot be refreshed past their end.
async fn consents(db: &Db, overview: &Overview) -> Check {
    const NAME: &str = "consents";
    let days = ENDING.num_days();
    let count: i64 = overview
        .consents_ending
        .iter()
        .map(|ending| ending.count)
        .sum();
    if count == 0 {
        return Check::ok(NAME, format!("none ends within {days} days"));
    }
    let mut found = Vec::new();
    // Those that may sync, as they are counted.
    for status in [IntegrationStatus::Active, IntegrationStatus::Error] {
        let filter = Filter {
            status: Some(status),
            consent_ends_before: Some(SystemClock.now() + ENDING),
            ..Filter::default()
        };
        let slicing = Slicing {
            after: None,
            limit: SHOWN,
        };
        match answered(integration::list(db, Scope::Operator, &filter, slicing)).await {
            Ok(some) => found.extend(some.items),
            Err(reason) => return Check::skip(NAME, reason),
        }
    }
    let shown: Vec<String> = found
        .iter()
        .take(SHOWN as usize)
        .map(|row| {
            let end = row.consent_expires_at.map(time::rfc3339);
            format!(
                "{} ({}) on {}",
                row.id,
                row.service_name,
                end.unwrap_or_default()
            )
        })
        .collect();
    Check::warn(
        NAME,
        format!("{count} end within {days} days: {}", shown.join("; ")),
        "ask their people to connect the accounts again: their records stay",
    )
}

/// Grants that a service was asked to revoke, and did not.
async fn revocations(db: &Db) -> Check {
    const NAME: &str = "revocations";
    let since = SystemClock.now() - REVOCATIONS_SHOWN;
    match answered(disconnection::not_revoked(db, since, SHOWN)).await {
        Ok(failed) if failed.is_empty() => Check::ok(NAME, "none failed"),
        Ok(failed) => {
            let shown: Vec<String> = failed
                .into_iter()
                .map(|row| {
                    let said = row.detail.unwrap_or_default();
                    format!("{} ({}): {said}", row.integration_id, row.service_name)
                })
                .collect();
            Check::warn(
                NAME,
                format!("grants still stand: {}", shown.join("; ")),
                "repeat `nucleus revoke`, or let the person remove the app at the service",
            )
        }
        Err(reason) => Check::skip(NAME, reason),
    }
}

async fn shown(db: &Db, status: IntegrationStatus) -> Result<String, String> {
    let filter = Filter {
        status: Some(status),
        ..Filter::default()
    };
    let slicing = Slicing {
        after: None,
        limit: SHOWN,
    };
    let found = answered(integration::list(db, Scope::Operator, &filter, slicing)).await?;
    let mut lines: Vec<String> = Vec::new();
    for row in found.items {
        let message = row.sync_error_message.unwrap_or_default();
        lines.push(format!("{} ({}) {message}", row.id, row.service_name));
    }
    if found.more {
        lines.push("and more".to_owned());
    }
    Ok(lines.join("; "))
}
