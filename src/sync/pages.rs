//! Taking a page: what is stored already is only noted, what is not is fetched, understood and
//! written by the batch. Fetching, understanding and writing go on beside each other.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fail::fail_point;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    batch::{self, Commit, Entry, Moves},
    outage,
    runner::{Active, Stop},
};
use crate::{
    connectors::{Change, Connector, Cursor, Fetched, Normalized, OUTAGE, Page, RawItem, Stream},
    db::{DbError, gap, raw_data},
    domain::{IntegrationId, MAX_FETCH_CONCURRENCY, clock::Stopwatch, sync::SkipReason},
    metrics::{Metrics, Step},
};

/// A batch is at most so many messages,
const BATCH_ITEMS: usize = 100;
/// or so many bytes as they were received,
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// or what came in this time.
const BATCH_AGE: Duration = Duration::from_secs(2);
/// Entries without an item are cheap; as many as a page has go into one batch.
const BATCH_NOTES: usize = 500;
/// Items that wait to be understood.
const FETCHED_AHEAD: usize = 32;
/// Items that are understood in one go, off the threads that wait for the network.
const UNDERSTOOD_TOGETHER: usize = 16;
/// Bytes of items that are in memory between being fetched and being written.
const BYTES_AHEAD: usize = 8 * 1024 * 1024;
/// Units booked ahead at each save, as items: between two saves a batch is fetched and what waits for it
/// grows by as much as it can hold: what is in flight, failures that are answered with the next success, an
/// item that waits to be taken and those before it, what is being understood, what is ready, and the rest
/// of what the batch was filled from. A process that is killed has spent no more, calls tried again
/// apart, and its successor must not be refused for it.
const RESERVED_ITEMS: usize =
    BATCH_ITEMS + MAX_FETCH_CONCURRENCY + OUTAGE + 1 + FETCHED_AHEAD + 3 * UNDERSTOOD_TOGETHER;

/// Where a stream goes on.
#[derive(Clone)]
pub(super) struct Next {
    pub(super) stream: Stream,
    pub(super) cursor: Cursor,
}

/// Takes a page; its cursor moves with its last batch.
pub(super) async fn take(active: &mut Active<'_>, stream: Stream, page: Page) -> Result<(), Stop> {
    let cursor = page.next.clone();
    let work = sort(active, page).await?;
    carry_out(active, work, Some(Next { stream, cursor })).await
}

/// Takes a page and leaves the cursor where it is: more belongs to the page.
pub(super) async fn take_without_cursor(active: &mut Active<'_>, page: Page) -> Result<(), Stop> {
    let work = sort(active, page).await?;
    carry_out(active, work, None).await
}

/// Tries ids again that failed in earlier runs, each once a run. In an outage it tries none: that
/// would use up what is tried before an id is given up.
pub(super) async fn retry_gaps(active: &mut Active<'_>) -> Result<(), Stop> {
    let mut answers = None;
    loop {
        let claim = &active.claim;
        let gaps = gap::open(
            &active.engine.db,
            claim.integration_id,
            claim.run_id,
            BATCH_NOTES as u64,
        )
        .await?;
        if gaps.is_empty() {
            return Ok(());
        }
        if let Some(stop) = active.interrupted() {
            return Err(stop);
        }
        if answers.is_none() {
            answers = Some(outage::service_answers(active).await?);
        }
        if answers == Some(Some(false)) {
            tracing::info!("the service gives nothing; what failed before is tried later");
            return Ok(());
        }
        let ids = || gaps.iter().map(|gap| gap.external_id.clone());
        let work = Work {
            fetch: ids().collect(),
            // That one is stored says nothing: it may be stored as it was before it changed.
            stored: ids().collect(),
            ..Work::default()
        };
        carry_out(active, work, None).await?;
    }
}

/// A page, sorted into what only has to be noted, what came with it and what has to be fetched.
#[derive(Default)]
struct Work {
    notes: Vec<Entry>,
    given: Vec<(String, Bytes)>,
    fetch: Vec<String>,
    /// Those to be fetched that are stored as they were.
    stored: HashSet<String>,
}

async fn sort(active: &Active<'_>, page: Page) -> Result<Work, DbError> {
    let wanted: Vec<String> = page
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Seen(id)
            | Change::Patch {
                id, or_fetch: true, ..
            } => Some(id.clone()),
            _ => None,
        })
        .collect();
    let stored =
        raw_data::stored_ids(&active.engine.db, active.claim.integration_id, &wanted).await?;
    let mut work = Work::default();
    // A page may name an id twice; it is fetched once.
    let mut fetching = HashSet::new();
    for change in page.changes {
        match change {
            Change::Patch {
                id, or_fetch: true, ..
            }
            | Change::Seen(id)
                if !stored.contains(&id) =>
            {
                if fetching.insert(id.clone()) {
                    work.fetch.push(id);
                }
            }
            Change::Changed(id) => {
                if fetching.insert(id.clone()) {
                    work.stored.insert(id.clone());
                    work.fetch.push(id);
                }
            }
            Change::Given(id, body) => work.given.push((id, body)),
            Change::Seen(id) => work.notes.push(Entry::Keep(id)),
            Change::Patch { id, delta, .. } => work.notes.push(Entry::Patch(id, delta)),
            Change::Gone(id) => work.notes.push(Entry::Gone(id)),
            Change::Unwanted(id, reason) => work.notes.push(Entry::Skip(id, reason)),
            Change::Labelled(id, label) => work.notes.push(Entry::Labelled(id, label)),
        }
    }
    Ok(work)
}

async fn carry_out(active: &mut Active<'_>, work: Work, next: Option<Next>) -> Result<(), Stop> {
    let Work {
        mut notes,
        given,
        fetch,
        stored,
    } = work;
    while notes.len() > BATCH_NOTES {
        let rest = notes.split_off(BATCH_NOTES);
        write(active, Batch::of(notes), None).await?;
        notes = rest;
    }
    let first = Batch::of(notes);
    if given.is_empty() && fetch.is_empty() {
        return write(active, first, next).await;
    }
    if !first.entries.is_empty() {
        write(active, first, None).await?;
    }
    if fetch.is_empty() {
        return fetch_and_write(active, given, fetch, next).await;
    }
    if !given.is_empty() {
        fetch_and_write(active, given, Vec::new(), None).await?;
    }
    outage::fetch_and_write(active, fetch, &stored, next).await
}

/// Moves the cursor, and nothing else.
pub(super) async fn move_cursor(active: &mut Active<'_>, next: Option<Next>) -> Result<(), Stop> {
    write(active, Batch::default(), next).await
}

/// An item on its way, with the share of memory it holds.
struct Fetching {
    id: String,
    what: Fetched,
    /// Whether a request of its own was made for it.
    asked: bool,
    permit: Option<OwnedSemaphorePermit>,
}

/// An item that is ready to be written.
struct Ready {
    entry: Entry,
    bytes: usize,
    fetched: bool,
    permits: Vec<OwnedSemaphorePermit>,
}

/// What is written next.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    fetched: i64,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    /// Entries that took no fetch.
    fn of(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }
}

/// Takes items that came whole, fetches others, and writes them by the batch; the cursor moves with the
/// last one.
pub(super) async fn fetch_and_write(
    active: &mut Active<'_>,
    given: Vec<(String, Bytes)>,
    ids: Vec<String>,
    next: Option<Next>,
) -> Result<(), Stop> {
    let connector = Arc::clone(&active.service.connector);
    let access = active.access.clone();
    let (cancelled, shutdown) = (active.cancelled.clone(), active.shutdown.clone());
    let (clock, hand_over_at) = (Arc::clone(&active.engine.clock), access.patient_until);
    let integration = active.claim.integration_id;
    let include_spam_trash = active.settings.include_spam_trash;
    let (fetched, fetched_rx) = mpsc::channel::<Fetching>(FETCHED_AHEAD);
    let (ready, ready_rx) = mpsc::channel::<Vec<Ready>>(1);

    let fetching = async move {
        // It must go when fetching ends, so that what follows ends too.
        let fetched = fetched;
        let memory = Arc::new(tokio::sync::Semaphore::new(BYTES_AHEAD));
        let given = given.into_iter().map(|(id, body)| {
            let raw = RawItem {
                id: id.clone(),
                body,
                large: None,
            };
            Ok((id, Fetched::Raw(raw), false))
        });
        let fetched_items = connector.fetch(&access, ids);
        let fetched_items = fetched_items.map_ok(|(id, what)| (id, what, true));
        let mut items = stream::iter(given).chain(fetched_items);
        let mut handing_over = false;
        loop {
            let item = tokio::select! {
                item = items.next() => item,
                () = cancelled.cancelled() => return Err(Stop::Cancelled),
                () = shutdown.cancelled() => return Err(Stop::Shutdown),
            };
            let Some(item) = item else {
                return if handing_over {
                    Err(Stop::HandOver)
                } else {
                    Ok(())
                };
            };
            let (id, what, asked) = item?;
            let permit = match &what {
                Fetched::Raw(raw) => {
                    let share = raw.body.len().clamp(1, BYTES_AHEAD) as u32;
                    Arc::clone(&memory).acquire_many_owned(share).await.ok()
                }
                _ => None,
            };
            fail_point!("run.fetched");
            // The receiver goes only when the writer has failed, and then that is what is told.
            let item = Fetching {
                id,
                what,
                asked,
                permit,
            };
            if fetched.send(item).await.is_err() {
                return Ok(());
            }
            // A slow service must not make a page outlast the hold; what was asked for is taken.
            if !handing_over && clock.now() >= hand_over_at {
                handing_over = true;
                access.leaving.cancel();
            }
        }
    };
    let connector = Arc::clone(&active.service.connector);
    let reader = Reader {
        connector,
        integration,
        include_spam_trash,
        metrics: Arc::clone(&active.engine.metrics),
    };
    let understanding = understand(reader, fetched_rx, ready);
    let writing = write_ready(active, ready_rx);
    // A failed write ends the rest at once; a failed fetch lets what came before it be written.
    let fetching = async { Ok::<_, Stop>(fetching.await) };
    let (fetched, (), last) = tokio::try_join!(fetching, understanding, writing)?;
    match fetched {
        Ok(()) => write(active, last, next).await,
        Err(stop) => {
            // What came before the end is kept.
            write(active, last, None).await?;
            Err(stop)
        }
    }
}

/// What understanding items takes.
struct Reader {
    connector: Arc<dyn Connector>,
    integration: IntegrationId,
    include_spam_trash: bool,
    metrics: Arc<Metrics>,
}

/// Turns what was fetched into entries, on a thread that may be busy, for as long as there is
/// something to come.
async fn understand(
    reader: Reader,
    mut fetched: mpsc::Receiver<Fetching>,
    ready: mpsc::Sender<Vec<Ready>>,
) -> Result<(), Stop> {
    let understanding = tokio::task::spawn_blocking(move || {
        let mut items = Vec::with_capacity(UNDERSTOOD_TOGETHER);
        while fetched.blocking_recv_many(&mut items, UNDERSTOOD_TOGETHER) > 0 {
            let watch = Stopwatch::start();
            let entries = items
                .drain(..)
                .map(|item| ready_entry(&reader, item))
                .collect();
            let service = reader.connector.service();
            reader
                .metrics
                .batch(service, Step::Understand, watch.seconds());
            fail_point!("run.parsed");
            // The receiver goes only when the writer has failed, and then that is what is told.
            if ready.blocking_send(entries).is_err() {
                return;
            }
        }
    });
    understanding
        .await
        .map_err(|error| Stop::Db(DbError::Schema(format!("a blocking task failed: {error}"))))
}

fn ready_entry(reader: &Reader, item: Fetching) -> Ready {
    let Fetching {
        id,
        what,
        asked,
        permit,
    } = item;
    let mut permits: Vec<OwnedSemaphorePermit> = permit.into_iter().collect();
    match what {
        Fetched::Raw(RawItem { body, large, .. }) => {
            let bytes = body.len();
            permits.extend(large);
            let raw = RawItem {
                id: id.clone(),
                body,
                large: None,
            };
            // A message that makes a parser panic must not keep the others from being stored.
            let normalized = catch_unwind(AssertUnwindSafe(|| {
                let Reader {
                    connector,
                    integration,
                    include_spam_trash,
                    ..
                } = reader;
                connector.normalize(&raw, *integration, *include_spam_trash)
            }));
            let entry = match normalized {
                Ok(Ok(Normalized::Record(record))) => Entry::Store(record),
                Ok(Ok(Normalized::Skipped(reason))) => Entry::Skip(id, reason),
                // What came with a page cannot be asked for by its id.
                Ok(Err(error)) if !asked => {
                    tracing::warn!(item = id, error = %error, "an item cannot be understood");
                    Entry::Skip(id, SkipReason::Malformed)
                }
                Err(_) if !asked => Entry::Skip(id, SkipReason::Malformed),
                Ok(Err(error)) => Entry::Fail(id, error.to_string()),
                Err(_) => Entry::Fail(id, "the parser panicked".to_owned()),
            };
            Ready {
                entry,
                bytes,
                fetched: asked,
                permits,
            }
        }
        Fetched::Missing => Ready {
            entry: Entry::Gone(id),
            bytes: 0,
            fetched: false,
            permits,
        },
        Fetched::Skipped(reason) => Ready {
            entry: Entry::Skip(id, reason),
            bytes: 0,
            fetched: false,
            permits,
        },
        Fetched::Withheld(detail) | Fetched::Failed(detail) => Ready {
            entry: Entry::Fail(id, detail),
            bytes: 0,
            fetched: false,
            permits,
        },
    }
}

/// Writes full batches, and gives back the last one, with which the cursor may move.
async fn write_ready(
    active: &mut Active<'_>,
    mut ready: mpsc::Receiver<Vec<Ready>>,
) -> Result<Batch, Stop> {
    let mut waiting = VecDeque::new();
    loop {
        let (batch, last) = next_batch(&mut ready, &mut waiting).await;
        if last {
            return Ok(batch);
        }
        write(active, batch, None).await?;
    }
}

/// Gathers a batch until it is full and more is there, or it is old, or nothing comes any more; says
/// whether it is the last.
async fn next_batch(
    ready: &mut mpsc::Receiver<Vec<Ready>>,
    waiting: &mut VecDeque<Ready>,
) -> (Batch, bool) {
    let mut batch = Batch::default();
    let mut bytes = 0;
    // The age only bounds what a kill may cost, so it is told by the machine's own clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "a batch's age is not on the program's clock"
    )]
    let mut too_old = pin!(tokio::time::sleep(BATCH_AGE));
    loop {
        while let Some(item) = waiting.pop_front() {
            if batch.entries.len() >= BATCH_ITEMS || bytes >= BATCH_BYTES {
                waiting.push_front(item);
                return (batch, false);
            }
            bytes += item.bytes;
            batch.fetched += i64::from(item.fetched);
            batch.permits.extend(item.permits);
            batch.entries.push(item.entry);
        }
        // What is full waits for more only where memory is not held by it.
        if bytes >= BATCH_BYTES {
            return (batch, false);
        }
        tokio::select! {
            came = ready.recv() => match came {
                Some(came) => waiting.extend(came),
                None => return (batch, true),
            },
            () = &mut too_old, if !batch.entries.is_empty() => return (batch, false),
        }
    }
}

/// What was spent, with what a kill before the next save may cost.
pub(super) fn spending(active: &Active<'_>) -> serde_json::Value {
    let connector = &active.service.connector;
    let reserve = connector.units_between_saves(RESERVED_ITEMS as u32);
    serde_json::json!(active.access.governor.spending(reserve))
}

/// Writes one batch.
async fn write(active: &mut Active<'_>, batch: Batch, next: Option<Next>) -> Result<(), Stop> {
    if batch.entries.is_empty() && next.is_none() {
        return Ok(());
    }
    // A page that says nothing is not getting anywhere: what fails after it may fail for ever.
    active.progressed |= !batch.entries.is_empty();
    let cursor = next.map(|Next { stream, cursor }| {
        let listing = active.service.connector.listing(&cursor);
        (
            stream.name,
            batch::cursor_of(&active.claim, cursor, listing),
        )
    });
    let engine = active.engine;
    let spending = spending(active);
    let watch = Stopwatch::start();
    let committed = batch::commit(
        &engine.db,
        batch.entries,
        Commit {
            claim: &active.claim,
            source: &active.source,
            mode: active.mode,
            counts: &active.counts,
            fetched: batch.fetched,
            among_imported: active.among_imported,
            moves: Moves::Sync {
                quota_units: active.quota_units(),
                spending,
                cursor,
            },
            now: engine.clock.now(),
        },
    )
    .await?;
    let service = active.service.connector.service();
    engine.metrics.batch(service, Step::Write, watch.seconds());
    engine.metrics.items(service, &committed.outcomes);
    drop(batch.permits);
    active.counts = committed.counts;
    active.held = committed.held;
    if active.held.cancel_requested {
        active.cancelled.cancel();
    }
    Ok(())
}
