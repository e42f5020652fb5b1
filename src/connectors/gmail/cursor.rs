//! Where a mailbox's sync stands: the history id, and a listing or a history pass that is under way.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::super::{ConnectorError, Cursor, Listing};

/// While a listing is under way, changes are looked for so often.
const LIVE_INTERVAL: TimeDelta = TimeDelta::minutes(5);
/// How often one listing or pass begins anew because its page token is refused.
const RESTARTS: u8 = 3;

/// The cursor, as it is kept in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Changes up to this history id are known. A string, as Gmail's numbers have 64 bits.
    #[serde(with = "decimal")]
    pub(super) history_id: u64,
    /// A history pass that is under way.
    pub(super) pass: Option<Pass>,
    /// A listing that is under way.
    pub(super) listing: Option<ListingState>,
    /// When the last history pass ended, in seconds since the epoch.
    pub(super) passed_at: i64,
    /// Whether spam and trash were wanted all the way here. Where they were not, they are not known, and
    /// once they are wanted everything has to be listed again.
    #[serde(default)]
    pub(super) covers_spam_trash: bool,
}

/// One reading of the history, page by page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pass {
    /// Where the page before ended; none before the first page.
    pub(super) page_token: Option<String>,
    /// The history id of the first page, which is moved to when the pass ends. Later pages may name a
    /// later one, and what changed in between stands on no page.
    #[serde(with = "optional_decimal")]
    pub(super) then: Option<u64>,
    /// How often the pass began anew.
    pub(super) restarts: u8,
}

/// A listing of everything, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListingState {
    /// What it is for.
    pub(super) kind: Kind,
    /// What is listed now.
    pub(super) stage: Stage,
    /// Where the page before ended; none before the first page.
    pub(super) page_token: Option<String>,
    /// How often the current stage began anew.
    pub(super) restarts: u8,
}

/// See [`Listing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Full,
    Resync,
}

/// What a listing is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// All messages.
    Messages,
    /// Which labels there are; only in a resync.
    LabelNames,
    /// The messages of the first of these labels.
    Labels(Vec<String>),
}

/// What is to be asked next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    History,
    Listing,
}

impl Position {
    /// Everything is listed, and then what changed since `history_id`.
    pub(super) fn start(history_id: u64, listing: Listing, now: DateTime<Utc>) -> Self {
        let kind = match listing {
            Listing::Full | Listing::Inventory => Kind::Full,
            Listing::Resync => Kind::Resync,
        };
        Self {
            history_id,
            pass: None,
            listing: Some(ListingState {
                kind,
                stage: Stage::Messages,
                page_token: None,
                restarts: 0,
            }),
            passed_at: now.timestamp(),
            covers_spam_trash: true,
        }
    }

    pub(super) fn read(cursor: &Cursor) -> Result<Self, ConnectorError> {
        Self::deserialize(cursor).map_err(|_| ConnectorError::CursorExpired)
    }

    pub(super) fn write(&self) -> Result<Cursor, ConnectorError> {
        serde_json::to_value(self).map_err(|error| ConnectorError::Unavailable(error.to_string()))
    }

    /// What is live comes first: an unfinished pass, then a pass that is due, then the listing.
    ///
    /// Not while labels are listed: what they show replaces the labels that are stored, so that a
    /// change applied in between could be lost under what was listed before it. The pass after the
    /// listing begins before the first label was listed, and applies it again.
    pub(super) fn next(&self, now: DateTime<Utc>) -> Next {
        let Some(listing) = &self.listing else {
            return Next::History;
        };
        if self.pass.is_some() {
            return Next::History;
        }
        let age = now.timestamp().checked_sub(self.passed_at);
        // A clock that was set back makes a pass due.
        let recent = age.is_some_and(|age| (0..LIVE_INTERVAL.num_seconds()).contains(&age));
        if recent || listing.stage != Stage::Messages {
            Next::Listing
        } else {
            Next::History
        }
    }

    /// The pass has read its last page.
    pub(super) fn end_pass(&mut self, then: u64, now: DateTime<Utc>) {
        self.history_id = self.history_id.max(then);
        self.pass = None;
        self.passed_at = now.timestamp();
    }
}

impl Pass {
    /// The pass begins anew; an error if it did so too often.
    pub(super) fn restart(&mut self) -> Result<(), ConnectorError> {
        self.restarts = once_more(self.restarts, "history.list")?;
        self.page_token = None;
        self.then = None;
        Ok(())
    }
}

impl ListingState {
    /// The stage begins anew; an error if it did so too often.
    pub(super) fn restart(&mut self) -> Result<(), ConnectorError> {
        self.restarts = once_more(self.restarts, "messages.list")?;
        self.page_token = None;
        Ok(())
    }

    /// Goes on to `stage`.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.page_token = None;
        self.restarts = 0;
    }
}

fn once_more(restarts: u8, method: &str) -> Result<u8, ConnectorError> {
    if restarts >= RESTARTS {
        return Err(ConnectorError::Rejected {
            code: "page_token_refused",
            detail: format!(
                "gmail refused its own page token of {method} {} times; sync again later",
                restarts + 1
            ),
        });
    }
    Ok(restarts + 1)
}

/// A history id as text.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A history id as text, where there is one.
mod optional_decimal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|id| id.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_cursor_reads_back_as_written_with_all_its_bits() {
        let mut position = Position::start(u64::MAX, Listing::Resync, now());
        position.pass = Some(Pass {
            page_token: Some("p".into()),
            then: Some(u64::MAX - 1),
            restarts: 2,
        });
        let cursor = position.write().unwrap();
        assert_eq!(cursor["history_id"], json!("18446744073709551615"));
        assert_eq!(Position::read(&cursor).unwrap(), position);
    }

    #[test]
    fn a_cursor_that_cannot_be_read_counts_as_lost() {
        let read = Position::read(&json!({"since": 1}));
        assert_eq!(read, Err(ConnectorError::CursorExpired));
    }

    #[test]
    fn live_changes_go_before_a_listing_once_they_are_due() {
        let position = Position::start(1, Listing::Full, now());
        let later = |seconds| now() + TimeDelta::seconds(seconds);
        assert_eq!(position.next(later(0)), Next::Listing);
        assert_eq!(position.next(later(299)), Next::Listing);
        assert_eq!(position.next(later(300)), Next::History);
        assert_eq!(position.next(later(-1)), Next::History);

        let mut unfinished = position.clone();
        unfinished.pass = Some(Pass::default());
        assert_eq!(unfinished.next(later(0)), Next::History);
        let mut labels = position.clone();
        labels.listing.as_mut().unwrap().stage = Stage::LabelNames;
        assert_eq!(labels.next(later(9000)), Next::Listing);
        let mut listed = position;
        listed.listing = None;
        assert_eq!(listed.next(later(0)), Next::History);
    }

    #[test]
    fn the_history_id_never_goes_back() {
        let mut position = Position::start(10, Listing::Full, now());
        position.end_pass(9, now());
        assert_eq!(position.history_id, 10);
        position.end_pass(12, now());
        assert_eq!(position.history_id, 12);
    }
}
