//! Asking again for what was parked in the dead letters.

use chrono::{DateTime, Utc};

use super::{Request, RequestError, request_in, wake_up};
use crate::{
    db::{
        Db, DbError,
        audit_log::{self, Act},
        dead_letter::{self, DeadLetter},
        integration, outbox, sync_run,
    },
    domain::{
        EventId, IntegrationId, RunId,
        audit::Action,
        sync::{RunStatus, Scope, SyncRequested, Trigger},
    },
};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Redriven {
    /// This run carries it out, with a message of its own.
    Asked(RunId),
    /// It was asked for before.
    Before(Option<RunId>),
}

/// Why a dead letter cannot be asked for again.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// It names no integration, as far as this version of the program can read it.
    #[error("it names no integration that this version of the program understands")]
    Unreadable,
    /// The integration was removed.
    #[error("its integration {0} is gone")]
    Gone(IntegrationId),
    /// See [`RequestError`].
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<DbError> for RedriveError {
    fn from(error: DbError) -> Self {
        Self::Request(error.into())
    }
}

/// Asks for a sync of the letter's integration. The run that it was about has ended, or goes on by this
/// message if it has not. A letter that was asked for before is left alone.
pub async fn redrive(db: &Db, now: DateTime<Utc>, id: EventId) -> Result<Redriven, RedriveError> {
    let letter = dead_letter::find(db, id).await?;
    if letter.redriven_at.is_some() {
        return Ok(Redriven::Before(letter.redriven_run_id));
    }
    let integration_id = integration_of(&letter).ok_or(RedriveError::Unreadable)?;
    let request = Request {
        trigger: Trigger::Manual,
        confirm_mass_deletion: false,
    };
    let tx = db.begin().await?;
    let waiting = sync_run::active(&tx, integration_id).await?;
    let run = match request_in(&tx, now, Scope::Operator, integration_id, request).await {
        Err(RequestError::Db(DbError::NotFound)) => return Err(RedriveError::Gone(integration_id)),
        run => run?,
    };
    if waiting.is_some_and(|run| run.status == RunStatus::Queued.as_str()) {
        // It waits for a message that may be late, or was lost.
        let found = integration::find_in(&tx, Scope::Operator, integration_id).await?;
        let message = wake_up(&found, run.run_id, request.trigger, now)?;
        outbox::append_sync_request(&tx, &message, None, now, now).await?;
    }
    if !dead_letter::mark_redriven(&tx, id, run.run_id, now).await? {
        // Somebody else did it in between; theirs is the message.
        drop(tx);
        let letter = dead_letter::find(db, id).await?;
        return Ok(Redriven::Before(letter.redriven_run_id));
    }
    let entity_id = run.entity_id;
    let target = id.to_string();
    let act = Act::done(entity_id, Action::DeadLetterRedrive, &target);
    audit_log::append(&tx, &act, now).await?;
    tx.commit().await?;
    Ok(Redriven::Asked(run.run_id))
}

/// What a worker of an older version could not read may be plain to this one.
fn integration_of(letter: &DeadLetter) -> Option<IntegrationId> {
    if letter.integration_id.is_some() {
        return letter.integration_id;
    }
    let request: SyncRequested = serde_json::from_value(letter.data.clone()).ok()?;
    Some(request.integration_id)
}
