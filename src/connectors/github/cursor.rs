//! Where the sync of an account stands, stream by stream.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::{ConnectorError, Cursor},
    jobs::Jobs,
    repositories::Seen,
};

/// A second is over once so much time has passed, whatever the difference between two clocks, and what
/// changed in it is shown wherever GitHub answers from.
const SETTLED: TimeDelta = TimeDelta::minutes(1);

/// The last second that is over, as GitHub writes times: in whole seconds, so that what changed in one
/// that is not over may change once more within it.
pub(super) fn last_over(now: DateTime<Utc>) -> String {
    (now - SETTLED).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Whether the second that begins then was over at `now`.
pub(super) fn is_over(second: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    second <= now - SETTLED
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
    /// The scopes with which what is stored was seen.
    pub(super) scopes: Option<String>,
}

impl Inventory {
    /// From which a listing begins anew: what is known of the items outlives one that came to no end.
    pub(super) fn anew(&self) -> Self {
        Self {
            newest: self.newest.clone(),
            scopes: self.scopes.clone(),
            ..Self::default()
        }
    }
}

/// A whole listing under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Under {
    /// Where it goes on; at the beginning if absent.
    pub(super) link: Option<String>,
    /// What changed later did so in a second that was not over when it began, and may have changed since.
    pub(super) over: String,
    /// Whether something was left out of it: then it does not show what is gone.
    pub(super) is_partial: bool,
    /// As [`Inventory::newest`], of the pages so far.
    pub(super) newest: Option<String>,
}

/// Issues and pull requests, in the order in which they changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Issues {
    /// When the pass under way began; none between two passes.
    pub(super) began: Option<DateTime<Utc>>,
    /// Whether the pass has come to the end of the list.
    pub(super) is_read: bool,
    /// Everything that changed before has been read.
    pub(super) since: Option<String>,
    /// Ids of those that changed in that very second and have been read.
    pub(super) seen: Vec<u64>,
    /// Tells whether anything changed since then.
    pub(super) etag: Option<String>,
    /// The pages from that second on, if they are being read one after the other.
    pub(super) round: Option<Round>,
    /// Those that were read in a second that was not over, and when they had changed.
    pub(super) fresh: Vec<(u64, String)>,
    /// Whether an organisation's issues are left out, because the token has not signed on there.
    pub(super) is_partial: bool,
    /// The pages of the repositories as they were when the pass began.
    pub(super) repositories: Vec<Seen>,
    /// What else is to be read.
    pub(super) jobs: Jobs<Task>,
}

/// Pages by number, from one second on. They may shift while they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// Where it goes on.
    pub(super) link: String,
    /// What changed later is in a second that was not over when the round began.
    pub(super) over: String,
    /// Whether it has shown anything of its first second that was not known.
    pub(super) is_new: bool,
}

/// A list beside the one of all issues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) owner: String,
    pub(super) repository: String,
    pub(super) what: What,
}

/// What a list is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// All issues of the repository.
    Issues,
    /// The comments of an issue or a pull request.
    Comments(Issue),
    /// The comments on the code of a pull request.
    CodeComments(Issue),
    /// The reviews of a pull request, with what each says as a whole.
    Reviews(Issue),
}

/// An issue or a pull request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Issue {
    pub(super) id: u64,
    pub(super) number: u64,
}

/// Commits that the account's owner wrote, repository by repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Commits {
    /// Whether a pass is under way.
    pub(super) is_under_way: bool,
    /// Whose commits.
    pub(super) login: String,
    /// Tells whether that has changed since.
    pub(super) etag: Option<String>,
    /// The pages of the repositories as they were when the pass began.
    pub(super) repositories: Vec<Seen>,
    /// By the id of a repository, for which push its commits were asked for.
    pub(super) pushes: BTreeMap<String, Push>,
    /// Whose commits are to be read.
    pub(super) histories: Jobs<History>,
}

/// Pushes to one repository, in seconds of the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Push {
    /// The last one after whose second its commits were asked for. None where that second was not over yet:
    /// there may have been another within it.
    pub(super) asked: Option<i64>,
    /// The last one after which that brought any: what was committed long before may come with the next
    /// as long as there is none.
    pub(super) read: Option<i64>,
}

/// The commits of one repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) id: u64,
    pub(super) owner: String,
    pub(super) repository: String,
    /// When it was pushed to last.
    pub(super) pushed_at: DateTime<Utc>,
    /// As [`Push::read`].
    pub(super) read: Option<i64>,
}
