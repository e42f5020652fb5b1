//! Whether the audit log is whole: each chain from its first row to its head, and the heads that were
//! logged.
//!
//! Whoever can write to the database can make a whole chain anew, with its head. Only heads that were
//! kept elsewhere, in the log, tell of that; and where they are missing although heads of that time are there,
//! that they were kept from it. Where the log tells of no head at all, no scheduler may have run: that is
//! no proof of anything, and said as what it is.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{
    db::{
        Db, DbError,
        audit_log::{self, AuditRow, Head},
    },
    domain::time,
};

/// Rows read at once, and chains.
const PAGE: u64 = 1000;
/// The head of each chain is logged each hour, or at the next pass after that; what was not by this time is
/// missing from the log.
const LOGGED_WITHIN: TimeDelta = TimeDelta::hours(2);

/// A head from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedHead {
    /// What was logged.
    pub head: Head,
    /// When, where the line says so.
    pub at: Option<DateTime<Utc>>,
}

/// What the log tells.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its heads.
    pub heads: Vec<LoggedHead>,
    /// Until when it tells of them, where a scheduler ran.
    pub until: DateTime<Utc>,
}

/// What is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The entity's id, or `operator`.
    pub chain: String,
    /// The number of the row.
    pub position: i64,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The newest rows of a chain, of more than two hours ago, of which the log says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncovered {
    /// The entity's id, or `operator`.
    pub chain: String,
    /// The number of the first of them.
    pub position: i64,
    /// How many.
    pub rows: u64,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// Chains that were read.
    pub chains: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Logged heads that were compared.
    pub logged_heads: u64,
    /// When the newest of them was logged.
    #[serde(serialize_with = "time::serialize_option")]
    pub newest_logged_head: Option<DateTime<Utc>>,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
    /// What the log says nothing of, neither good nor bad.
    pub uncovered: Vec<Uncovered>,
}

/// Reads every chain, and compares it with what the log tells.
pub async fn verify(db: &Db, logged: Option<Logged>) -> Result<Verified, DbError> {
    let until = logged.as_ref().map(|logged| logged.until);
    let heads = logged.map_or(Vec::new(), |logged| logged.heads);
    let mut verified = Verified {
        logged_heads: heads.len() as u64,
        newest_logged_head: heads.iter().filter_map(|logged| logged.at).max(),
        ..Verified::default()
    };
    let mut by_chain: BTreeMap<String, Vec<LoggedHead>> = BTreeMap::new();
    for logged in heads {
        let chain = logged.head.chain.clone();
        by_chain.entry(chain).or_default().push(logged);
    }
    let mut last = String::new();
    loop {
        let chains = audit_log::chains(db, &last, PAGE).await?;
        let Some(end) = chains.last() else {
            break;
        };
        last = end.clone();
        for chain in chains {
            let logged = by_chain.remove(&chain).unwrap_or_default();
            verified.chain(db, &chain, logged, until).await?;
        }
    }
    // Nothing is left of these but what was logged.
    for LoggedHead { head, .. } in by_chain.into_values().flatten() {
        verified.find(
            &head.chain,
            head.position,
            "the row of a logged head is missing",
        );
    }
    Ok(verified)
}

impl Verified {
    fn find(&mut self, chain: &str, position: i64, problem: &'static str) {
        self.findings.push(Finding {
            chain: chain.to_owned(),
            position,
            problem,
        });
    }

    /// Reads one chain; `until` is given where there is a log.
    async fn chain(
        &mut self,
        db: &Db,
        chain: &str,
        logged: Vec<LoggedHead>,
        until: Option<DateTime<Utc>>,
    ) -> Result<(), DbError> {
        self.chains += 1;
        let logged_to = logged.iter().map(|logged| logged.head.position).max();
        let logged_at = logged.iter().filter_map(|logged| logged.at).max();
        // Who logged the newest head had logged the others of its time.
        let due = self.newest_logged_head.map(|at| at - LOGGED_WITHIN);
        let old = until.map(|until| until - LOGGED_WITHIN);
        let mut first_row_at = None;
        let mut first_missed = None;
        let mut uncovered: Option<Uncovered> = None;
        let mut kept: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for LoggedHead { head, .. } in logged {
            kept.entry(head.position).or_default().push(head.hash);
        }
        // Read before the rows, so that rows that come meanwhile are behind it.
        let head = audit_log::head(db, chain).await?;
        let mut end = Head {
            chain: chain.to_owned(),
            position: 0,
            hash: String::new(),
        };
        loop {
            let rows = audit_log::follow(db, chain, end.position, PAGE).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                self.row(&row, &end);
                first_row_at = first_row_at.or(Some(row.at));
                if row.position > logged_to.unwrap_or_default() {
                    if due.is_some_and(|due| row.at < due) {
                        first_missed = first_missed.or(Some(row.position));
                    } else if old.is_some_and(|old| row.at < old) {
                        let first = || Uncovered {
                            chain: chain.to_owned(),
                            position: row.position,
                            rows: 0,
                        };
                        uncovered.get_or_insert_with(first).rows += 1;
                    }
                }
                for hash in kept.remove(&row.position).unwrap_or_default() {
                    if hash != row.hash {
                        self.find(
                            chain,
                            row.position,
                            "it is not the row whose hash was logged",
                        );
                    }
                }
                if let Some(head) = head.as_ref().filter(|head| head.position == row.position)
                    && head.hash != row.hash
                {
                    self.find(chain, row.position, "it is not the row that the head names");
                }
                end.position = row.position;
                end.hash = row.hash;
            }
        }
        for (position, _) in kept {
            self.find(chain, position, "the row of a logged head is missing");
        }
        if let Some(position) = first_missed {
            self.find(
                chain,
                position,
                "no head was logged since it was written, though others were",
            );
        }
        self.uncovered.extend(uncovered);
        // Rows that were made anew may have any time; the heads of other chains tell when theirs was due.
        if let Some(due) = due {
            let was_there = first_row_at.is_some_and(|at| at < due);
            if was_there && logged_at.is_none_or(|at| at < due) {
                self.find(
                    chain,
                    end.position,
                    "its head was not logged when those of other chains were",
                );
            }
        }
        match head {
            None if audit_log::head(db, chain).await?.is_none() => {
                self.find(chain, end.position, "the head of the chain is missing");
            }
            Some(head) if head.position > end.position => {
                self.find(chain, head.position, "the rows up to the head are missing");
            }
            _ => {}
        }
        Ok(())
    }

    fn row(&mut self, row: &AuditRow, before: &Head) {
        self.rows += 1;
        if row.position != before.position + 1 {
            self.find(&row.chain, row.position, "rows before it are missing");
        } else if row.previous_hash != before.hash {
            self.find(
                &row.chain,
                row.position,
                "it does not follow the row before it",
            );
        }
        if row.hash != row.expected_hash() {
            self.find(&row.chain, row.position, "it was changed");
        }
    }
}
