//! `nucleus import`: mail from files, with how far it has come.

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{note, roles, say};
use crate::{
    app::{App, Setup},
    config::Config,
    domain::{
        IntegrationId, SystemClock,
        clock::Stopwatch,
        sync::{Counts, Run, RunStatus},
    },
    import::{Import, Input, Place, Watcher, import},
};

/// Where nobody watches, a line is logged so often.
const LOG_EVERY: f64 = 5.0;
/// How often a bar is drawn a second.
const DRAWN_A_SECOND: u8 = 5;

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Mailboxes in mbox files, as Google Takeout, Thunderbird and Apple Mail write them.
    Mbox {
        /// The files, plain or packed by gzip; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to, and how that is told.
        #[command(flatten)]
        to: To,
    },
    /// A folder of `.eml` files, with the folders in it.
    Eml {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Where to, and how that is told.
        #[command(flatten)]
        to: To,
    },
}

/// Where mail is brought, and how that is told.
#[derive(Debug, Args)]
pub struct To {
    /// The integration that the mail belongs to.
    #[arg(long, value_name = "ID")]
    integration: IntegrationId,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Does it. An error unless everything was imported.
pub async fn run(config: &Config, command: ImportCommand) -> anyhow::Result<()> {
    let (input, to) = match command {
        ImportCommand::Mbox { files, to } => (Input::Mbox(places(files)?), to),
        ImportCommand::Eml { folder, to } => (Input::Folder(folder), to),
    };
    let app = App::build(config, Arc::new(SystemClock), Setup::Expect).await?;
    let screen = Screen::default();
    let importing = Import {
        engine: &app.engine,
        shutdown: roles::on_signal()?,
        watcher: &screen,
    };
    let watch = Stopwatch::start();
    let ended = import(&importing, to.integration, input).await;
    screen.clear();
    let seconds = watch.seconds();
    let bytes = screen.bytes();
    let left = std::future::ready(());
    let tasks = tokio_util::task::TaskTracker::new();
    roles::leave(Arc::clone(&app), tasks, left, std::future::ready(())).await;
    let run = ended?;
    if to.json {
        let summary = json!({"run": run, "seconds": seconds, "bytes": bytes});
        say(&summary.to_string());
    } else {
        print(&run, seconds, bytes);
    }
    if run.status == RunStatus::Success.as_str() {
        return Ok(());
    }
    let reason = run.error.map(|error| error.detail);
    if run.status == RunStatus::Cancelled.as_str() {
        bail!("interrupted; the same command goes on where it stopped");
    }
    bail!(
        "the import ended as {}: {}",
        run.status,
        reason.unwrap_or_default()
    )
}

fn places(files: Vec<PathBuf>) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::new();
    for file in files {
        let place = match file.as_os_str() == "-" {
            true => Place::Input,
            false => Place::File(file),
        };
        if place == Place::Input && places.contains(&place) {
            bail!("standard input can be read only once");
        }
        places.push(place);
    }
    Ok(places)
}

fn print(run: &Run, seconds: f64, bytes: u64) {
    let counts = &run.counts;
    let read = counts.fetched;
    say(&format!(
        "{read} messages in {seconds:.1} s ({:.0} messages and {:.1} MB a second)",
        read as f64 / seconds,
        bytes as f64 / 1e6 / seconds
    ));
    let mut figures = vec![
        ("stored", counts.stored),
        ("updated", counts.updated),
        ("there already", counts.unchanged),
        ("failed", counts.failed),
        ("events", run.events),
    ];
    figures.retain(|(_, count)| *count > 0);
    for (name, count) in figures {
        say(&format!("{count:>10}  {name}"));
    }
    for (reason, count) in &counts.skipped {
        say(&format!("{count:>10}  skipped: {reason}"));
    }
    say(&format!("run {}", run.run_id));
}

/// Shows how far an import has come: a bar on a terminal, a log line now and then elsewhere.
#[derive(Default)]
struct Screen(Mutex<State>);

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    name: String,
    /// Bytes of the places that are done.
    before: u64,
    /// Bytes of the place under way.
    bytes: u64,
    size: Option<u64>,
    last_line: Option<Stopwatch>,
}

impl Screen {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        let state = self.state();
        state.before + state.bytes
    }

    fn clear(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Watcher for Screen {
    fn waits_for(&self, run: &Run) {
        let what = match run.kind.as_str() {
            "import" => "another import",
            _ => "a sync",
        };
        let until = match run.status.as_str() {
            "queued" => "once a worker (`nucleus up`) has carried it out, or it is cancelled",
            _ => "when it has ended; if its process is gone that is in 30 seconds at most",
        };
        note(&format!(
            "waiting: {what} of the integration is {} (run {}); the import begins {until}",
            run.status, run.run_id
        ));
    }

    fn begins(&self, name: &str, bytes: Option<u64>) {
        let mut state = self.state();
        state.before += state.bytes;
        state.bytes = 0;
        state.size = bytes;
        state.name = name.to_owned();
        state.last_line = Some(Stopwatch::start());
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        if !std::io::stderr().is_terminal() {
            tracing::info!(file = name, bytes, "the import begins");
            return;
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWN_A_SECOND);
        let bar = ProgressBar::with_draw_target(bytes, target);
        let template = match bytes {
            Some(_) => "{prefix} [{bar:30}] {percent}% {msg}, {binary_bytes_per_sec}, {eta} left",
            None => "{prefix} {binary_bytes} {msg}, {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        state.bar = Some(bar);
    }

    fn goes_on_from(&self, offset: u64) {
        note(&format!(
            "{} was imported up to byte {offset} before; it goes on from there",
            self.state().name
        ));
    }

    fn moved(&self, bytes: u64, counts: &Counts) {
        let mut state = self.state();
        state.bytes = bytes;
        if let Some(bar) = &state.bar {
            bar.set_message(format!("{} messages", counts.fetched));
            bar.set_position(bytes);
            return;
        }
        let due = state
            .last_line
            .as_ref()
            .is_none_or(|line| line.seconds() >= LOG_EVERY);
        if due {
            tracing::info!(
                file = state.name,
                bytes,
                of_bytes = state.size,
                messages = counts.fetched,
                stored = counts.stored,
                "importing"
            );
            state.last_line = Some(Stopwatch::start());
        }
    }
}
