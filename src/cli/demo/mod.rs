//! `nucleus demo`: the main job from start to end, with nothing to set up.
//!
//! The whole program runs in this process on embedded parts in a temporary folder, against a
//! loopback stand-in for Google. The command itself is only a client of the API, as anybody is.

use std::{future::ready, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{roles, say};
use crate::{
    api::{self, Deadlines},
    app::{self, App, Setup},
    config::Config,
    demo::{Consent, Mailbox, Options, StandIn, generate, mbox},
    domain::{Clock, SystemClock},
    telemetry,
};

mod browser;
mod check;
mod client;
mod progress;
mod summary;

use browser::Browser;
use client::Client;
use progress::Progress;
use summary::Summary;

/// Messages of the generated mailbox.
const MESSAGES: usize = 2_000;
/// Makes the same mailbox each time.
const SEED: u64 = 20_260_501;
/// The address of a mailbox that is read from a file.
const MBOX_ADDRESS: &str = "you@example.com";
/// Mail that arrives between the two syncs.
const ARRIVALS: u64 = 3;

/// What a person may say to it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Put this mbox file behind the stand-in, in place of the generated mailbox.
    #[arg(long, value_name = "FILE")]
    mbox: Option<PathBuf>,
    /// End after the summary.
    #[arg(long)]
    once: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs it. An error if any figure does not add up.
pub async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mailbox = mailbox(&args)?;
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let google = StandIn::start(mailbox, Options::default(), Arc::clone(&clock))
        .await
        .context("the stand-in for Google cannot listen on 127.0.0.1")?;
    let config = config(&google, folder.path())?;
    telemetry::init(&config.telemetry, None)?;
    let app = App::build(&config, Arc::clone(&clock), Setup::Create).await?;
    let key = app::first_operator_key(&app)
        .await?
        .context("the operator's key was not made")?;
    let listener = TcpListener::bind(config.http.listen).await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let shutdown = roles::on_signal()?;
    let tasks = TaskTracker::new();
    roles::start_loops(&app, &shutdown, &tasks);
    tasks.spawn(serve(Arc::clone(&app), listener, shutdown.clone()));

    let client = Client::new(base_url, key)?;
    let shown = tokio::select! {
        shown = show(&client, &google, &args, clock) => shown,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    if shown.is_ok() && !args.once {
        shutdown.cancelled().await;
    }
    shutdown.cancel();
    roles::leave(app, tasks, ready(()), ready(())).await;
    google.shutdown().await;
    shown
}

async fn serve(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) {
    if let Err(error) = api::serve(app, listener, Deadlines::default(), shutdown).await {
        tracing::error!(error = %error, "the server failed");
    }
}

fn mailbox(args: &DemoArgs) -> anyhow::Result<Mailbox> {
    match &args.mbox {
        None => Ok(generate::mailbox(MESSAGES, SEED)),
        Some(file) => Ok(mbox::read(file, MBOX_ADDRESS, SEED)?),
    }
}

/// The configuration of a demonstration: nothing of the person's own is read or touched.
fn config(google: &StandIn, folder: &std::path::Path) -> anyhow::Result<Config> {
    let known = Options::default();
    let settings = [
        ("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("NUCLEUS_TELEMETRY__FILTER", "error".to_owned()),
        (
            "NUCLEUS_SERVICES__GMAIL__API_URL",
            google.base_url().to_owned(),
        ),
        (
            "NUCLEUS_SERVICES__GMAIL__AUTHORIZE_URL",
            google.authorize_url(),
        ),
        ("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", google.token_url()),
        ("NUCLEUS_SERVICES__GMAIL__REVOKE_URL", google.revoke_url()),
        ("NUCLEUS_SERVICES__GMAIL__CLIENT_ID", known.client_id),
        (
            "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET",
            known.client_secret,
        ),
        ("NUCLEUS_SERVICES__GMAIL__QUOTA", "off".to_owned()),
    ];
    let environment = settings
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    let (config, _) = Config::load(None, environment, Some(folder.to_path_buf()))?;
    Ok(config)
}

async fn show(
    client: &Client,
    google: &StandIn,
    args: &DemoArgs,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let started = clock.now();
    let messages = google.with_mailbox(|mailbox| mailbox.len());
    let integration = connect(client, google).await?;
    let first = first_sync(client, &integration, messages).await?;
    let first_units = google.units();
    change(google);
    let second = second_sync(client, &integration, messages).await?;
    let events = check::everything(client, google, &integration).await?;
    let summary = Summary {
        messages: google.with_mailbox(|mailbox| mailbox.len()),
        first,
        second,
        first_units,
        events,
        elapsed: (clock.now() - started).to_std().unwrap_or_default(),
    };
    if args.json {
        say(&summary.json().to_string());
    } else {
        summary.print();
    }
    summary.check()?;
    if !args.once && !args.json {
        summary::print_where_to_look(client, &integration);
    }
    Ok(())
}

/// Connects the account as a person does: consents at the service and confirms on nucleus' page.
/// Gives the integration.
async fn connect(client: &Client, google: &StandIn) -> anyhow::Result<String> {
    let entity = client.post("/entities", json!({"name": "Demo"})).await?;
    let body = json!({"entity_id": entity["id"]});
    let begun = client.post("/integrations/gmail/oauth/start", body).await?;
    let authorization_url = client::text(&begun, "authorization_url")?;
    let answer = google
        .authorize(&authorization_url, &Consent::default())
        .await?;
    Browser::new()?.confirm(answer).await?;
    let connected = client.all("/integrations").await?;
    let integration = connected.first().context("no account was connected")?;
    client::text(integration, "id")
}

/// The sync that connecting the account has asked for.
async fn first_sync(client: &Client, integration: &str, messages: usize) -> anyhow::Result<Value> {
    let runs = client
        .all(&format!("/integrations/{integration}/runs"))
        .await?;
    let run = runs.first().context("no sync was asked for")?;
    follow(
        client,
        &client::text(run, "run_id")?,
        "first sync",
        messages,
    )
    .await
}

/// Asks for another sync.
async fn second_sync(client: &Client, integration: &str, messages: usize) -> anyhow::Result<Value> {
    let requested = client
        .post(&format!("/integrations/{integration}/sync"), json!({}))
        .await?;
    follow(
        client,
        &client::text(&requested, "run_id")?,
        "second sync",
        messages,
    )
    .await
}

/// Follows a run to its end.
async fn follow(client: &Client, run: &str, name: &str, messages: usize) -> anyhow::Result<Value> {
    let path = format!("/runs/{run}");
    let progress = Progress::new(name, messages);
    loop {
        let run = client.get(&path).await?;
        progress.show(&run["counts"]);
        match run["status"].as_str() {
            Some("queued" | "running") => pause().await,
            Some("success") => {
                progress.finish();
                return Ok(run);
            }
            _ => {
                progress.finish();
                bail!("the {name} ended as {}: {}", run["status"], run["error"]);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a person watches")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// New mail comes in, one message is read and filed, one is deleted for good.
fn change(google: &StandIn) {
    google.with_mailbox(|mailbox| {
        let ids: Vec<String> = mailbox
            .ledger()
            .into_iter()
            .filter(|entry| {
                !entry
                    .labels
                    .iter()
                    .any(|label| label == "SPAM" || label == "TRASH")
            })
            .map(|entry| entry.id)
            .collect();
        for serial in 0..ARRIVALS {
            mailbox.deliver(generate::arrival(serial, SEED), &["INBOX", "UNREAD"]);
        }
        if let Some(id) = ids.first() {
            mailbox.relabel(id, &["STARRED"], &["UNREAD"]);
        }
        if let Some(id) = ids.get(1) {
            mailbox.delete(id);
        }
    });
}

/// The operator's key of the demonstration, for the lines a person may copy.
fn shown_key(key: &SecretString) -> &str {
    key.expose_secret()
}
