//! The relay: publishes what is in the outbox to the broker, in the envelope of CloudEvents.
//!
//! Every message is published at least once under the id that it got when it became true. Relays may
//! run in any number of processes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fail::fail_point;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    db::{
        DbError,
        relay::{self, Outgoing},
        sync_run::WorkerId,
    },
    domain::{
        EventId, errors,
        event::{DNA_ANALYSIS, DNA_ANALYSIS_REQUESTED, SYNC_REQUESTED, SYNC_REQUESTS},
        time,
    },
    queue::{Broker, Message},
};

/// How often the outbox is looked at when nobody says that there is something in it.
const POLL: Duration = Duration::from_secs(1);
/// A broker that is away is tried again after a poll's time, doubled up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Messages published at once: their leases outlive the deadline of publishing many times over.
const PAGE: u64 = 100;

/// What one pass did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Messages that the broker has.
    pub published: usize,
    /// Messages that wait for the next pass.
    pub failed: usize,
}

/// Publishes until `shutdown`: what is due, again and again.
#[expect(
    clippy::disallowed_methods,
    reason = "an idle relay waits on the machine's clock"
)]
pub async fn run(app: Arc<App>, broker: Arc<dyn Broker>, shutdown: CancellationToken) {
    let mut wait = POLL;
    while !shutdown.is_cancelled() {
        let relayed = pass_and_tell(&app, broker.as_ref(), &shutdown).await;
        wait = if relayed {
            POLL
        } else {
            (wait * 2).min(LONGEST_WAIT)
        };
        tokio::select! {
            // A broker that is away is not tried at every request.
            () = app.wake.notified(), if relayed => {}
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Publishes whenever this process has written a message, and not by the clock: beside an API, whose
/// workers elsewhere publish what this leaves.
pub async fn run_when_woken(app: Arc<App>, broker: Arc<dyn Broker>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = app.wake.notified() => {}
            () = shutdown.cancelled() => return,
        }
        pass_and_tell(&app, broker.as_ref(), &shutdown).await;
    }
}

/// A pass; whether everything due was published.
async fn pass_and_tell(app: &App, broker: &dyn Broker, shutdown: &CancellationToken) -> bool {
    match pass(app, broker, shutdown).await {
        Ok(relayed) => relayed.failed == 0,
        Err(error) => {
            tracing::error!(
                error = errors::chain(&error),
                "the outbox could not be relayed"
            );
            false
        }
    }
}

/// Publishes what is due, topic by topic and page after page, until nothing is, or something of the topic
/// cannot be published, or `shutdown`.
pub async fn pass(
    app: &App,
    broker: &dyn Broker,
    shutdown: &CancellationToken,
) -> Result<Relayed, DbError> {
    let owner = WorkerId::new();
    let mut relayed = Relayed::default();
    for topic in [SYNC_REQUESTS, DNA_ANALYSIS] {
        while !shutdown.is_cancelled() {
            let page = relay::claim(&app.engine.db, topic, owner, app.now(), PAGE).await?;
            if page.is_empty() {
                break;
            }
            fail_point!("relay.claimed");
            let (published, failed) = publish(broker, page).await;
            relayed.published += published.len();
            relayed.failed += failed.len();
            fail_point!("relay.published");
            let (db, now) = (&app.engine.db, app.now());
            relay::mark_published(db, owner, topic, &published, now).await?;
            fail_point!("relay.marked");
            relay::release(db, owner, &failed).await?;
            if !failed.is_empty() {
                break;
            }
        }
    }
    Ok(relayed)
}

/// Tells of the events that wait for a broker which there was before and is no more: embedded, an event is
/// published once it has its position. Says how many there were.
pub async fn tell_without_broker(app: &App) -> Result<usize, DbError> {
    let owner = WorkerId::new();
    let mut told = 0;
    loop {
        let db = &app.engine.db;
        let page = relay::claim(db, DNA_ANALYSIS, owner, app.now(), PAGE).await?;
        if page.is_empty() {
            return Ok(told);
        }
        let ids: Vec<EventId> = page.iter().map(|row| row.id).collect();
        relay::mark_published(db, owner, DNA_ANALYSIS, &ids, app.now()).await?;
        told += ids.len();
    }
}

/// Publishes a page; gives the ids of what was published and of what was not.
async fn publish(broker: &dyn Broker, page: Vec<Outgoing>) -> (Vec<EventId>, Vec<EventId>) {
    let ids: Vec<EventId> = page.iter().map(|row| row.id).collect();
    let outcomes = join_all(page.into_iter().map(|row| broker.publish(message(row)))).await;
    let (mut published, mut failed) = (Vec::new(), Vec::new());
    let mut first_error = None;
    for (id, outcome) in ids.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => published.push(id),
            Err(error) => {
                failed.push(id);
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error {
        tracing::error!(
            messages = failed.len(),
            error = errors::chain(&error),
            "messages could not be published, and are tried again"
        );
    }
    (published, failed)
}

/// The message in the Pub/Sub binding of CloudEvents 1.0, binary mode, with what subscriptions filter
/// by: <https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md>
fn message(row: Outgoing) -> Message {
    let event_type = match row.topic.as_str() {
        DNA_ANALYSIS => DNA_ANALYSIS_REQUESTED,
        _ => SYNC_REQUESTED,
    };
    let attributes = [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", row.id.to_string()),
        ("ce-source", format!("nucleus/{}", row.service_name)),
        ("ce-type", row.event_type),
        ("ce-subject", row.integration_id.to_string()),
        ("ce-time", time::rfc3339(row.created_at)),
        ("content-type", "application/json".to_owned()),
        ("event_type", event_type.to_owned()),
        ("entity_id", row.entity_id.to_string()),
        ("integration_id", row.integration_id.to_string()),
        ("service_name", row.service_name),
    ];
    // CloudEvents' extension for traces, where there are any.
    let traceparent = row.traceparent.map(|value| ("ce-traceparent", value));
    let attributes: HashMap<String, String> = attributes
        .into_iter()
        .chain(traceparent)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Message {
        topic: row.topic,
        attributes,
        data: Bytes::from(row.data.to_string()),
    }
}
