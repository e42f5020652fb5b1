//! What a broker delivers: sync requests, ticks of the clock, and requests that the broker gave up.
//!
//! A message may come twice, late, out of order, after it was acknowledged, or not at all, and it may
//! be anything. Whatever cannot be understood is parked with its reason and never comes again.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{relay, scheduler};
use crate::{
    app::App,
    db::{
        DbError,
        dead_letter::{self, DeadLetter},
        relay as handed_over,
        sync_run::{self, WorkerId},
    },
    domain::{
        EventId, errors,
        event::{
            SYNC_DEAD_LETTER, SYNC_DEAD_LETTER_READER, SYNC_REQUESTED_V1, SYNC_REQUESTS,
            SYNC_SCHEDULER, SYNC_WORKER,
        },
        sync::{RunStatus, Scope, SyncRequested},
    },
    queue::{Broker, Delivery},
    sync::Ended,
};

/// Of a body that cannot be understood so many bytes are kept.
const KEPT_BYTES: usize = 48 * 1024;
/// A column's width: of a type that nobody knows so many characters are kept.
const TYPE_CHARS: usize = 100;
/// What Pub/Sub adds to a message that it moves to a dead-letter topic:
/// <https://cloud.google.com/pubsub/docs/handling-failures>
const DELIVERIES_BEFORE: &str = "CloudPubSubDeadLetterSourceDeliveryCount";
const SUBSCRIPTION_BEFORE: &str = "CloudPubSubDeadLetterSourceSubscription";

/// The subscriptions of a worker.
#[derive(Debug, Clone, Copy)]
enum Source {
    Requests,
    Ticks,
    GivenUp,
}

impl Source {
    fn subscription(self) -> &'static str {
        match self {
            Self::Requests => SYNC_WORKER,
            Self::Ticks => SYNC_SCHEDULER,
            Self::GivenUp => SYNC_DEAD_LETTER_READER,
        }
    }
}

/// Takes deliveries until `shutdown`, then finishes the batches under way.
pub(super) async fn work(app: Arc<App>, broker: &dyn Broker, shutdown: CancellationToken) {
    let owner = WorkerId::new();
    tracing::info!(worker.id = %owner, "the worker takes sync requests from the broker");
    tokio::join!(
        take(&app, broker, owner, Source::Requests, &shutdown),
        take(&app, broker, owner, Source::Ticks, &shutdown),
        take(&app, broker, owner, Source::GivenUp, &shutdown),
    );
}

/// Takes from one subscription: as many sync requests at a time as the worker may run, and one of
/// the others.
async fn take(
    app: &Arc<App>,
    broker: &dyn Broker,
    owner: WorkerId,
    source: Source,
    shutdown: &CancellationToken,
) {
    let most = match source {
        Source::Requests => app.max_concurrent_runs,
        Source::Ticks | Source::GivenUp => 1,
    };
    let name = source.subscription();
    let mut deliveries = broker.subscribe(name, most, shutdown.clone(), &app.tasks);
    let places = Arc::new(Semaphore::new(most));
    let tasks = TaskTracker::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let delivery = tokio::select! {
            delivery = deliveries.recv() => delivery,
            () = shutdown.cancelled() => break,
        };
        let Some(delivery) = delivery else { break };
        let (app, shutdown) = (Arc::clone(app), shutdown.clone());
        tasks.spawn(async move {
            handle(&app, owner, source, delivery, &shutdown).await;
            drop(place);
        });
    }
    // What waits here is given back to the broker at once.
    drop(deliveries);
    tasks.close();
    tasks.wait().await;
}

/// Relays what is due and takes it, one after the other, until nothing is left that is due.
pub(super) async fn drain(
    app: &App,
    broker: &dyn Broker,
    shutdown: &CancellationToken,
) -> Result<usize, DbError> {
    let owner = WorkerId::new();
    let mut delivered = 0;
    let mut deliveries = None;
    while !shutdown.is_cancelled() {
        let relayed = relay::pass(app, broker, shutdown).await?;
        if relayed.failed > 0 {
            return Err(DbError::Schema("the broker takes no messages".to_owned()));
        }
        if handed_over::count_handed_over(&app.engine.db).await? == 0 {
            break;
        }
        let receiver = deliveries.get_or_insert_with(|| {
            let never = CancellationToken::new();
            broker.subscribe(SYNC_WORKER, 1, never, &app.tasks)
        });
        let Some(delivery) = receiver.recv().await else {
            break;
        };
        handle(app, owner, Source::Requests, delivery, shutdown).await;
        delivered += 1;
    }
    relay::pass(app, broker, &CancellationToken::new()).await?;
    Ok(delivered)
}

async fn handle(
    app: &App,
    owner: WorkerId,
    source: Source,
    delivery: Delivery,
    shutdown: &CancellationToken,
) {
    match source {
        Source::Requests => request(app, owner, delivery, shutdown).await,
        Source::Ticks => tick(app, delivery).await,
        Source::GivenUp => given_up(app, delivery).await,
    }
}

/// Carries a sync request out.
async fn request(app: &App, owner: WorkerId, delivery: Delivery, shutdown: &CancellationToken) {
    let requested = match decode(&delivery) {
        Ok(requested) => requested,
        Err(reason) => return park(app, delivery, SYNC_REQUESTS, reason).await,
    };
    let ended = match app.engine.run(requested.run_id, owner, shutdown).await {
        Ok(ended) => ended,
        // Given back: it comes again. The run itself is freed when its lease is over.
        Err(error) => {
            tracing::error!(
                sync_run.id = %requested.run_id,
                integration.id = %requested.integration_id,
                error = errors::chain(&error),
                "the run was left to the next worker"
            );
            return;
        }
    };
    fail::fail_point!("worker.ack");
    if let Some(id) = event_id(&delivery)
        && let Err(error) = handed_over::done(&app.engine.db, id).await
    {
        tracing::warn!(
            error = errors::chain(&error),
            "a message will be published once more"
        );
    }
    delivery.ack();
    if ended == Ended::Requeued {
        app.wake.notify_one();
    }
}

/// Makes the scheduler's pass. A tick that fails comes again.
async fn tick(app: &App, delivery: Delivery) {
    match scheduler::keep_house(app).await {
        Ok(report) => {
            tracing::info!(
                requested = report.requested,
                freed = report.freed,
                "the scheduler's pass is done"
            );
            delivery.ack();
        }
        Err(error) => {
            tracing::error!(error = errors::chain(&error), "the scheduler's pass failed");
        }
    }
}

/// Keeps what the broker gave up, unless its run is over: then it was a wake-up too many. A run that waits
/// still gets another message in time.
async fn given_up(app: &App, delivery: Delivery) {
    match is_over(app, decode(&delivery).ok()).await {
        Ok(true) => {
            tracing::info!("the broker gave up a request whose run is over");
            return delivery.ack();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::error!(
                error = errors::chain(&error),
                "what the broker gave up could not be looked at, and comes again"
            );
            return;
        }
    }
    let deliveries = delivery.attribute(DELIVERIES_BEFORE).unwrap_or("many");
    let subscription = delivery
        .attribute(SUBSCRIPTION_BEFORE)
        .unwrap_or(SYNC_WORKER);
    let reason = format!(
        "the broker gave it up after {deliveries} deliveries by {subscription}: no worker has \
         acknowledged it; the logs of the workers tell why"
    );
    park(app, delivery, SYNC_DEAD_LETTER, reason).await;
}

/// Whether the run that is asked for is known to be over.
async fn is_over(app: &App, requested: Option<SyncRequested>) -> Result<bool, DbError> {
    let Some(requested) = requested else {
        return Ok(false);
    };
    match sync_run::find(&app.engine.db, Scope::Operator, requested.run_id).await {
        Ok(run) => Ok(RunStatus::is_finished(&run.status)),
        Err(DbError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is asked for, or why that cannot be told.
fn decode(delivery: &Delivery) -> Result<SyncRequested, String> {
    match delivery.attribute("ce-type") {
        Some(SYNC_REQUESTED_V1) => {}
        Some(other) => {
            return Err(format!(
                "its type is {other:?}, and this version of the program knows {SYNC_REQUESTED_V1}"
            ));
        }
        None => return Err("it has no attribute ce-type".to_owned()),
    }
    if delivery.data.is_empty() {
        return Err("its body is empty".to_owned());
    }
    serde_json::from_slice(&delivery.data)
        .map_err(|error| format!("its body is not what {SYNC_REQUESTED_V1} says: {error}"))
}

fn event_id(delivery: &Delivery) -> Option<EventId> {
    delivery.attribute("ce-id")?.parse().ok()
}

/// Parks a message and acknowledges it; if it cannot be parked it comes again. One that was parked
/// before is parked once.
async fn park(app: &App, delivery: Delivery, topic: &str, reason: String) {
    let id = event_id(&delivery).unwrap_or_else(|| id_of(&delivery.message_id));
    let requested: Option<SyncRequested> = serde_json::from_slice(&delivery.data).ok();
    // PostgreSQL's text and JSON have no NUL.
    let without_nul = |text: &str| text.replace('\0', "\u{fffd}");
    let event_type = without_nul(delivery.attribute("ce-type").unwrap_or_default());
    let attributes = delivery.attributes.iter();
    let attributes: BTreeMap<String, String> = attributes
        .map(|(name, value)| (without_nul(name), without_nul(value)))
        .collect();
    let letter = DeadLetter {
        id,
        topic: topic.to_owned(),
        event_type: event_type.chars().take(TYPE_CHARS).collect(),
        entity_id: requested.as_ref().map(|request| request.entity_id),
        integration_id: requested.as_ref().map(|request| request.integration_id),
        run_id: requested.as_ref().map(|request| request.run_id),
        data: kept(&delivery.data),
        attributes: Some(json!(attributes)),
        attempts: delivery.attempt.unwrap_or(1),
        reason: reason.clone(),
        parked_at: app.now(),
        redriven_at: None,
        redriven_run_id: None,
    };
    let parked = async {
        let tx = app.engine.db.begin().await?;
        let is_new = dead_letter::insert(&tx, &letter).await?;
        tx.commit().await?;
        Ok::<_, DbError>(is_new)
    };
    match parked.await {
        Ok(true) => tracing::error!(dead_letter.id = %id, topic, "a message was parked: {reason}"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(
                error = errors::chain(&error),
                "a message could not be parked, and comes again"
            );
            return;
        }
    }
    delivery.ack();
}

/// The body as far as a row may hold it: JSON as it is, anything else encoded, and cut where long.
fn kept(data: &[u8]) -> Value {
    if data.len() <= KEPT_BYTES
        && let Ok(value) = serde_json::from_slice::<Value>(data)
        && !value.to_string().contains("\\u0000")
    {
        return value;
    }
    let cut = &data[..data.len().min(KEPT_BYTES)];
    json!({"base64": STANDARD.encode(cut), "bytes": data.len()})
}

/// The same id for the same message of the broker, however often it comes.
fn id_of(message_id: &str) -> EventId {
    let hash = Sha256::digest(message_id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    EventId::from(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
