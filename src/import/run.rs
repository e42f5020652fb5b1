//! The run of an import: it waits for its turn, reads place after place, and ends. Reading,
//! understanding and writing go on beside each other; what is in memory is bounded.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fail::fail_point;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ImportError, Input, Place, Watcher, eml, files,
    mbox::{MboxError, Reader},
    pipeline::{self, Chunk, ReadError, Ready},
    record::Context,
};
use crate::{
    db::{
        DbError,
        audit_log::{self, Act},
        import_run, imported, integration,
        integration::Integration,
        outbox, raw_data,
        sync_cursor::{self, FilePosition},
        sync_run::{self, Claim, WorkerId},
    },
    domain::{
        IntegrationId, RunId,
        audit::Action,
        clock::Stopwatch,
        sync::{Counts, Mode, Run, RunError, RunStatus, Scope, Trigger},
    },
    metrics::Step,
    sync::{
        self, Engine, SyncSettings,
        batch::{self, Commit, Entry, Moves},
        hold,
    },
};

/// A batch is at most so many messages, but for the chunk that fills it,
const BATCH_ITEMS: usize = 100;
/// or so many bytes as they stand in the file,
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// or what came in this time.
const BATCH_AGE: Duration = Duration::from_secs(2);
/// How often an import that waits looks whether it is its turn.
const LOOK: Duration = Duration::from_secs(1);
/// Rows that get a key in one transaction.
const KEYS: u64 = 200;
/// Longest message that is imported, in bytes.
const MAX_BYTES: usize = email::MAX_RAW_BYTES;

/// What an import needs.
pub struct Import<'a> {
    /// The store, the time, the counters.
    pub engine: &'a Engine,
    /// Cancelled when the process is to end: the batch under way is finished.
    pub shutdown: CancellationToken,
    /// Who watches.
    pub watcher: &'a dyn Watcher,
}

/// Imports `input` into an integration and gives the run as it ended. Whatever can be known to be
/// wrong is an error before the run begins.
pub async fn import(
    import: &Import<'_>,
    id: IntegrationId,
    input: Input,
) -> Result<Run, ImportError> {
    let db = &import.engine.db;
    let found = match integration::find(db, Scope::Operator, id).await {
        Err(DbError::NotFound) => return Err(ImportError::UnknownIntegration),
        found => found?,
    };
    let service = found.service()?;
    if !service.gives_mail() {
        return Err(ImportError::NoMail(service));
    }
    let sources = blocking(move || look(input)).await??;
    while fill_keys(import.engine, id).await? == KEYS {}
    let claim = begin(import, &found).await?;
    fail_point!("import.begun");
    let settings = SyncSettings::parse(&found.sync_settings)
        .map_err(|error| DbError::Schema(format!("entity_integrations: {error}")))?;
    let cancelled = CancellationToken::new();
    let run = claim.run_id;
    let hold = hold::hold(db, &claim, &cancelled);
    let active = Active {
        import,
        context: Context {
            integration: id,
            include_spam_trash: settings.include_spam_trash,
        },
        source: outbox::Source {
            entity_id: found.entity_id,
            integration_id: id,
            service_name: found.service_name.clone(),
            run_id: Some(run),
            traceparent: None,
        },
        integration: &found,
        counts: claim.counts.clone(),
        among_imported: false,
        claim: &claim,
        cancelled: cancelled.clone(),
    };
    let ended = tokio::select! {
        ended = active.carry_out(sources) => ended,
        () = hold => Err(DbError::Fenced),
    };
    match ended {
        Err(DbError::Fenced) => Err(ImportError::Lost),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(sync_run::find(db, Scope::Operator, run).await?),
    }
}

/// What is to be read, after a look at it.
enum Source {
    Mbox(Place),
    Folder { name: String, files: Vec<PathBuf> },
}

/// Finds out what can be known beforehand. What can be read only once is looked at when its turn
/// comes.
fn look(input: Input) -> Result<Vec<Source>, ImportError> {
    match input {
        Input::Mbox(places) => {
            for place in &places {
                let read = |source| ImportError::Read {
                    name: place.name(),
                    source,
                };
                let Place::File(path) = place else { continue };
                let about = path.metadata().map_err(read)?;
                if about.is_file() || about.is_dir() {
                    let opened = files::open(place).map_err(read)?;
                    Reader::new(opened.input, MAX_BYTES).map_err(|error| refused(place, error))?;
                }
            }
            Ok(places.into_iter().map(Source::Mbox).collect())
        }
        Input::Folder(folder) => {
            let name = folder.display().to_string();
            let files = eml::find(&folder).map_err(|source| ImportError::Read {
                name: name.clone(),
                source,
            })?;
            Ok(vec![Source::Folder { name, files }])
        }
    }
}

fn refused(place: &Place, error: MboxError) -> ImportError {
    let name = place.name();
    match error {
        MboxError::Read(source) => ImportError::Read { name, source },
        source => ImportError::NotMbox { name, source },
    }
}

/// Gives rows of an older version what tells copies.
async fn fill_keys(engine: &Engine, id: IntegrationId) -> Result<u64, DbError> {
    let tx = engine.db.begin().await?;
    let filled = imported::fill_message_keys(&tx, id, KEYS).await?;
    tx.commit().await?;
    Ok(filled)
}

/// Makes the run, as soon as no other of the integration is active.
async fn begin(import: &Import<'_>, found: &Integration) -> Result<Claim, ImportError> {
    let engine = import.engine;
    let run = RunId::new();
    let requested_at = engine.clock.now();
    let mut waited_for = None;
    loop {
        let tx = engine.db.begin().await?;
        let new = sync_run::NewRun {
            id: run,
            integration_id: found.id,
            entity_id: found.entity_id,
            service_name: found.service_name.clone(),
            trigger: Trigger::Manual,
            mode: Mode::Full,
            requested_at,
            confirm_mass_deletion: false,
            traceparent: None,
        };
        match import_run::begin(&tx, &new, WorkerId::new(), engine.clock.now()).await {
            Ok(claim) => {
                let target = run.to_string();
                let act = Act::done(found.entity_id, Action::ImportBegin, &target);
                audit_log::append(&tx, &act, engine.clock.now()).await?;
                tx.commit().await?;
                return Ok(claim);
            }
            Err(DbError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        let active = sync_run::active(&tx, found.id).await?;
        drop(tx);
        if let Some(active) = active
            && waited_for.replace(active.run_id) != Some(active.run_id)
        {
            import.watcher.waits_for(&active);
        }
        // It may be held by a process that is gone, and nobody else may be there to find out.
        sync::free_abandoned(engine, false).await?;
        tokio::select! {
            () = engine.clock.sleep(LOOK) => {}
            () = import.shutdown.cancelled() => return Err(ImportError::NotBegun),
        }
    }
}

/// Why a place was left before its end.
enum Stop {
    Shutdown,
    Cancelled,
    Unreadable(RunError),
    Db(DbError),
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<ImportError> for Stop {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Db(error) => Self::Db(error),
            other => Self::Unreadable(unreadable(crate::domain::errors::chain(&other))),
        }
    }
}

fn unreadable(detail: String) -> RunError {
    RunError {
        code: "import_unreadable".to_owned(),
        detail,
    }
}

/// An import under way.
struct Active<'a> {
    import: &'a Import<'a>,
    context: Context,
    source: outbox::Source,
    integration: &'a Integration,
    claim: &'a Claim,
    counts: Counts,
    among_imported: bool,
    cancelled: CancellationToken,
}

impl Active<'_> {
    async fn carry_out(mut self, sources: Vec<Source>) -> Result<(), DbError> {
        let mut stop = None;
        for source in sources {
            if let Err(stopped) = self.take(source).await {
                stop = Some(stopped);
                break;
            }
        }
        let (status, error) = match stop {
            Some(Stop::Db(error)) => return Err(error),
            Some(Stop::Shutdown | Stop::Cancelled) => (RunStatus::Cancelled, None),
            Some(Stop::Unreadable(error)) => (RunStatus::Failed, Some(error)),
            None if !self.counts.add_up() => {
                let detail = format!("listed and accounted for differ: {:?}", self.counts);
                let code = "counts_do_not_add_up".to_owned();
                (RunStatus::Failed, Some(RunError { code, detail }))
            }
            None if self.counts.failed > 0 => {
                let detail = format!("{} messages could not be imported", self.counts.failed);
                let code = "messages_failed".to_owned();
                (RunStatus::Partial, Some(RunError { code, detail }))
            }
            None => (RunStatus::Success, None),
        };
        self.end(status, error).await
    }

    async fn take(&mut self, source: Source) -> Result<(), Stop> {
        let engine = self.import.engine;
        // Whether copies can be among what is stored; within one file they have one id.
        self.among_imported = raw_data::has_any(&engine.db, self.context.integration).await?;
        match source {
            Source::Mbox(place) => self.take_mbox(place).await,
            Source::Folder { name, files } => {
                self.import.watcher.begins(&name, Some(files.len() as u64));
                let read = Arc::new(AtomicU64::new(0));
                let progress = Arc::clone(&read);
                let reading = move |chunks: &pipeline::Chunks| {
                    pipeline::read_files(&files, &progress, chunks)
                };
                match self.pass(reading, None, &read).await? {
                    Ok(()) => Ok(()),
                    Err(error) => Err(Stop::Unreadable(unreadable(error.to_string()))),
                }
            }
        }
    }

    async fn take_mbox(&mut self, place: Place) -> Result<(), Stop> {
        let mut from_the_start = false;
        loop {
            let opening = place.clone();
            let opened = blocking(move || files::open(&opening)).await?;
            let opened = opened.map_err(|source| {
                let name = place.name();
                Stop::from(ImportError::Read { name, source })
            })?;
            let name = place.name();
            self.import.watcher.begins(&name, opened.size);
            let engine = self.import.engine;
            let integration = self.context.integration;
            let fingerprint = opened.fingerprint.clone();
            let saved = sync_cursor::load_file(&engine.db, integration, &fingerprint).await?;
            let resume = saved.filter(|_| !from_the_start);
            if let Some(position) = &resume {
                self.import.watcher.goes_on_from(position.offset);
            }
            let read = Arc::clone(&opened.read);
            let reading =
                move |chunks: &pipeline::Chunks| pipeline::read_mbox(opened.input, resume, chunks);
            match self.pass(reading, Some(&fingerprint), &read).await? {
                Ok(()) => {
                    self.write(Batch::default(), Moves::File(&fingerprint, None), &read)
                        .await?;
                    return Ok(());
                }
                // A file of the same beginning; nothing of it was imported in this pass.
                Err(ReadError::OtherFile) if place.is_file() => {
                    tracing::info!(
                        file = name,
                        "the file has changed: it is read from its start"
                    );
                    from_the_start = true;
                }
                Err(ReadError::OtherFile) => {
                    self.write(Batch::default(), Moves::File(&fingerprint, None), &read)
                        .await?;
                    let detail = format!(
                        "{name} began like what was interrupted before, but is another: the same \
                         command imports it from its start"
                    );
                    return Err(Stop::Unreadable(unreadable(detail)));
                }
                Err(ReadError::Mbox(error)) => return Err(refused(&place, error).into()),
            }
        }
    }

    /// Reads one place to its end. The inner error is the reader's; what came before it is written.
    async fn pass(
        &mut self,
        reading: impl FnOnce(&pipeline::Chunks) -> Result<(), ReadError> + Send + 'static,
        fingerprint: Option<&str>,
        read: &AtomicU64,
    ) -> Result<Result<(), ReadError>, Stop> {
        let (chunks, chunks_rx) = mpsc::channel::<Chunk>(1);
        let (ready, ready_rx) = mpsc::channel::<Ready>(1);
        let chunks = pipeline::Chunks::new(chunks);
        let reading = async {
            let read = blocking(move || reading(&chunks)).await?;
            Ok::<_, Stop>(read)
        };
        let context = self.context;
        let understanding = async {
            pipeline::understand(context, chunks_rx, ready)
                .await
                .map_err(|error| Stop::from(ImportError::Panicked(error)))
        };
        let writing = self.write_ready(ready_rx, fingerprint, read);
        let (read, (), ()) = tokio::try_join!(reading, understanding, writing)?;
        Ok(read)
    }

    /// Writes what is ready, batch by batch.
    #[expect(
        clippy::disallowed_methods,
        reason = "a batch's age only bounds what a kill may cost, on the machine's clock"
    )]
    async fn write_ready(
        &mut self,
        mut ready: mpsc::Receiver<Ready>,
        fingerprint: Option<&str>,
        read: &AtomicU64,
    ) -> Result<(), Stop> {
        let (shutdown, cancelled) = (self.import.shutdown.clone(), self.cancelled.clone());
        let mut stop = None;
        while stop.is_none() {
            let mut batch = Batch::default();
            let mut too_old = std::pin::pin!(tokio::time::sleep(BATCH_AGE));
            let mut more = true;
            while batch.entries.len() < BATCH_ITEMS && batch.bytes < BATCH_BYTES {
                tokio::select! {
                    came = ready.recv() => match came {
                        Some(came) => batch.add(came),
                        None => { more = false; break; }
                    },
                    () = &mut too_old, if !batch.entries.is_empty() => break,
                    () = shutdown.cancelled() => { stop = Some(Stop::Shutdown); break; }
                    () = cancelled.cancelled() => { stop = Some(Stop::Cancelled); break; }
                }
            }
            if !batch.entries.is_empty() || batch.position.is_some() {
                let position = batch.position.take();
                let moves = match fingerprint.zip(position) {
                    Some((fingerprint, position)) => Moves::File(fingerprint, Some(position)),
                    None => Moves::Nothing,
                };
                self.write(batch, moves, read).await?;
            }
            if !more {
                return Ok(());
            }
        }
        stop.map_or(Ok(()), Err)
    }

    async fn write(
        &mut self,
        batch: Batch,
        moves: Moves<'_>,
        read: &AtomicU64,
    ) -> Result<(), DbError> {
        let engine = self.import.engine;
        let watch = Stopwatch::start();
        let commit = Commit {
            claim: self.claim,
            source: &self.source,
            mode: Mode::Full,
            counts: &self.counts,
            fetched: batch.read,
            among_imported: self.among_imported,
            moves,
            now: engine.clock.now(),
        };
        let committed = batch::commit(&engine.db, batch.entries, commit).await?;
        let service = self.integration.service()?;
        engine.metrics.batch(service, Step::Write, watch.seconds());
        engine.metrics.items(service, &committed.outcomes);
        self.counts = committed.counts;
        if committed.held.cancel_requested {
            self.cancelled.cancel();
        }
        let bytes = read.load(Ordering::Relaxed);
        self.import.watcher.moved(bytes, &self.counts);
        Ok(())
    }

    /// Ends the run; a sync that was asked for meanwhile follows.
    async fn end(&self, status: RunStatus, error: Option<RunError>) -> Result<(), DbError> {
        let engine = self.import.engine;
        let now = engine.clock.now();
        let tx = engine.db.begin().await?;
        let held = sync_run::fence(&tx, self.claim.run_id, self.claim.fence).await?;
        let run = self.claim.run_id;
        let ended = sync_run::finish(&tx, run, status, 0, error.as_ref(), now).await?;
        if held.again_at.is_some() {
            let confirm = held.confirm_mass_deletion;
            sync::follow(&tx, self.context.integration, confirm, now).await?;
        }
        fail_point!("import.end");
        tx.commit().await?;
        fail_point!("import.ended");
        if let Some(ended) = ended {
            engine.metrics.run_ended(ended);
        }
        Ok(())
    }
}

/// What is written next.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    /// Messages read from the file.
    read: i64,
    position: Option<FilePosition>,
    permits: Vec<tokio::sync::OwnedSemaphorePermit>,
}

impl Batch {
    fn add(&mut self, ready: Ready) {
        self.bytes += ready.bytes;
        self.read += ready.entries.len() as i64;
        self.entries.extend(ready.entries);
        self.position = ready.position.or(self.position.take());
        self.permits.extend(ready.permit);
    }
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImportError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ImportError::Panicked(error.to_string()))
}
