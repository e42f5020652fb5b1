//! The core loop of the product: claim a run, go through its pages, end it.
//!
//! The run row is the truth and the message that woke the worker up is only that. A run that is held
//! elsewhere or has ended is left alone. Whatever ends the process, the next worker goes on from
//! the last committed batch.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fail::fail_point;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{Engine, Service, SyncSettings, access, finish, hold, labels, pages, resync};
use crate::{
    connectors::{Access, Account, ConnectorError, Cursor, Listing, Stream},
    db::{
        DbError, Tx, former_integration, imported, integration,
        integration::{Integration, Named},
        outbox, quota_window,
        raw_data::{self, Stored},
        removal, standing,
        sync_cursor::{self, SyncCursor},
        sync_listing,
        sync_run::{self, Claim, Held, WorkerId},
    },
    domain::{
        RunId,
        record::Change,
        sync::{Counts, Mode, RunStatus, Scope},
    },
    traces,
};

/// Rows adopted in one transaction.
const ADOPT: u64 = 500;
/// A service that refuses each new cursor is not asked for ever.
const MAX_RESYNCS: u32 = 3;

/// How a worker's work on a run ended. In every case the message that brought it is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run is finished.
    Finished(RunStatus),
    /// The run is queued again, with a message of its own.
    Requeued,
    /// There was nothing to do: the run is over, or another worker holds it.
    NotClaimed,
    /// Another worker took the run over.
    Lost,
}

/// Why the pages were left before their end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The process is to end.
    Shutdown,
    /// Somebody wants the run to end.
    Cancelled,
    /// The run was held long enough.
    HandOver,
    /// The service, or the way to it.
    Connector(ConnectorError),
    /// The store.
    Db(DbError),
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<ConnectorError> for Stop {
    fn from(error: ConnectorError) -> Self {
        Self::Connector(error)
    }
}

/// A run in the hands of this worker.
pub(super) struct Active<'a> {
    pub(super) engine: &'a Engine,
    pub(super) service: &'a Service,
    pub(super) claim: Claim,
    pub(super) integration: Integration,
    pub(super) settings: SyncSettings,
    pub(super) access: Access,
    /// Whether this run has asked whose the credentials are, or knows it from before.
    pub(super) account_known: Arc<AtomicBool>,
    pub(super) source: outbox::Source,
    pub(super) mode: Mode,
    pub(super) counts: Counts,
    /// Whether there are rows that only an import has brought.
    pub(super) among_imported: bool,
    pub(super) held: Held,
    /// Whether a batch was committed: the run gets somewhere.
    pub(super) progressed: bool,
    /// Why the run cannot be a success although it came to its end.
    pub(super) partial: Option<&'static str>,
    pub(super) shutdown: CancellationToken,
    pub(super) cancelled: CancellationToken,
}

impl Active<'_> {
    /// Units spent by the run, earlier claims included.
    pub(super) fn quota_units(&self) -> i64 {
        self.claim.quota_units + self.access.governor.units() as i64
    }

    /// Whether the run is to be left before its next step, and why.
    pub(super) fn interrupted(&self) -> Option<Stop> {
        if self.cancelled.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        if self.shutdown.is_cancelled() {
            return Some(Stop::Shutdown);
        }
        (self.engine.clock.now() >= self.access.patient_until).then_some(Stop::HandOver)
    }
}

impl Engine {
    /// Carries a run out, as far as it can be, until `shutdown`.
    pub async fn run(
        &self,
        run: RunId,
        owner: WorkerId,
        shutdown: &CancellationToken,
    ) -> Result<Ended, DbError> {
        let Some(claim) = sync_run::claim(&self.db, run, owner, self.clock.now()).await? else {
            return Ok(Ended::NotClaimed);
        };
        fail_point!("run.claimed");
        let span = tracing::info_span!(
            "sync",
            otel.kind = "consumer",
            // A run is a trace of its own: 32 hexadecimal digits, as trace ids are.
            trace.id = %claim.run_id.0.simple(),
            sync_run.id = %claim.run_id,
            integration.id = %claim.integration_id,
        );
        traces::go_on(&span, claim.traceparent.as_deref());
        self.run_claimed(claim, shutdown).instrument(span).await
    }

    async fn run_claimed(
        &self,
        claim: Claim,
        shutdown: &CancellationToken,
    ) -> Result<Ended, DbError> {
        if claim.attempts > self.limits.max_attempts {
            return finish::park(self, &claim).await;
        }
        let cancelled = CancellationToken::new();
        let body = self.carry_out(&claim, shutdown.clone(), cancelled.clone());
        let ended = tokio::select! {
            ended = body => match ended {
                Err(DbError::Fenced) => Ok(Ended::Lost),
                other => other,
            },
            () = hold::hold(&self.db, &claim, &cancelled) => Ok(Ended::Lost),
        };
        let ended = match ended {
            Err(error @ DbError::Unavailable(_)) => {
                finish::give_back(self, &claim, shutdown, error).await
            }
            ended => ended,
        };
        if matches!(ended, Ok(Ended::Lost)) {
            tracing::warn!("another worker took the run over; this one writes nothing more");
        }
        ended
    }

    async fn carry_out(
        &self,
        claim: &Claim,
        shutdown: CancellationToken,
        cancelled: CancellationToken,
    ) -> Result<Ended, DbError> {
        let found = integration::find(&self.db, Scope::Operator, claim.integration_id).await?;
        let Some(service) = self.services.get(&found.service()?) else {
            return finish::without_connector(self, claim, &found).await;
        };
        let settings = settings_of(&found)?;
        let account_known = Arc::new(AtomicBool::new(found.account_verified));
        let known = Arc::clone(&account_known);
        let access = access::access_of_run(self, service, &found, &settings, known).await?;
        let tx = self.db.begin().await?;
        let mut active = Active {
            engine: self,
            service,
            source: outbox::Source {
                entity_id: claim.entity_id,
                integration_id: claim.integration_id,
                service_name: found.service_name.clone(),
                run_id: Some(claim.run_id),
                traceparent: traces::traceparent(&Span::current()),
            },
            mode: mode_of(&claim.mode),
            counts: claim.counts.clone(),
            among_imported: false,
            held: sync_run::fence(&tx, claim.run_id, claim.fence).await?,
            claim: claim.clone(),
            integration: found,
            settings,
            access,
            account_known,
            progressed: false,
            partial: None,
            shutdown,
            cancelled,
        };
        // Before anything is spent: a kill before the first batch must not be forgotten.
        quota_window::save(&tx, claim.integration_id, pages::spending(&active)).await?;
        tx.commit().await?;
        if active.held.cancel_requested {
            // Asked of a worker that is gone.
            active.cancelled.cancel();
        }
        tracing::info!(attempt = claim.attempts, "the run begins");
        loop {
            let stop = active.pass().await.err();
            if let Some(stop) = stop {
                return finish::stopped(active, stop).await;
            }
            if let Some(ended) = finish::finished(&mut active).await? {
                return Ok(ended);
            }
            tracing::info!("another pass was asked for");
            active.read_settings().await?;
        }
    }
}

fn settings_of(found: &Integration) -> Result<SyncSettings, DbError> {
    SyncSettings::parse(&found.sync_settings)
        .map_err(|error| DbError::Schema(format!("entity_integrations: {error}")))
}

/// Whether the other streams may do well.
fn may_concern_one_stream(error: &ConnectorError) -> bool {
    match error {
        ConnectorError::Expired(_)
        | ConnectorError::Revoked(_)
        | ConnectorError::RateLimited { .. } => false,
        ConnectorError::Unavailable(_)
        | ConnectorError::CursorExpired
        | ConnectorError::Rejected { .. } => true,
    }
}

/// The mode as the run has it from an earlier claim.
fn mode_of(word: &str) -> Mode {
    [Mode::Full, Mode::Resync]
        .into_iter()
        .find(|mode| mode.as_str() == word)
        .unwrap_or(Mode::Incremental)
}

impl Active<'_> {
    /// Takes the settings as they are now: whoever changed them asked for the pass that begins.
    async fn read_settings(&mut self) -> Result<(), DbError> {
        let id = self.claim.integration_id;
        let found = integration::find(&self.engine.db, Scope::Operator, id).await?;
        self.settings = settings_of(&found)?;
        self.access.include_spam_trash = self.settings.include_spam_trash;
        Ok(())
    }

    /// Everything there is to do now: what failed before, then one stream after the other.
    async fn pass(&mut self) -> Result<(), Stop> {
        if !self.integration.status()?.may_sync() {
            return Err(Stop::Cancelled);
        }
        let streams = self.streams().await?;
        // With other credentials than before, nothing is asked before it is known whose they are; nor where
        // a stream begins, because the account may bring records that an earlier connection of it left, of
        // which all that follows has to know.
        let is_known = self.integration.account_verified;
        let mut account = match is_known && streams.iter().all(|(_, saved)| saved.is_some()) {
            true => None,
            false => Some(self.account().await?),
        };
        let integration = self.claim.integration_id;
        self.among_imported = imported::has_any(&self.engine.db, integration).await?;
        labels::name(self).await?;
        pages::retry_gaps(self).await?;
        let mut failed = None;
        let mut others_got_somewhere = false;
        for (stream, saved) in streams {
            let progressed = std::mem::take(&mut self.progressed);
            let followed = self.follow(stream, saved, &mut account).await;
            match followed {
                Err(Stop::Connector(error)) if may_concern_one_stream(&error) => {
                    tracing::warn!(stream = stream.name, error = %error, "a stream cannot be followed");
                    failed.get_or_insert((error, self.progressed));
                }
                // There was no time for the others; what failed is told. Where there was, they go on before.
                Err(Stop::HandOver)
                    if failed.is_some() && !others_got_somewhere && !self.progressed =>
                {
                    break;
                }
                other => {
                    others_got_somewhere |= self.progressed;
                    other?;
                }
            }
            self.progressed |= progressed;
        }
        let Some((error, progressed)) = failed else {
            return Ok(());
        };
        // What the others brought says nothing of how often this one has failed.
        self.progressed = progressed;
        Err(error.into())
    }

    /// The streams with their cursors, as far as these can be gone on with: a listing that another run began
    /// cannot, and begins anew. A listing that this run began comes first, because where the next one begins,
    /// what was seen before is forgotten.
    async fn streams(&self) -> Result<Vec<(Stream, Option<SyncCursor>)>, DbError> {
        let mut streams = Vec::new();
        for &stream in self.service.connector.streams() {
            let saved =
                sync_cursor::load(&self.engine.db, self.claim.integration_id, stream.name).await?;
            let usable = saved.map(|saved| match saved.listing_run_id {
                Some(listing_run) if listing_run != self.claim.run_id => {
                    self.listing_anew(&saved.cursor_value)
                }
                _ => Some(saved),
            });
            streams.push((stream, usable.flatten()));
        }
        streams.sort_by_key(|(_, saved)| {
            let listing_run = saved.as_ref().and_then(|saved| saved.listing_run_id);
            listing_run.is_none()
        });
        Ok(streams)
    }

    /// Goes through a stream, page after page.
    async fn follow(
        &mut self,
        stream: Stream,
        saved: Option<SyncCursor>,
        account: &mut Option<Account>,
    ) -> Result<(), Stop> {
        let mut cursor = match saved {
            Some(saved) => saved.cursor_value,
            None => self.start(stream, Listing::Full, account).await?,
        };
        let mut resyncs = 0;
        loop {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            let listing = self.service.connector.listing(&cursor);
            self.mode = match listing {
                Some(Listing::Full) => Mode::Full,
                Some(Listing::Resync) => Mode::Resync,
                _ if resyncs > 0 => Mode::Resync,
                _ => self.mode,
            };
            let connector = &self.service.connector;
            let page = tokio::select! {
                page = connector.changes(&self.access, &cursor) => page,
                () = self.cancelled.cancelled() => return Err(Stop::Cancelled),
                () = self.shutdown.cancelled() => return Err(Stop::Shutdown),
            };
            let page = match page {
                Ok(page) => page,
                Err(ConnectorError::CursorExpired) if resyncs < MAX_RESYNCS => {
                    tracing::info!(
                        "the cursor is too old, or less was wanted then; everything is listed again"
                    );
                    resyncs += 1;
                    *account = None;
                    cursor = self.start(stream, Listing::Resync, account).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (next, more) = (page.next.clone(), page.more);
            if page.inventory_begins {
                let tx = resync::begin(self).await?;
                self.begin_listing(&tx, stream).await?;
                tx.commit().await?;
            }
            if page.listing_complete {
                let listing = listing.unwrap_or(Listing::Inventory);
                if !resync::complete(self, stream, listing, page).await? {
                    return Ok(());
                }
            } else {
                let ends = !more && (listing.is_some() || page.inventory_begins);
                pages::take(self, stream, page).await?;
                if ends {
                    resync::end_without_conclusion(self).await?;
                }
            }
            cursor = next;
            if !more {
                return Ok(());
            }
        }
    }

    /// Asks whose the credentials are.
    async fn account(&mut self) -> Result<Account, Stop> {
        let (cancelled, shutdown) = (self.cancelled.clone(), self.shutdown.clone());
        let asked = async {
            let account = self.service.connector.account(&self.access).await?;
            self.accept_account(&account).await?;
            Ok(account)
        };
        tokio::select! {
            account = asked => account,
            () = cancelled.cancelled() => Err(Stop::Cancelled),
            () = shutdown.cancelled() => Err(Stop::Shutdown),
        }
    }

    /// Asks where changes of a stream start, unless that was asked just now, and saves the cursor from
    /// there.
    async fn start(
        &mut self,
        stream: Stream,
        listing: Listing,
        account: &mut Option<Account>,
    ) -> Result<Cursor, Stop> {
        let account = match account {
            Some(account) => account,
            None => account.insert(self.account().await?),
        };
        // Rows that are here already were shown by a cursor that is lost, or adopted just now.
        let rows = raw_data::has_shown(&self.engine.db, self.claim.integration_id).await?;
        let listing = if rows { Listing::Resync } else { listing };
        let connector = &self.service.connector;
        let value = connector.start(account, stream, listing, self.engine.clock.now())?;
        let begun = connector.listing(&value);
        let now = self.engine.clock.now();
        let tx = self.engine.db.begin().await?;
        sync_run::fence(&tx, self.claim.run_id, self.claim.fence).await?;
        if begun.is_some_and(Listing::shows_everything) {
            self.begin_listing(&tx, stream).await?;
        }
        let cursor = super::batch::cursor_of(&self.claim, value.clone(), begun);
        let integration = self.claim.integration_id;
        sync_cursor::save(&tx, integration, stream.name, &cursor, now).await?;
        tx.commit().await?;
        Ok(value)
    }

    /// A listing of `stream` begins, and what the run has seen is forgotten. So a listing of another stream
    /// that was left in its middle, because the service failed there, begins anew: gone on with, it would
    /// show everything before to be gone.
    async fn begin_listing(&self, tx: &Tx, stream: Stream) -> Result<(), DbError> {
        let (integration, run) = (self.claim.integration_id, self.claim.run_id);
        let now = self.engine.clock.now();
        for (other, cursor) in
            sync_cursor::other_listings(tx, integration, run, stream.name).await?
        {
            match self.listing_anew(&cursor) {
                Some(anew) => sync_cursor::save(tx, integration, &other, &anew, now).await?,
                None => sync_cursor::clear(tx, integration, &other).await?,
            }
        }
        sync_listing::begin(tx, run).await
    }

    /// Where a listing that cannot be gone on with begins anew; at the stream's start if absent.
    fn listing_anew(&self, cursor: &Cursor) -> Option<SyncCursor> {
        let cursor_value = self.service.connector.anew(cursor)?;
        Some(SyncCursor {
            cursor_value,
            listing_run_id: None,
        })
    }

    /// The account must be the one whose records are here; a first one brings the records that an
    /// earlier connection of it left behind.
    async fn accept_account(&mut self, account: &Account) -> Result<(), Stop> {
        let Account { id, name, .. } = account;
        if self
            .integration
            .account
            .as_ref()
            .is_some_and(|known| known != id)
        {
            let known = self.integration.account_shown().unwrap_or_default();
            return Err(Stop::Connector(ConnectorError::Rejected {
                code: "account_mismatch",
                detail: format!(
                    "the credentials are those of {name}, but this integration holds the \
                         records of {known}: give it credentials of {known}, or connect {name} \
                         as an integration of another entity"
                ),
            }));
        }
        let now = self.engine.clock.now();
        loop {
            let tx = self.engine.db.begin().await?;
            sync_run::fence(&tx, self.claim.run_id, self.claim.fence).await?;
            if !standing::has_same_credentials(&tx, &self.integration).await? {
                drop(tx);
                tracing::info!(
                    "the credentials were replaced; the run begins again with the new ones"
                );
                return Err(Stop::HandOver);
            }
            let formers = former_integration::of_account(&tx, &self.integration, id).await?;
            let Some(&former) = formers.first() else {
                integration::set_account(&tx, self.integration.id, Named { id, name }, now).await?;
                tx.commit().await?;
                break;
            };
            let adopted = removal::adopt(&tx, former, self.integration.id, ADOPT).await?;
            self.tell_displaced(&tx, adopted.displaced).await?;
            if adopted.rows == 0 {
                former_integration::delete(&tx, former).await?;
            }
            tx.commit().await?;
        }
        self.integration.account = Some(id.clone());
        self.integration.account_name = Some(name.clone());
        self.integration.account_verified = true;
        self.account_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Tells of rows that an adoption displaced. They are not counted: no listing of the run showed them.
    async fn tell_displaced(
        &self,
        tx: &Tx,
        displaced: Vec<(String, Stored)>,
    ) -> Result<(), DbError> {
        if displaced.is_empty() {
            return Ok(());
        }
        let changed = displaced
            .into_iter()
            .map(|(id, stored)| stored.changed(&id, Change::Deleted));
        let now = self.engine.clock.now();
        let events = outbox::append_dna_events(tx, &self.source, changed.collect(), now).await?;
        let (run, units) = (self.claim.run_id, self.quota_units());
        sync_run::save_progress(tx, run, self.mode, &self.counts, units, events, true).await
    }
}
