//! The `nucleus` binary: arguments, configuration, logs, and one call a command.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use nucleus::{
    api,
    cli::{
        self,
        audit::{AuditCommand, NotCovered},
        dead_letter::DeadLetterCommand,
        demo::DemoArgs,
        doctor::DoctorArgs,
        entity::EntityCommand,
        events::EventsCommand,
        import::ImportCommand,
        key::KeyCommand,
        revoke::{NotConfirmed, RevokeArgs},
        vault::VaultCommand,
    },
    config::{Config, ConfigErrors},
    domain::audit::Origin,
    telemetry,
    traces::Traces,
};

/// Parsing mail is many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reaches a person's digital footprint: connections, credentials and event-driven ingestion.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// Read settings from this file in place of ./nucleus.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep database, vault and lock in this folder.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process: API, worker and scheduler.
    Up,
    /// The API alone.
    Serve,
    /// A worker alone.
    Work,
    /// One pass of the scheduler.
    Tick,
    /// Bring the database's schema up to date.
    Migrate {
        /// Only say how it stands.
        #[arg(long)]
        status: bool,
    },
    /// Print the OpenAPI document of the API.
    Openapi,
    /// DNA-analysis events.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Bring mail in from files, without a unit of quota.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Messages that no worker could carry out.
    #[command(subcommand)]
    DeadLetter(DeadLetterCommand),
    /// End the access to every account of a service at once, for an incident.
    Revoke(RevokeArgs),
    /// Look whether everything is well, and say how what is not is mended.
    Doctor(DoctorArgs),
    /// Sync a generated mailbox, start to end, with nothing to set up.
    Demo(DemoArgs),
    /// Whose footprints these are.
    #[command(subcommand)]
    Entity(EntityCommand),
    /// Who may call the API.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The key that credentials are sealed with.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// What was done with credentials and by administration.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// Wrong usage or configuration, as clap has it too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli::refuse_core_dumps() {
        cli::note(&format!("core dumps cannot be switched off: {error}"));
    }
    // The set of cryptography is chosen once, for every TLS connection of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::report(&error.into()),
    };
    let done = runtime.block_on(run(cli));
    // Dropped, it would wait for work that nobody waits for any more.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error)
            if error.is::<ConfigErrors>()
                || error.is::<NotConfirmed>()
                || error.is::<NotCovered>() =>
        {
            cli::report(&error);
            ExitCode::from(USAGE)
        }
        Err(error) => cli::report(&error),
    }
}

/// A command's work, which is written down as the operator's.
async fn by_operator<W: Future>(work: W) -> W::Output {
    Origin::command().scope(work).await
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Demo(args) => return cli::demo::demo(args).await,
        Command::Openapi => {
            cli::say(api::document().trim_end());
            return Ok(());
        }
        Command::Doctor(args) => {
            let look = cli::doctor::doctor(cli.config.as_deref(), cli.data_dir, args);
            return by_operator(look).await;
        }
        _ => {}
    }
    let (config, warnings) = Config::from_environment(cli.config.as_deref(), cli.data_dir)?;
    let endpoint = config.telemetry.otlp_endpoint.as_ref();
    let traces = endpoint.map(Traces::start).transpose()?;
    telemetry::init(&config.telemetry, traces.as_ref())?;
    // After the logs, which set a panic hook of their own.
    #[cfg(feature = "failpoints")]
    let _failpoints = cli::crash_at_failpoints();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let done = match cli.command {
        Command::Up => cli::roles::up(&config).await,
        Command::Serve => cli::roles::serve(&config).await,
        Command::Work => cli::roles::work(&config).await,
        Command::Tick => cli::roles::tick(&config).await,
        Command::Migrate { status } => cli::migrate::migrate(&config, status).await,
        Command::Entity(command) => by_operator(cli::entity::run(&config, command)).await,
        Command::Key(command) => by_operator(cli::key::run(&config, command)).await,
        Command::Vault(command) => by_operator(cli::vault::run(&config, command)).await,
        Command::Audit(command) => cli::audit::run(&config, command).await,
        Command::Events(command) => cli::events::run(&config, command).await,
        Command::Import(command) => by_operator(cli::import::run(&config, command)).await,
        Command::DeadLetter(command) => by_operator(cli::dead_letter::run(&config, command)).await,
        Command::Revoke(args) => by_operator(cli::revoke::run(&config, args)).await,
        Command::Demo(_) | Command::Openapi | Command::Doctor(_) => Ok(()),
    };
    if let Some(traces) = traces {
        traces.end().await;
    }
    done
}
