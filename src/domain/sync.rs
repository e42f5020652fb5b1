//! Integrations, runs and what they may be: statuses, counts, cursors, requests.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EntityId, IntegrationId, RunId, ServiceName, time};

/// Whose rows a caller may see. Every scoped query takes one; there is no default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: the operator.
    Operator,
    /// One entity's rows; another's do not exist.
    Entity(EntityId),
}

/// A text that is none of the words a status, mode or the like may be.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not one of: {1}")]
pub struct UnknownWord(pub String, pub &'static str);

/// How an integration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationStatus {
    /// Syncs by schedule and on request.
    Active,
    /// Switched off by its owner.
    Inactive,
    /// The consent ran out; the person has to connect again.
    Expired,
    /// The last sync failed for a reason that may pass or that the operator can mend.
    Error,
    /// The consent was withdrawn; the person has to connect again.
    Revoked,
}

impl IntegrationStatus {
    /// The word in tables and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Expired => "expired",
            Self::Error => "error",
            Self::Revoked => "revoked",
        }
    }

    /// Whether a sync may be asked for.
    pub fn may_sync(self) -> bool {
        matches!(self, Self::Active | Self::Error)
    }

    /// Whether the person has to connect the account again.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked)
    }
}

impl FromStr for IntegrationStatus {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "active" => Ok(Self::Active),
            "inactive" => Ok(Self::Inactive),
            "expired" => Ok(Self::Expired),
            "error" => Ok(Self::Error),
            "revoked" => Ok(Self::Revoked),
            _ => Err(UnknownWord(
                text.to_owned(),
                "active, inactive, expired, error, revoked",
            )),
        }
    }
}

/// Who or what asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody, through the API.
    Manual,
    /// The scheduler.
    Schedule,
    /// The account was connected just now.
    Connected,
    /// The service said that something changed.
    Push,
}

impl Trigger {
    /// The word in tables and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule => "schedule",
            Self::Connected => "connected",
            Self::Push => "push",
        }
    }
}

/// What a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// It asks the service. A worker carries it out.
    Sync,
    /// It reads a file. The process that has the file carries it out.
    Import,
}

impl RunKind {
    /// The word in tables and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Import => "import",
        }
    }
}

/// How a run finds what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything is listed, because nothing is known yet.
    Full,
    /// Only what changed since the cursor.
    Incremental,
    /// Everything is listed again, because the cursor is no longer accepted.
    Resync,
}

impl Mode {
    /// The word in tables and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Resync => "resync",
        }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Everything listed is accounted for.
    Success,
    /// Done, but some records are missing; later runs try them again.
    Partial,
    /// Ended by an error.
    Failed,
    /// Ended on request.
    Cancelled,
}

impl RunStatus {
    /// Those with which a run ends.
    pub const ENDS: [Self; 4] = [Self::Success, Self::Partial, Self::Failed, Self::Cancelled];

    /// The word in tables and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run has ended; an ended run never changes.
    pub fn is_finished(text: &str) -> bool {
        !matches!(text, "queued" | "running")
    }
}

/// Why an id was listed and yet not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Gone between being listed and being fetched.
    Deleted,
    /// In spam or trash, which stay out unless asked for.
    SpamTrash,
    /// A change to something that was never stored.
    NotStored,
    /// Larger than the service itself lets messages be.
    TooLarge,
    /// Failed in five runs.
    GaveUp,
    /// The service does not let these credentials see it.
    NotAccessible,
    /// The service failed whenever it was asked for it; later runs ask again.
    Postponed,
    /// What the service says of it cannot be understood, and there is no other way to ask.
    Malformed,
}

impl SkipReason {
    /// The key under `counts.skipped`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::SpamTrash => "spam_trash",
            Self::NotStored => "not_stored",
            Self::TooLarge => "too_large",
            Self::GaveUp => "gave_up",
            Self::NotAccessible => "not_accessible",
            Self::Postponed => "postponed",
            Self::Malformed => "malformed",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [
            Self::Deleted,
            Self::SpamTrash,
            Self::NotStored,
            Self::TooLarge,
            Self::GaveUp,
            Self::NotAccessible,
            Self::Postponed,
            Self::Malformed,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
    }
}

/// What became of one id in one run. Each id that a run lists has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A new row.
    Stored,
    /// A row that changed.
    Updated,
    /// A row that was right already.
    Unchanged,
    /// A row that was erased because the service no longer has the item.
    Deleted,
    /// Listed, deliberately not stored.
    Skipped(SkipReason),
    /// Could not be fetched; waits in the gap ledger.
    Failed,
}

impl Outcome {
    /// What an id's outcome is once `next` follows on `self` within one run: a row that is new in
    /// this run stays new when it is touched again, and a failure never hides a success.
    pub fn then(self, next: Self) -> Self {
        match (self, next) {
            (_, Self::Deleted) => Self::Deleted,
            (Self::Failed | Self::Skipped(_), _) => next,
            (Self::Stored | Self::Updated | Self::Unchanged, Self::Skipped(_) | Self::Failed) => {
                self
            }
            (Self::Stored, Self::Updated | Self::Unchanged) => Self::Stored,
            (Self::Updated, Self::Unchanged) => Self::Updated,
            (Self::Deleted, Self::Stored | Self::Updated) => next,
            (Self::Deleted, _) => Self::Deleted,
            (_, _) => next,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Updated => f.write_str("updated"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Deleted => f.write_str("deleted"),
            Self::Skipped(reason) => write!(f, "skipped.{}", reason.as_str()),
            Self::Failed => f.write_str("failed"),
        }
    }
}

impl FromStr for Outcome {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stored" => Ok(Self::Stored),
            "updated" => Ok(Self::Updated),
            "unchanged" => Ok(Self::Unchanged),
            "deleted" => Ok(Self::Deleted),
            "failed" => Ok(Self::Failed),
            _ => text
                .strip_prefix("skipped.")
                .and_then(SkipReason::from_word)
                .map(Self::Skipped)
                .ok_or_else(|| UnknownWord(text.to_owned(), "an outcome")),
        }
    }
}

/// What a run did, over distinct items: `listed` is the sum of all but `fetched`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Items that the service named, or that stand in the files of an import.
    pub listed: i64,
    /// Items that were fetched whole; in an import every message read, also one that comes twice.
    pub fetched: i64,
    /// New records.
    pub stored: i64,
    /// Records that changed.
    pub updated: i64,
    /// Records that were right already.
    pub unchanged: i64,
    /// Records erased, because the service no longer has the item.
    pub deleted: i64,
    /// Listed and deliberately not stored, by reason: `deleted` (gone before it was fetched),
    /// `spam_trash`, `not_stored` (a change to something that was never stored), `too_large`,
    /// `gave_up` (failed in five runs), `not_accessible` (these credentials may not see it),
    /// `postponed` (the service failed whenever it was asked; later runs ask again), `malformed`
    /// (what came cannot be understood).
    pub skipped: BTreeMap<String, i64>,
    /// Listed and not had; later runs try them again, but not what an import could not read.
    pub failed: i64,
}

impl Counts {
    /// Counts `outcome` for an id whose earlier outcome in this run was `before`.
    pub fn count(&mut self, before: Option<Outcome>, outcome: Outcome) {
        match before {
            Some(before) => self.add(before, -1),
            None => self.listed += 1,
        }
        self.add(outcome, 1);
    }

    fn add(&mut self, outcome: Outcome, by: i64) {
        match outcome {
            Outcome::Stored => self.stored += by,
            Outcome::Updated => self.updated += by,
            Outcome::Unchanged => self.unchanged += by,
            Outcome::Deleted => self.deleted += by,
            Outcome::Failed => self.failed += by,
            Outcome::Skipped(reason) => {
                let count = self.skipped.entry(reason.as_str().to_owned()).or_default();
                *count += by;
                if *count == 0 {
                    self.skipped.remove(reason.as_str());
                }
            }
        }
    }

    /// Whether every listed id has an outcome.
    pub fn add_up(&self) -> bool {
        let skipped: i64 = self.skipped.values().sum();
        self.listed
            == self.stored + self.updated + self.unchanged + self.deleted + skipped + self.failed
    }
}

/// Why a run ended as it did, in a stable code and in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// Stable, snake case.
    pub code: String,
    /// For people; holds no secret.
    pub detail: String,
}

/// One execution of a sync.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Run {
    /// Its id.
    pub run_id: RunId,
    /// The connected account.
    pub integration_id: IntegrationId,
    /// Its owner.
    pub entity_id: EntityId,
    /// The service.
    #[schema(value_type = ServiceName)]
    pub service_name: String,
    /// `sync`, or `import` of a file.
    pub kind: String,
    /// Who or what asked for it: somebody through the API, the schedule, the account being
    /// connected, or the service saying that something changed.
    #[schema(value_type = Trigger)]
    pub trigger: String,
    /// How it finds what is new: everything for the first time, only what changed since the last
    /// run, or everything again because the service no longer says what changed.
    #[schema(value_type = Mode)]
    pub mode: String,
    /// Where it stands. `success`: everything listed is accounted for. `partial`: some items could
    /// not be fetched, and later runs try them again.
    #[schema(value_type = RunStatus)]
    pub status: String,
    /// What it did so far.
    pub counts: Counts,
    /// Units of the service's quota that it spent.
    pub quota_units: i64,
    /// DNA-analysis events that it emitted.
    pub events: i64,
    /// When it was asked for.
    #[serde(serialize_with = "time::serialize")]
    pub requested_at: DateTime<Utc>,
    /// When a worker first took it.
    #[serde(serialize_with = "time::serialize_option")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(serialize_with = "time::serialize_option")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it ended so, where there is a reason.
    pub error: Option<RunError>,
}

impl Run {
    /// The run as it is counted once it has ended so.
    pub fn ended(self, status: RunStatus) -> EndedRun {
        let seconds = self.started_at.zip(self.finished_at);
        EndedRun {
            service_name: self.service_name,
            kind: self.kind,
            trigger: self.trigger,
            status,
            seconds: seconds.map(|(started, finished)| (finished - started).as_seconds_f64()),
        }
    }
}

/// A run that ended, as far as it is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedRun {
    /// The service.
    pub service_name: String,
    /// `sync` or `import`.
    pub kind: String,
    /// See [`Trigger`].
    pub trigger: String,
    /// How it ended.
    pub status: RunStatus,
    /// Seconds since a worker first took it; absent where none ever did.
    pub seconds: Option<f64>,
}

/// The data of `dev.nucleus.sync.requested.v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncRequested {
    /// The run to carry out; the row is the truth.
    pub run_id: RunId,
    /// The connected account.
    pub integration_id: IntegrationId,
    /// Its owner.
    pub entity_id: EntityId,
    /// The service.
    pub service_name: ServiceName,
    /// Who asked.
    pub trigger: Trigger,
    /// When.
    #[serde(serialize_with = "time::serialize")]
    pub requested_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Outcome; 7] = [
        Outcome::Stored,
        Outcome::Updated,
        Outcome::Unchanged,
        Outcome::Deleted,
        Outcome::Failed,
        Outcome::Skipped(SkipReason::Deleted),
        Outcome::Skipped(SkipReason::GaveUp),
    ];

    #[test]
    fn outcomes_read_back_as_written() {
        for outcome in ALL {
            assert_eq!(outcome.to_string().parse::<Outcome>().unwrap(), outcome);
        }
        assert!("skipped.because".parse::<Outcome>().is_err());
    }

    #[test]
    fn counts_add_up_whatever_follows_on_what() {
        for first in ALL {
            for second in ALL {
                let mut counts = Counts::default();
                counts.count(None, first);
                counts.count(Some(first), first.then(second));
                assert_eq!(counts.listed, 1, "{first} then {second}");
                assert!(counts.add_up(), "{first} then {second}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_success_is_never_hidden_by_a_failure() {
        for kept in [Outcome::Stored, Outcome::Updated, Outcome::Unchanged] {
            assert_eq!(kept.then(Outcome::Failed), kept);
        }
        assert_eq!(Outcome::Failed.then(Outcome::Stored), Outcome::Stored);
    }
}
