//! Whether the audit log is whole: each chain from its first row to its head, and the heads that were
//! logged.
//!
//! Whoever can write to the database can make a whole chain anew, with its head. Only heads that were
//! kept elsewhere, in the log, tell of that.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::db::{
    Db, DbError,
    audit_log::{self, AuditRow, Head},
};

/// Rows read at once, and chains.
const PAGE: u64 = 1000;

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

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// Chains that were read.
    pub chains: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Logged heads that were compared.
    pub logged_heads: u64,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
}

/// Reads every chain; `logged` are heads from the log.
pub async fn verify(db: &Db, logged: Vec<Head>) -> Result<Verified, DbError> {
    let mut verified = Verified {
        logged_heads: logged.len() as u64,
        ..Verified::default()
    };
    let mut by_chain: BTreeMap<String, Vec<Head>> = BTreeMap::new();
    for head in logged {
        by_chain.entry(head.chain.clone()).or_default().push(head);
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
            verified.chain(db, &chain, logged).await?;
        }
    }
    // Nothing is left of these but what was logged.
    for head in by_chain.into_values().flatten() {
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

    async fn chain(&mut self, db: &Db, chain: &str, logged: Vec<Head>) -> Result<(), DbError> {
        self.chains += 1;
        let mut kept: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for head in logged {
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
