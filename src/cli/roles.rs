//! The roles of the program: everything in one process, or each by itself.

use std::{
    future::{Future, ready},
    io,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::say;
use crate::{
    api::{self, Deadlines},
    app::{self, App, Queue, Setup},
    config::Config,
    db::{api_key, disconnection, idempotency_key},
    domain::{Clock, SystemClock},
    sync,
    worker::{self, relay, scheduler},
};

/// After the first signal, what is under way may take this long: the process is to be gone after
/// eight seconds, and Cloud Run and Docker kill after ten.
const GRACE: Duration = Duration::from_secs(6);

/// API, worker and scheduler in one process.
pub async fn up(config: &Config) -> anyhow::Result<()> {
    let _lock = app::lock_data_dir(&config.data_dir, &SystemClock).await?;
    // Before anything is made, so that a start that cannot listen leaves nothing behind.
    let listener = listen(config).await?;
    let app = App::build(config, clock(), Setup::Create).await?;
    let address = config.http.public_url_at(listener.local_addr()?);
    app::show_first_operator_key(&app, |key| {
        say(&format!("The operator's key, shown this once:\n{key}"));
    })
    .await?;
    // The folder is ours alone, so whatever was held belongs to a process that is dead.
    let freed = sync::free_abandoned(&app.engine, true).await?;
    idempotency_key::end_leases(&app.engine.db).await?;
    disconnection::end_leases(&app.engine.db).await?;
    tracing::info!(runs = freed, http.url = address, "nucleus is up");
    let shutdown = on_signal()?;
    let tasks = TaskTracker::new();
    start_loops(&app, &shutdown, &tasks);
    say(&format!("nucleus listens on {address}"));
    let last = scheduler::log_last_audit_heads(Arc::clone(&app));
    serve_and_leave(app, listener, shutdown, tasks, last).await
}

/// Starts what a whole program does beside answering.
pub(super) fn start_loops(app: &Arc<App>, shutdown: &CancellationToken, tasks: &TaskTracker) {
    let loops = &app.loops;
    let work = worker::work(Arc::clone(app), shutdown.clone());
    tasks.spawn(loops.watch("worker", work));
    let schedule = scheduler::run(Arc::clone(app), shutdown.clone());
    tasks.spawn(loops.watch("scheduler", schedule));
    let check = scheduler::check_connections(Arc::clone(app), shutdown.clone());
    tasks.spawn(loops.watch("checks", check));
    let clean = scheduler::clean_up_each_minute(Arc::clone(app), shutdown.clone());
    tasks.spawn(loops.watch("cleaning", clean));
    let save = scheduler::save_totals(Arc::clone(app), shutdown.clone());
    tasks.spawn(loops.watch("metrics", save));
    if let Queue::Broker(broker) = app.queue.clone() {
        let relay = relay::run(Arc::clone(app), broker, shutdown.clone());
        tasks.spawn(loops.watch("relay", relay));
    }
}

/// The API alone.
pub async fn serve(config: &Config) -> anyhow::Result<()> {
    let app = App::build(config, clock(), Setup::Expect).await?;
    if app.operator_key.is_none() && !api_key::has_operator_key(&app.engine.db).await? {
        bail!(
            "there is no operator key: set NUCLEUS_HTTP__OPERATOR_KEY to at least 32 characters, \
             or make one with `nucleus key create --operator`"
        );
    }
    let listener = listen(config).await?;
    let address = config.http.public_url_at(listener.local_addr()?);
    let shutdown = on_signal()?;
    tracing::info!(http.url = address, "the API is up");
    let tasks = TaskTracker::new();
    let save = scheduler::save_totals(Arc::clone(&app), shutdown.clone());
    tasks.spawn(app.loops.watch("metrics", save));
    if let Queue::Broker(broker) = app.queue.clone() {
        let relay = relay::run_when_woken(Arc::clone(&app), broker, shutdown.clone());
        tasks.spawn(app.loops.watch("relay", relay));
    }
    say(&format!("nucleus listens on {address}"));
    serve_and_leave(app, listener, shutdown, tasks, ready(())).await
}

/// A worker alone, with the sweep of abandoned runs, and with a relay where there is a broker.
pub async fn work(config: &Config) -> anyhow::Result<()> {
    let app = App::build(config, clock(), Setup::Expect).await?;
    let shutdown = on_signal()?;
    let tasks = TaskTracker::new();
    tasks.spawn(worker::work(Arc::clone(&app), shutdown.clone()));
    tasks.spawn(scheduler::sweep(Arc::clone(&app), shutdown.clone()));
    tasks.spawn(scheduler::check_connections(
        Arc::clone(&app),
        shutdown.clone(),
    ));
    tasks.spawn(scheduler::clean_up_each_minute(
        Arc::clone(&app),
        shutdown.clone(),
    ));
    tasks.spawn(scheduler::save_totals(Arc::clone(&app), shutdown.clone()));
    if let Queue::Broker(broker) = app.queue.clone() {
        tasks.spawn(relay::run(Arc::clone(&app), broker, shutdown.clone()));
    }
    shutdown.cancelled().await;
    leave(app, tasks, ready(()), ready(())).await;
    Ok(())
}

/// One pass of the scheduler.
pub async fn tick(config: &Config) -> anyhow::Result<()> {
    let app = App::build(config, clock(), Setup::Expect).await?;
    let report = scheduler::tick(&app).await?;
    say(&format!(
        "{} syncs requested, {} abandoned runs queued again",
        report.requested, report.freed
    ));
    Ok(())
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: stop what uses that port, or choose another with \
             NUCLEUS_HTTP__LISTEN"
        )
    })
}

/// The first SIGTERM or SIGINT ends the taking of work, a second one the process.
pub(super) fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let first = shutdown.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "signals are waited for as long as the process lives"
    )]
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first.is_cancelled() {
                std::process::exit(1);
            }
            tracing::info!("ending: batches under way are finished first");
            first.cancel();
        }
    });
    Ok(shutdown)
}

/// Serves until `shutdown`, or until the server fails, and ends the process's work.
async fn serve_and_leave(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    last: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let deadlines = Deadlines::default();
    let server = api::serve(Arc::clone(&app), listener, deadlines, shutdown.clone());
    let mut server = pin!(server);
    let mut served: Option<io::Result<()>> = tokio::select! {
        served = &mut server => Some(served),
        () = shutdown.cancelled() => None,
    };
    shutdown.cancel();
    let rest = async {
        if served.is_none() {
            served = Some(server.await);
        }
    };
    leave(app, tasks, rest, last).await;
    served.unwrap_or(Ok(())).context("the server failed")
}

/// Waits for what is under way and for `rest`, and then for `last`, as long as the grace lasts: a client that
/// never ends its request must not keep the process.
pub(super) async fn leave(
    app: Arc<App>,
    tasks: TaskTracker,
    rest: impl Future<Output = ()>,
    last: impl Future<Output = ()>,
) {
    tasks.close();
    app.tasks.close();
    let done = async {
        tokio::join!(rest, tasks.wait(), app.tasks.wait());
        last.await;
        if let Err(error) = app.save_totals().await {
            tracing::warn!(error = %error, "what was counted last is lost");
        }
        if let Err(error) = app.save_key_uses().await {
            tracing::warn!(error = %error, "when keys were used last is lost");
        }
        // It waits for every connection that is in use.
        if let Err(error) = app.engine.db.clone().close().await {
            tracing::warn!(error = %error, "the database was not closed");
        }
    };
    if tokio::time::timeout(GRACE, done).await.is_err() {
        tracing::warn!("not everything ended in time; it is taken up again at the next start");
    }
}
