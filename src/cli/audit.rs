//! `nucleus audit`: whether the audit log is whole.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::say;
use crate::{
    app,
    audit::{self, Logged, LoggedHead, Verified},
    config::Config,
    db::{Db, audit_log, audit_log::Head, schema},
    domain::{Clock, SystemClock, time},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Read every chain of the audit log and say what is not as it was written. Exits with 1 if anything is,
    /// with 2 if the log says nothing of older rows.
    Verify(VerifyArgs),
}

/// How.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Compare with the heads that were logged each hour: a file of nucleus's log lines in JSON, up to now.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print what was found as one object of JSON.
    #[arg(long)]
    json: bool,
}

/// Of some rows the log tells neither that they are as they were written nor that they are not.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing contradicts the audit log, but the log says nothing of {rows} rows: no head was logged in the two \
     hours after they were written. Where no scheduler ran then, start `up` or run `nucleus tick`, and \
     give its lines as well; where one ran, its lines are missing from the log"
)]
pub struct NotCovered {
    rows: u64,
}

/// Does it.
pub async fn run(config: &Config, command: AuditCommand) -> anyhow::Result<()> {
    let AuditCommand::Verify(args) = command;
    let logged = match &args.log {
        None => None,
        Some(file) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let heads = logged_heads(&text);
            if heads.is_empty() {
                bail!(
                    "{} holds no head of an audit chain: give it log lines of `up` or `tick` in JSON",
                    file.display()
                );
            }
            let until = SystemClock.now();
            Some(Logged { heads, until })
        }
    };
    let url = config.database.url.expose_secret();
    let db = Db::connect(url, app::limits(&config.database))
        .await
        .context("the database cannot be opened")?;
    schema::status(&db).await?.check()?;
    let verified = audit::verify(&db, logged).await?;
    let unknown = audit_log::unknown_attempts(&db, SystemClock.now()).await?;
    db.close().await?;
    report(&verified, unknown, args.json)?;
    judge(&verified)
}

fn judge(verified: &Verified) -> anyhow::Result<()> {
    let count = verified.findings.len();
    if count > 0 {
        bail!("the audit log is not as it was written: {count} findings");
    }
    match verified.uncovered.iter().map(|tail| tail.rows).sum() {
        0 => Ok(()),
        rows => Err(NotCovered { rows }.into()),
    }
}

fn report(verified: &Verified, unknown: i64, json: bool) -> anyhow::Result<()> {
    if json {
        let mut object = serde_json::to_value(verified)?;
        object["unknown_attempts"] = unknown.into();
        say(&object.to_string());
        return Ok(());
    }
    for finding in &verified.findings {
        say(&format!(
            "{}  row {}  {}",
            finding.chain, finding.position, finding.problem
        ));
    }
    for tail in &verified.uncovered {
        say(&format!(
            "{}  row {}  the log says nothing of it and those after it, {} in all",
            tail.chain, tail.position, tail.rows
        ));
    }
    let newest = verified.newest_logged_head.map_or(String::new(), |at| {
        format!(" (the newest of {})", time::rfc3339(at))
    });
    say(&format!(
        "{} chains, {} rows, {} logged heads{newest}, {} findings; of {unknown} attempts the end is unknown",
        verified.chains,
        verified.rows,
        verified.logged_heads,
        verified.findings.len()
    ));
    Ok(())
}

/// The heads in lines of the log: objects with `audit.chain`, `audit.position` and `audit.hash`, at the
/// top or in a member of their own, and the `timestamp` beside or above them.
fn logged_heads(text: &str) -> Vec<LoggedHead> {
    let lines = text.lines();
    let values = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values
        .filter_map(|value| logged_head(&value, None))
        .collect()
}

fn logged_head(value: &Value, outer: Option<DateTime<Utc>>) -> Option<LoggedHead> {
    let members = value.as_object()?;
    let timestamp = members.get("timestamp").and_then(Value::as_str);
    let at = timestamp.and_then(|text| text.parse().ok()).or(outer);
    if let Some(chain) = members.get("audit.chain") {
        let head = Head {
            chain: chain.as_str()?.to_owned(),
            position: members.get("audit.position")?.as_i64()?,
            hash: members.get("audit.hash")?.as_str()?.to_owned(),
        };
        return Some(LoggedHead { head, at });
    }
    members.values().find_map(|member| logged_head(member, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Finding, Uncovered};

    #[test]
    fn rows_that_the_log_says_nothing_of_are_neither_well_nor_a_finding() {
        let mut verified = Verified::default();
        judge(&verified).unwrap();
        for rows in [2, 3] {
            verified.uncovered.push(Uncovered {
                chain: "operator".to_owned(),
                position: 4,
                rows,
            });
        }
        let unknown = judge(&verified).unwrap_err();
        assert!(unknown.is::<NotCovered>(), "{unknown}");
        assert!(
            unknown.to_string().contains("says nothing of 5 rows"),
            "{unknown}"
        );
        verified.findings.push(Finding {
            chain: "operator".to_owned(),
            position: 2,
            problem: "it was changed",
        });
        let changed = judge(&verified).unwrap_err();
        assert!(!changed.is::<NotCovered>(), "{changed}");
        assert!(
            changed.to_string().contains("not as it was written"),
            "{changed}"
        );
    }
}
