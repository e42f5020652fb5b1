//! One batch is one transaction: records, counts, gaps, cursor and events become true together or
//! not at all. It begins with the fence, so that a worker that was taken over writes nothing.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use fail::fail_point;

use crate::{
    connectors::{Cursor, Listing},
    db::{
        Db, DbError, Tx, gap,
        imported::{self, Copy},
        outbox, quota_window,
        raw_data::{self, NewRow, Stored},
        sync_cursor::{self, FilePosition, SyncCursor},
        sync_listing::{self, Listed},
        sync_run::{self, Claim, Held},
    },
    domain::{
        RecordId,
        message_key::KEYED,
        record::{Change, ChangedRecord, LabelDelta, Record},
        sync::{Counts, Mode, Outcome, SkipReason},
    },
};

/// What is to be done about one id.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It was fetched and understood.
    Store(Box<Record>),
    /// It was read from a file and understood, with names of labels whose ids are not known.
    Import(Box<Record>, Vec<String>),
    /// It was read from a file and cannot be stored; there is nobody to ask again.
    Refuse(String),
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
    fn id(&self) -> &str {
        match self {
            Self::Store(record) | Self::Import(record, _) => &record.external_id,
            Self::Refuse(id)
            | Self::Keep(id)
            | Self::Patch(id, _)
            | Self::Gone(id)
            | Self::Skip(id, _)
            | Self::Fail(id, _)
            | Self::Labelled(id, _) => id,
        }
    }
}

/// What goes with a batch beside its entries.
pub(crate) struct Commit<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) source: &'a outbox::Source,
    pub(crate) mode: Mode,
    /// The run's counts before the batch.
    pub(crate) counts: &'a Counts,
    /// Items fetched for this batch.
    pub(crate) fetched: i64,
    /// Whether there may be rows that only an import has brought, or in an import any row: then copies
    /// are looked for.
    pub(crate) among_imported: bool,
    /// What moves on with the batch.
    pub(crate) moves: Moves<'a>,
    pub(crate) now: DateTime<Utc>,
}

/// What moves on with a batch.
pub(crate) enum Moves<'a> {
    /// A sync.
    Sync {
        /// Units spent by the run so far.
        quota_units: i64,
        /// What the governor wants remembered.
        spending: serde_json::Value,
        /// That of the stream of this name; moves with the last batch of its page.
        cursor: Option<(&'static str, SyncCursor)>,
    },
    /// The file with this fingerprint: up to there, or to its end.
    File(&'a str, Option<FilePosition>),
    /// Nothing.
    Nothing,
}

/// What a committed batch says.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The run's counts after the batch.
    pub(crate) counts: Counts,
    /// What others want of the run.
    pub(crate) held: Held,
    /// How often items got which outcome. Unlike `counts`, an item whose outcome changed counts for
    /// both.
    pub(crate) outcomes: Vec<(Outcome, u64)>,
}

/// Does what the entries say, in one transaction.
#[tracing::instrument(name = "batch", skip_all, fields(batch.entries = entries.len()))]
pub(crate) async fn commit(
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
    let quota_units = move_on(&tx, &commit).await?;
    fail_point!("batch.cursor");
    let events = outbox::append_dna_events(&tx, commit.source, changed, commit.now).await?;
    fail_point!("batch.outbox");
    sync_run::save_progress(
        &tx,
        commit.claim.run_id,
        commit.mode,
        &counts,
        quota_units,
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

/// Moves on what goes with the batch; gives the units spent so far.
async fn move_on(tx: &Tx, commit: &Commit<'_>) -> Result<i64, DbError> {
    let integration = commit.claim.integration_id;
    match &commit.moves {
        Moves::Sync {
            quota_units,
            spending,
            cursor,
        } => {
            if let Some((stream, cursor)) = cursor {
                sync_cursor::save(tx, integration, stream, cursor, commit.now).await?;
            }
            quota_window::save(tx, integration, spending.clone()).await?;
            Ok(*quota_units)
        }
        Moves::File(fingerprint, position) => {
            let position = position.as_ref();
            sync_cursor::save_file(tx, integration, fingerprint, position, commit.now).await?;
            Ok(0)
        }
        Moves::Nothing => Ok(0),
    }
}

/// The cursor as it is saved: a listing that shows everything belongs to its run.
pub(super) fn cursor_of(claim: &Claim, value: Cursor, listing: Option<Listing>) -> SyncCursor {
    SyncCursor {
        cursor_value: value,
        listing_run_id: listing
            .is_some_and(Listing::shows_everything)
            .then_some(claim.run_id),
    }
}

/// What a batch knows and gathers before it writes.
struct State<'a> {
    commit: &'a Commit<'a>,
    counts: Counts,
    outcomes: HashMap<Outcome, u64>,
    listed: HashMap<String, Listed>,
    stored: HashMap<String, Stored>,
    /// Rows by the key of their message.
    copies: HashMap<String, Vec<Copy>>,
    /// In an import: sizes of rows that only imports have brought and that the service has an id for.
    sizes: HashMap<String, i64>,
    /// Rows that get another external id.
    renamed: Vec<(RecordId, String)>,
    /// Ids that the service itself names.
    shown: Vec<String>,
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
        let stored = raw_data::lookup(tx, commit.claim.integration_id, &touched).await?;
        let (mut keys, mut shown, mut again) = (Vec::new(), Vec::new(), Vec::new());
        if commit.among_imported {
            for entry in entries {
                match entry {
                    Entry::Store(record) | Entry::Import(record, _)
                        if !stored.contains_key(&record.external_id) =>
                    {
                        keys.extend(record.message_key.clone());
                    }
                    Entry::Store(record) => shown.push(record.external_id.clone()),
                    Entry::Import(record, _) if !record.external_id.starts_with(KEYED) => {
                        again.push(record.external_id.clone());
                    }
                    Entry::Keep(id) | Entry::Patch(id, _) | Entry::Labelled(id, _) => {
                        shown.push(id.clone());
                    }
                    _ => {}
                }
            }
        }
        Ok(Self {
            commit,
            counts,
            outcomes: HashMap::new(),
            listed: sync_listing::lookup(tx, commit.claim.run_id, &ids).await?,
            copies: imported::copies(tx, commit.claim.integration_id, &keys).await?,
            sizes: imported::sizes(tx, commit.claim.integration_id, &again).await?,
            stored,
            shown,
            renamed: Vec::new(),
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
            Entry::Import(record, label_names) => self.import(*record, label_names),
            Entry::Refuse(_) => Outcome::Failed,
            Entry::Keep(_) => Outcome::Unchanged,
            Entry::Patch(_, delta) => self.patch(&id, &delta),
            Entry::Gone(_) => self.gone(&id),
            Entry::Skip(_, reason) => {
                // A file is older than the failure: the item may be wanted by now.
                if matches!(self.commit.moves, Moves::Sync { .. }) {
                    self.settled.insert(id.clone());
                }
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

    fn store(&mut self, record: Record) -> Outcome {
        let id = record.external_id.clone();
        self.settled.insert(id.clone());
        if !self.stored.contains_key(&id)
            && let Some(copy) = self.take_keyed_copy(&record)
        {
            self.put(record, copy.id, Change::Updated, false, Vec::new());
            return Outcome::Updated;
        }
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
        let row = known.map_or_else(RecordId::new, |stored| stored.id);
        self.put(record, row, change, false, Vec::new());
        outcome
    }

    /// What a file says never changes what is here: it is older. For the same reason it closes no gap: the
    /// service named the item since, and is still to say how it is now. Only where a message was cut short
    /// with the file that brought it, a file that has more of it replaces it until the service shows it.
    fn import(&mut self, record: Record, label_names: Vec<String>) -> Outcome {
        if let Some(stored) = self.stored.get(&record.external_id) {
            let before = self.sizes.get(&record.external_id).copied();
            if before.is_none() || size_of(&record) <= before {
                return seen_again(stored.deleted);
            }
            let row = stored.id;
            self.put(record, row, Change::Updated, true, label_names);
            return Outcome::Updated;
        }
        if record.external_id.starts_with(KEYED) {
            let copies = record
                .message_key
                .as_ref()
                .and_then(|key| self.copies.get(key));
            if let Some(copies) = copies.filter(|copies| !copies.is_empty()) {
                return seen_again(copies.iter().all(|copy| copy.stored.deleted));
            }
        } else if let Some(copy) = self.take_keyed_copy(&record) {
            self.put(record, copy.id, Change::Updated, true, label_names);
            return Outcome::Updated;
        }
        self.put(record, RecordId::new(), Change::Created, true, label_names);
        Outcome::Stored
    }

    /// The row of another copy of the message whose service had not named it, which is the record's
    /// row from now on.
    fn take_keyed_copy(&mut self, record: &Record) -> Option<Stored> {
        let copies = self.copies.get_mut(record.message_key.as_ref()?)?;
        let index = copies
            .iter()
            .position(|copy| copy.external_id.starts_with(KEYED) && !copy.stored.deleted)?;
        let copy = copies.swap_remove(index);
        self.renamed
            .push((copy.stored.id, record.external_id.clone()));
        Some(copy.stored)
    }

    /// Writes a record as the row `id`.
    fn put(
        &mut self,
        mut record: Record,
        id: RecordId,
        change: Change,
        imported: bool,
        label_names: Vec<String>,
    ) {
        let external_id = record.external_id.clone();
        if let Some(size) = size_of(&record)
            && imported
            && !external_id.starts_with(KEYED)
        {
            self.sizes.insert(external_id.clone(), size);
        }
        let stored = Stored {
            id,
            data_type: record.data_type.to_owned(),
            content_hash: record.content_hash.clone(),
            labels: record.labels.clone(),
            deleted: false,
        };
        let changed = stored.changed(&external_id, change);
        self.changed.insert(external_id.clone(), changed);
        self.rows.insert(
            external_id.clone(),
            NewRow {
                id,
                external_id: external_id.clone(),
                data_type: record.data_type,
                meta_data: record.stored_meta_data(),
                data_content: record.data_content,
                content_hash: record.content_hash,
                message_key: record.message_key,
                imported,
                label_names,
            },
        );
        self.stored.insert(external_id, stored);
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
        for (id, external_id) in self.renamed {
            imported::rename(tx, id, &external_id).await?;
        }
        imported::mark_shown(tx, claim.integration_id, &self.shown).await?;
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

/// Bytes of an e-mail.
fn size_of(record: &Record) -> Option<i64> {
    record.meta_data["size_bytes"].as_i64()
}

/// What becomes of an item of a file that has a row: nothing, and what was erased stays so.
fn seen_again(deleted: bool) -> Outcome {
    if deleted {
        Outcome::Skipped(SkipReason::Deleted)
    } else {
        Outcome::Unchanged
    }
}
