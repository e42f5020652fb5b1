//! The roles of the program: everything in one process, or each by itself.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::say;
use crate::{
    api,
    app::{self, App, Setup},
    config::Config,
    db::api_key,
    domain::{Clock, SystemClock},
    sync,
    worker::{self, scheduler},
};

/// After the first signal, what is under way may take this long.
const GRACE: Duration = Duration::from_secs(8);

/// API, worker and scheduler in one process, on embedded parts.
pub async fn up(config: &Config) -> anyhow::Result<()> {
    let _lock = app::lock_data_dir(&config.data_dir)?;
    let app = App::build(config, clock(), Setup::Create).await?;
    let listener = listen(config).await?;
    let address = config.http.public_url_at(listener.local_addr()?);
    if let Some(key) = app::first_operator_key(&app).await? {
        say("The operator's key, shown this once:");
        say(secrecy::ExposeSecret::expose_secret(&key));
    }
    // The folder is ours alone, so whatever was held belongs to a process that is dead.
    let freed = sync::free_abandoned(&app.engine.db, app.now(), true).await?;
    tracing::info!(runs = freed, http.url = address, "nucleus is up");
    let shutdown = on_signal()?;
    let tasks = TaskTracker::new();
    tasks.spawn(worker::work(Arc::clone(&app), shutdown.clone()));
    tasks.spawn(scheduler::run(Arc::clone(&app), shutdown.clone()));
    say(&format!("nucleus listens on {address}"));
    let served = api::serve(Arc::clone(&app), listener, shutdown.clone()).await;
    shutdown.cancel();
    leave(app, tasks).await;
    served.context("the server failed")
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
    tracing::info!(http.url = address, "the API is up");
    say(&format!("nucleus listens on {address}"));
    let shutdown = on_signal()?;
    let served = api::serve(Arc::clone(&app), listener, shutdown).await;
    leave(app, TaskTracker::new()).await;
    served.context("the server failed")
}

/// A worker alone, with the sweep of abandoned runs.
pub async fn work(config: &Config) -> anyhow::Result<()> {
    let app = App::build(config, clock(), Setup::Expect).await?;
    let shutdown = on_signal()?;
    let tasks = TaskTracker::new();
    tasks.spawn(worker::work(Arc::clone(&app), shutdown.clone()));
    tasks.spawn(scheduler::sweep(Arc::clone(&app), shutdown.clone()));
    shutdown.cancelled().await;
    leave(app, tasks).await;
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

/// Waits for what is under way, as long as the grace lasts.
pub(super) async fn leave(app: Arc<App>, tasks: TaskTracker) {
    tasks.close();
    app.tasks.close();
    let done = async {
        tasks.wait().await;
        app.tasks.wait().await;
    };
    if tokio::time::timeout(GRACE, done).await.is_err() {
        tracing::warn!("not everything ended in time; it is taken up again at the next start");
    }
    if let Err(error) = app.engine.db.clone().close().await {
        tracing::warn!(error = %error, "the database was not closed");
    }
}
