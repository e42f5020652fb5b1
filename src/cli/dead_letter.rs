//! `nucleus dead-letter`: messages that no worker could carry out, why, and asking for them again.

use std::fmt::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{note, say};
use crate::{
    app,
    config::Config,
    db::{
        Db, DbError, Slicing,
        dead_letter::{self, DeadLetter},
        schema,
    },
    domain::{Clock, EventId, SystemClock, time},
    sync::redrive::{Redriven, redrive},
    telemetry::one_line,
};

/// Letters read at once.
const PAGE: u64 = 500;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// Print id, time, attempts and reason of each, newest first.
    List(ListArgs),
    /// Print everything that is known of one, as JSON.
    Show {
        /// Its id.
        id: EventId,
    },
    /// Ask again for what they asked for, once the reason is mended. Doing it twice does it once.
    Redrive(RedriveArgs),
}

/// Which are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Also those that were asked for again.
    #[arg(long)]
    all: bool,
    /// Print each as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Which are asked for again.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Their ids.
    #[arg(required_unless_present = "all")]
    ids: Vec<EventId>,
    /// All that were not asked for again yet.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Does it.
pub async fn run(config: &Config, command: DeadLetterCommand) -> anyhow::Result<()> {
    let url = config.database.url.expose_secret();
    let db = Db::connect(url, app::limits(&config.database))
        .await
        .context("the database cannot be opened")?;
    schema::status(&db).await?.check()?;
    match command {
        DeadLetterCommand::List(args) => list(&db, &args).await?,
        DeadLetterCommand::Show { id } => show(&db, id).await?,
        DeadLetterCommand::Redrive(args) => redrive_these(&db, args).await?,
    }
    Ok(db.close().await?)
}

async fn list(db: &Db, args: &ListArgs) -> anyhow::Result<()> {
    for letter in letters(db, args.all).await? {
        if args.json {
            say(&as_json(&letter).to_string());
            continue;
        }
        let mut line = format!(
            "{}  {}  {} attempts  {}",
            letter.id,
            time::rfc3339(letter.parked_at),
            letter.attempts,
            one_line(&letter.reason)
        );
        if let Some(run) = letter.redriven_run_id {
            write!(line, "  (asked for again by run {run})")?;
        }
        say(&line);
    }
    Ok(())
}

async fn letters(db: &Db, all: bool) -> Result<Vec<DeadLetter>, DbError> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let after = letters.last().map(|letter| letter.id.0);
        let limit = PAGE;
        let slice = dead_letter::list(db, all, Slicing { after, limit }).await?;
        letters.extend(slice.items);
        if !slice.more {
            return Ok(letters);
        }
    }
}

async fn show(db: &Db, id: EventId) -> anyhow::Result<()> {
    let letter = match dead_letter::find(db, id).await {
        Err(DbError::NotFound) => bail!("there is no dead letter {id}"),
        found => found?,
    };
    say(&serde_json::to_string_pretty(&as_json(&letter))?);
    Ok(())
}

async fn redrive_these(db: &Db, args: RedriveArgs) -> anyhow::Result<()> {
    let ids: Vec<EventId> = match args.all {
        true => letters(db, false)
            .await?
            .iter()
            .map(|letter| letter.id)
            .collect(),
        false => args.ids,
    };
    let mut refused = 0;
    for id in ids {
        match redrive(db, SystemClock.now(), id).await {
            Ok(Redriven::Asked(run)) => say(&format!("{id}  asked for again by run {run}")),
            Ok(Redriven::Before(Some(run))) => {
                say(&format!("{id}  was asked for again before, by run {run}"));
            }
            Ok(Redriven::Before(None)) => say(&format!("{id}  was asked for again before")),
            Err(error) => {
                refused += 1;
                note(&format!("{id}  cannot be asked for again: {error}"));
            }
        }
    }
    match refused {
        0 => Ok(()),
        _ => bail!("{refused} could not be asked for again"),
    }
}

fn as_json(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "topic": letter.topic,
        "event_type": letter.event_type,
        "entity_id": letter.entity_id,
        "integration_id": letter.integration_id,
        "run_id": letter.run_id,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "parked_at": time::rfc3339(letter.parked_at),
        "redriven_at": letter.redriven_at.map(time::rfc3339),
        "redriven_run_id": letter.redriven_run_id,
        "attributes": letter.attributes,
        "data": letter.data,
    })
}
