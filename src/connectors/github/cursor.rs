//! Where the sync of an account stands, stream by stream.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::super::{ConnectorError, Cursor};

/// Runs in which a part may fail before it is given up.
pub(super) const MAX_TRIES: u32 = 5;

/// A second is over once so much time has passed, whatever the difference between two clocks.
const SETTLED: TimeDelta = TimeDelta::minutes(1);

/// Whether the second that GitHub names is over: times are whole seconds, and what changed in one that is
/// not over may change once more within it.
pub(super) fn is_over(second: &str, now: DateTime<Utc>) -> bool {
    DateTime::parse_from_rfc3339(second).is_ok_and(|second| now - second.to_utc() >= SETTLED)
}

/// The position in one stream; its JSON is the cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stream", rename_all = "snake_case")]
pub(super) enum Position {
    /// The account itself, as it was when this tag was given.
    Profile {
        etag: Option<String>,
    },
    Repositories(Inventory),
    Starred(Inventory),
    Gists(Inventory),
    Issues(Issues),
    Commits(Commits),
}

impl Position {
    pub(super) fn read(cursor: &Cursor) -> Result<Self, ConnectorError> {
        // What another version wrote costs that the stream is listed again.
        Self::deserialize(cursor).map_err(|_| ConnectorError::CursorExpired)
    }

    pub(super) fn write(&self) -> Result<Cursor, ConnectorError> {
        serde_json::to_value(self).map_err(|error| ConnectorError::Rejected {
            code: "cursor_not_written",
            detail: format!("the cursor cannot be written as JSON: {error}"),
        })
    }
}

/// A page of a list, as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Tells whether it has changed since.
    pub(super) etag: Option<String>,
    /// Where the page after it is.
    pub(super) next: Option<String>,
}

/// A list that is read whole whenever one of its pages changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Inventory {
    /// The pages read last, in order.
    pub(super) pages: Vec<Mark>,
    /// The listing under way.
    pub(super) listing: Option<Under>,
    /// Nothing in the list as it was last read whole had changed later, but in its last minute.
    pub(super) newest: Option<String>,
}

/// A whole listing under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Under {
    /// Where it goes on; at the beginning if absent.
    pub(super) link: Option<String>,
    /// Whether something was left out of it: then it does not show what is gone.
    pub(super) is_partial: bool,
    /// As [`Inventory::newest`], of the pages so far.
    pub(super) newest: Option<String>,
}

/// Issues and pull requests, in the order in which they changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Issues {
    /// Everything that changed before has been read.
    pub(super) since: Option<String>,
    /// Where to go on among those that changed in that very second.
    pub(super) link: Option<String>,
    /// Tells whether anything changed since then.
    pub(super) etag: Option<String>,
    /// Ids of those that changed in that second, read when it was over.
    pub(super) seen: Vec<u64>,
    /// Whose comments are to be read.
    pub(super) threads: VecDeque<Thread>,
    /// Those that failed; they are asked for again in the next pass.
    pub(super) later: VecDeque<Thread>,
    /// Whether the last page was read in this pass.
    pub(super) is_read: bool,
    /// Whether the last pass came to its end.
    pub(super) is_resting: bool,
}

/// The comments of one issue, or those on the code of a pull request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Thread {
    pub(super) owner: String,
    pub(super) repository: String,
    pub(super) number: u64,
    /// Those on the code.
    pub(super) on_code: bool,
    /// Where it goes on; at the beginning if absent.
    pub(super) link: Option<String>,
    /// How often it failed.
    pub(super) tries: u32,
}

/// Commits that the account's owner wrote, repository by repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Commits {
    /// Whose commits.
    pub(super) login: String,
    /// When each repository, by its id, was pushed to last before its commits were read.
    pub(super) pushed: BTreeMap<String, String>,
    /// The pages of the repositories as they were read last.
    pub(super) pages: Vec<Mark>,
    /// Which of them is next.
    pub(super) at: usize,
    /// Whether the last of them was read in this pass.
    pub(super) is_read: bool,
    /// Whose commits are to be read.
    pub(super) histories: VecDeque<History>,
    /// Those that failed; they are asked for again in the next pass.
    pub(super) later: VecDeque<History>,
    /// Whether the last pass came to its end.
    pub(super) is_resting: bool,
}

/// The commits of one repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) id: u64,
    pub(super) owner: String,
    pub(super) repository: String,
    /// When it was pushed to last.
    pub(super) pushed_at: String,
    /// Only those committed since; all if absent.
    pub(super) since: Option<String>,
    /// Where it goes on; at the beginning if absent.
    pub(super) link: Option<String>,
    /// How often it failed.
    pub(super) tries: u32,
}
