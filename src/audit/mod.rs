//! Acts outside the database, and whether the audit log is whole.
//!
//! What the database does is written down in the transaction that does it
//! ([`audit_log::append`]). What is done elsewhere is written down before: without that row it is not
//! done. Another row says how it ended; where the process dies in between, that is not known.

mod store;
mod verify;

use crate::{
    db::{
        Db, DbError,
        audit_log::{self, Act, AuditId},
    },
    domain::{
        Clock, EntityId,
        audit::{Action, Outcome},
        errors,
    },
};

pub use store::{AuditedStore, is_not_written};
pub use verify::{Finding, Logged, LoggedHead, Uncovered, Verified, verify};

/// An act outside the database that is about to be done.
pub struct Attempt<'a> {
    db: &'a Db,
    clock: &'a dyn Clock,
    id: AuditId,
    entity_id: Option<EntityId>,
    action: Action,
}

impl<'a> Attempt<'a> {
    /// Writes down that it is about to be done; it must not be done where this fails.
    pub async fn begin(
        db: &'a Db,
        clock: &'a dyn Clock,
        entity_id: Option<EntityId>,
        action: Action,
        target: &str,
    ) -> Result<Self, DbError> {
        let act = Act {
            outcome: Outcome::Attempt,
            ..Act::done(entity_id, action, target)
        };
        let tx = db.begin().await?;
        let id = audit_log::append(&tx, &act, clock.now()).await?;
        tx.commit().await?;
        Ok(Self {
            db,
            clock,
            id,
            entity_id,
            action,
        })
    }

    /// Writes down how it ended. Where that fails the act is done all the same, and its end stays
    /// unknown to the log.
    pub async fn end(self, is_done: bool, target: &str) {
        let outcome = match is_done {
            true => Outcome::Success,
            false => Outcome::Failure,
        };
        let act = Act {
            outcome,
            attempt: Some(self.id),
            ..Act::done(self.entity_id, self.action, target)
        };
        let written = async {
            let tx = self.db.begin().await?;
            audit_log::append(&tx, &act, self.clock.now()).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::error!(
                audit.id = %self.id,
                audit.action = %self.action,
                error = errors::chain(&error),
                "how an act ended was not written down"
            );
        }
    }
}
