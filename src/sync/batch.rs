//! One batch is one transaction: records, counts, gaps, cursor and events become true together or
//! not at all. It begins with the fence, so that a worker that was taken over writes nothing.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use fail::fail_point;

use crate::{
    connectors::Cursor,
    db::{
        Db, DbError, Tx, gap, outbox, quota_window,
        raw_data::{self, NewRow, Stored},
        sync_cursor::{self, SyncCursor},
        sync_listing::{self, Listed},
        sync_run::{self, Claim, Held},
    },
    domain::{
        RecordId,
        record::{Change, ChangedRecord, LabelDelta, Record},
        sync::{Counts, Mode, Outcome, SkipReason},
    },
};

/// What is to be done about one id.
#[derive(Debug)]
pub(super) enum Entry {
    /// It was fetched and understood.
    Store(Box<Record>),
    /// It is stored and was only seen again.
    Keep(String),
    /// Its labels changed, if it is stored.
    Patch(String, LabelDelta),
    /// It no longer exists.
    Gone(String),
    /// It is not wanted, or went before it could be fetched.
    Skip(String, SkipReason),
    /// It could not be had.
    Fail(String, String),
    /// A resync listed it with this label.
    Labelled(String, String),
}

impl Entry {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Store(record) => &record.external_id,
            Self::Keep(id)
            | Self::Patch(id, _)
            | Self::Gone(id)
            | Self::Skip(id, _)
            | Self::Fail(id, _)
            | Self::Labelled(id, _) => id,
        }
    }
}

/// What goes with a batch beside its entries.
pub(super) struct Commit<'a> {
    pub(super) claim: &'a Claim,
    pub(super) source: &'a outbox::Source,
    pub(super) mode: Mode,
    /// The run's counts before the batch.
    pub(super) counts: &'a Counts,
    /// Items fetched for this batch.
    pub(super) fetched: i64,
    /// Units spent by the run so far.
    pub(super) quota_units: i64,
    /// What the governor wants remembered.
    pub(super) spending: serde_json::Value,
    /// Moves with the last batch of its page.
    pub(super) cursor: Option<SyncCursor>,
    pub(super) now: DateTime<Utc>,
}

/// What a committed batch says.
#[derive(Debug)]
pub(super) struct Committed {
    /// The run's counts after the batch.
    pub(super) counts: Counts,
    /// What others want of the run.
    pub(super) held: Held,
    /// How often items got which outcome. Unlike `counts`, an item whose outcome changed counts for
    /// both.
    pub(super) outcomes: Vec<(Outcome, u64)>,
}

/// Does what the entries say, in one transaction.
pub(super) async fn commit(
    db: &Db,
    entries: Vec<Entry>,
    commit: Commit<'_>,
) -> Result<Committed, DbError> {
    let got_somewhere = !entries.is_empty();
    let tx = db.begin().await?;
    let held = sync_run::fence(&tx, commit.claim.run_id, commit.claim.fence).await?;
    let mut state = State::load(&tx, &commit, &entries).await?;
    for entry in entries {
        state.apply(&tx, entry).await?;
    }
    let outcomes = std::mem::take(&mut state.outcomes).into_iter().collect();
    let (counts, changed) = state.write(&tx).await?;
    fail_point!("batch.rows");
    if let Some(cursor) = &commit.cursor {
        sync_cursor::save(&tx, commit.claim.integration_id, cursor, commit.now).await?;
    }
    fail_point!("batch.cursor");
    quota_window::save(&tx, commit.claim.integration_id, commit.spending).await?;
    let events = outbox::append_dna_events(&tx, commit.source, changed, commit.now).await?;
    fail_point!("batch.outbox");
    sync_run::save_progress(
        &tx,
        commit.claim.run_id,
        commit.mode,
        &counts,
        commit.quota_units,
        events,
        got_somewhere,
    )
    .await?;
    fail_point!("batch.commit");
    tx.commit().await?;
    fail_point!("batch.committed");
    Ok(Committed {
        counts,
        held,
        outcomes,
    })
}

/// The cursor as it is saved: a resync's listing belongs to its run.
pub(super) fn cursor_of(claim: &Claim, value: Cursor, in_resync: bool) -> SyncCursor {
    SyncCursor {
        cursor_value: value,
        listing_run_id: in_resync.then_some(claim.run_id),
    }
}

/// What a batch knows and gathers before it writes.
struct State<'a> {
    commit: &'a Commit<'a>,
    counts: Counts,
    outcomes: HashMap<Outcome, u64>,
    listed: HashMap<String, Listed>,
    stored: HashMap<String, Stored>,
    rows: HashMap<String, NewRow>,
    relabelled: HashMap<String, (RecordId, Vec<String>)>,
    erased: Vec<RecordId>,
    changed: HashMap<String, ChangedRecord>,
    /// Ids that were had or are known to be gone, whose gaps are closed.
    settled: HashSet<String>,
}

impl<'a> State<'a> {
    async fn load(tx: &Tx, commit: &'a Commit<'a>, entries: &[Entry]) -> Result<Self, DbError> {
        let ids: Vec<String> = entries
            .iter()
            .map(|entry| entry.id().to_owned())
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let touched: Vec<String> = entries
            .iter()
            .filter(|entry| !matches!(entry, Entry::Keep(_)))
            .map(|entry| entry.id().to_owned())
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let mut counts = commit.counts.clone();
        counts.fetched += commit.fetched;
        Ok(Self {
            commit,
            counts,
            outcomes: HashMap::new(),
            listed: sync_listing::lookup(tx, commit.claim.run_id, &ids).await?,
            stored: raw_data::lookup(tx, commit.claim.integration_id, &touched).await?,
            rows: HashMap::new(),
            relabelled: HashMap::new(),
            erased: Vec::new(),
            changed: HashMap::new(),
            settled: HashSet::new(),
        })
    }

    async fn apply(&mut self, tx: &Tx, entry: Entry) -> Result<(), DbError> {
        let id = entry.id().to_owned();
        let outcome = match entry {
            Entry::Store(record) => self.store(*record),
            Entry::Keep(_) => Outcome::Unchanged,
            Entry::Patch(_, delta) => self.patch(&id, &delta),
            Entry::Gone(_) => self.gone(&id),
            Entry::Skip(_, reason) => {
                self.settled.insert(id.clone());
                Outcome::Skipped(reason)
            }
            Entry::Fail(_, detail) => self.fail(tx, &id, &detail).await?,
            Entry::Labelled(_, label) => {
                self.labelled(id, label);
                return Ok(());
            }
        };
        self.settle(id, outcome);
        Ok(())
    }

    fn settle(&mut self, id: String, outcome: Outcome) {
        let entry = self.listed.entry(id).or_default();
        let after = entry.outcome.map_or(outcome, |before| before.then(outcome));
        self.counts.count(entry.outcome, after);
        if entry.outcome != Some(after) {
            *self.outcomes.entry(after).or_default() += 1;
        }
        entry.outcome = Some(after);
    }

    fn store(&mut self, mut record: Record) -> Outcome {
        let id = record.external_id.clone();
        self.settled.insert(id.clone());
        let known = self.stored.get(&id);
        let live = known.filter(|stored| !stored.deleted);
        let same = |live: &Stored| {
            live.content_hash == record.content_hash && live.labels == record.labels
        };
        if live.is_some_and(same) {
            return Outcome::Unchanged;
        }
        let (outcome, change) = match live {
            Some(_) => (Outcome::Updated, Change::Updated),
            None => (Outcome::Stored, Change::Created),
        };
        let stored = Stored {
            id: known.map_or_else(RecordId::new, |stored| stored.id),
            data_type: record.data_type.to_owned(),
            content_hash: record.content_hash.clone(),
            labels: record.labels.clone(),
            deleted: false,
        };
        self.changed.insert(id.clone(), stored.changed(&id, change));
        self.rows.insert(
            id.clone(),
            NewRow {
                id: stored.id,
                external_id: id.clone(),
                data_type: record.data_type,
                meta_data: record.stored_meta_data(),
                data_content: record.data_content,
                content_hash: record.content_hash,
            },
        );
        self.stored.insert(id, stored);
        outcome
    }

    fn patch(&mut self, id: &str, delta: &LabelDelta) -> Outcome {
        let Some(stored) = self.stored.get_mut(id).filter(|stored| !stored.deleted) else {
            return Outcome::Skipped(SkipReason::NotStored);
        };
        if !delta.apply(&mut stored.labels) {
            return Outcome::Unchanged;
        }
        if let Some(row) = self.rows.get_mut(id) {
            // Stored by this very batch: the row is written with its labels, and is still new.
            row.meta_data["labels"] = serde_json::json!(stored.labels);
            return Outcome::Updated;
        }
        self.relabelled
            .insert(id.to_owned(), (stored.id, stored.labels.clone()));
        self.changed
            .insert(id.to_owned(), stored.changed(id, Change::Updated));
        Outcome::Updated
    }

    fn gone(&mut self, id: &str) -> Outcome {
        self.settled.insert(id.to_owned());
        let Some(stored) = self.stored.get_mut(id).filter(|stored| !stored.deleted) else {
            return Outcome::Skipped(SkipReason::Deleted);
        };
        stored.deleted = true;
        self.relabelled.remove(id);
        self.erased.push(stored.id);
        self.changed
            .insert(id.to_owned(), stored.changed(id, Change::Deleted));
        Outcome::Deleted
    }

    async fn fail(&mut self, tx: &Tx, id: &str, detail: &str) -> Result<Outcome, DbError> {
        let claim = self.commit.claim;
        let given_up = gap::record(
            tx,
            claim.integration_id,
            claim.run_id,
            id,
            detail,
            self.commit.now,
        )
        .await?;
        Ok(if given_up {
            Outcome::Skipped(SkipReason::GaveUp)
        } else {
            Outcome::Failed
        })
    }

    fn labelled(&mut self, id: String, label: String) {
        let stored = self.stored.get(&id).is_some_and(|stored| !stored.deleted);
        let entry = self.listed.entry(id.clone()).or_default();
        if !entry.labels.contains(&label) {
            entry.labels.push(label);
        }
        if entry.outcome.is_none() {
            // Not among what is wanted: in spam or trash, or newer than the listing, and then
            // what changed since will bring it.
            let outcome = if stored {
                Outcome::Unchanged
            } else {
                Outcome::Skipped(SkipReason::NotStored)
            };
            self.settle(id, outcome);
        }
    }

    async fn write(self, tx: &Tx) -> Result<(Counts, Vec<ChangedRecord>), DbError> {
        let claim = self.commit.claim;
        let now = self.commit.now;
        let rows = self.rows.into_values().collect();
        raw_data::upsert(tx, claim.entity_id, claim.integration_id, rows, now).await?;
        for (id, labels) in self.relabelled.into_values() {
            raw_data::set_labels(tx, id, &labels, now).await?;
        }
        raw_data::erase(tx, claim.integration_id, &self.erased, now).await?;
        let settled: Vec<String> = self.settled.into_iter().collect();
        gap::close(tx, claim.integration_id, &settled).await?;
        sync_listing::save(tx, claim.run_id, &self.listed).await?;
        Ok((self.counts, self.changed.into_values().collect()))
    }
}
