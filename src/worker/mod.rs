//! Workers: take sync requests from the queue and carry their runs out, a few at a time.
//!
//! A message is acknowledged after the commit that made it superfluous. A worker that dies leaves a
//! lease behind that runs out. Here the queue is the outbox; `deliveries.rs` has the same for a broker.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, Queue},
    db::{
        outbox::{self, Leased},
        sync_run::WorkerId,
    },
    domain::errors,
    sync::Ended,
};

mod deliveries;
pub mod relay;
pub mod scheduler;

/// How often the queue is looked at when nobody says that there is something in it.
const POLL: Duration = Duration::from_secs(1);
/// How often a held message is renewed; a third of its lease.
const RENEW: Duration = Duration::from_secs(10);

/// Works until `shutdown`, then finishes the batches under way.
pub async fn work(app: Arc<App>, shutdown: CancellationToken) {
    match app.queue.clone() {
        Queue::Embedded => work_from_outbox(app, shutdown).await,
        Queue::Broker(broker) => deliveries::work(app, broker.as_ref(), shutdown).await,
    }
}

async fn work_from_outbox(app: Arc<App>, shutdown: CancellationToken) {
    let owner = WorkerId::new();
    let places = Arc::new(Semaphore::new(app.max_concurrent_runs));
    let tasks = TaskTracker::new();
    tracing::info!(worker.id = %owner, "the worker takes sync requests");
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let leased = match outbox::lease_sync_request(&app.engine.db, owner, app.now()).await {
            Ok(leased) => leased,
            Err(error) => {
                tracing::error!(error = errors::chain(&error), "the queue could not be read");
                None
            }
        };
        let Some(leased) = leased else {
            wait(&app, &shutdown).await;
            if shutdown.is_cancelled() {
                break;
            }
            continue;
        };
        let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
        tasks.spawn(async move {
            deliver(&app, owner, leased, &shutdown).await;
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Takes what is due now, one after the other, and returns when nothing is: for tests, and for the
/// end of a demonstration.
pub async fn drain(app: &App, shutdown: &CancellationToken) -> Result<usize, crate::db::DbError> {
    if let Queue::Broker(broker) = &app.queue {
        return deliveries::drain(app, broker.as_ref(), shutdown).await;
    }
    let owner = WorkerId::new();
    let mut delivered = 0;
    while !shutdown.is_cancelled() {
        let leased = outbox::lease_sync_request(&app.engine.db, owner, app.now()).await?;
        let Some(leased) = leased else { break };
        deliver(app, owner, leased, shutdown).await;
        delivered += 1;
    }
    Ok(delivered)
}

async fn deliver(app: &App, owner: WorkerId, leased: Leased, shutdown: &CancellationToken) {
    let run = app.engine.run(leased.request.run_id, owner, shutdown);
    let ended = tokio::select! {
        ended = run => ended,
        () = keep(app, owner, &leased) => return,
    };
    let ended = match ended {
        Ok(ended) => ended,
        // Not acknowledged: the message comes back when its lease is over.
        Err(error) => {
            tracing::error!(
                sync_run.id = %leased.request.run_id,
                integration.id = %leased.request.integration_id,
                error = errors::chain(&error),
                "the run was left to the next worker"
            );
            return;
        }
    };
    fail::fail_point!("worker.ack");
    if let Err(error) = outbox::ack(&app.engine.db, leased.id, owner).await {
        tracing::warn!(
            error = errors::chain(&error),
            "a message will be delivered once more"
        );
    }
    if ended == Ended::Requeued {
        app.wake.notify_one();
    }
}

/// Renews the lease of the message for as long as it is polled.
#[expect(
    clippy::disallowed_methods,
    reason = "leases are not on the program's clock"
)]
async fn keep(app: &App, owner: WorkerId, leased: &Leased) {
    loop {
        tokio::time::sleep(RENEW).await;
        if let Err(error) = outbox::renew_lease(&app.engine.db, leased.id, owner).await {
            tracing::warn!(
                error = errors::chain(&error),
                "a message's lease was not renewed"
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an idle worker waits on the machine's clock"
)]
async fn wait(app: &App, shutdown: &CancellationToken) {
    tokio::select! {
        () = app.wake.notified() => {}
        () = tokio::time::sleep(POLL) => {}
        () = shutdown.cancelled() => {}
    }
}
