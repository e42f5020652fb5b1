//! `nucleus events`: DNA-analysis events as they come. They are read and never consumed.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};

use super::note;
use crate::{
    config::Config,
    db::{
        Db,
        inspection::sqlite_file,
        outbox::{self, FollowError},
        schema,
    },
    domain::{
        Clock, SystemClock,
        event::{decode_position, encode_position},
        sync::Scope,
    },
};

/// Time between two looks for new events.
const EVERY: Duration = Duration::from_millis(500);
/// Events read at once.
const PAGE: u64 = 100;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print each event as one line of JSON, as it comes.
    Tail(TailArgs),
}

/// Which events.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Begin with the oldest event that is kept, and not with the next that comes.
    #[arg(long, conflicts_with = "cursor")]
    from_start: bool,
    /// Go on after this cursor: one that this command or GET /events has told.
    #[arg(long, value_parser = position_of)]
    cursor: Option<i64>,
    /// End once what there is has been printed.
    #[arg(long)]
    once: bool,
}

/// Why printing has ended.
enum End {
    /// Everything is printed.
    Done,
    /// Nobody reads it any more.
    Unread,
}

fn position_of(text: &str) -> Result<i64, &'static str> {
    decode_position(text).ok_or("it is no cursor of events: take resume_cursor of GET /events")
}

/// Does it.
pub async fn run(config: &Config, command: EventsCommand) -> anyhow::Result<()> {
    let EventsCommand::Tail(args) = command;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let db = open(config).await?;
    let mut position = match args.cursor {
        Some(position) => Some(position),
        None if args.from_start => None,
        None => Some(outbox::positions(&db).await?.position),
    };
    let ended = tokio::select! {
        ended = follow(&db, &mut position, args.once) => ended.map(drop),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    if let Some(position) = position {
        let cursor = encode_position(position);
        note(&format!(
            "to go on from here: nucleus events tail --cursor {cursor}"
        ));
    }
    db.close().await?;
    ended
}

/// The database as it is: whoever only reads makes none.
async fn open(config: &Config) -> anyhow::Result<Db> {
    let url = config.database.url.expose_secret();
    if let Some(file) = sqlite_file(url).filter(|file| !file.exists()) {
        bail!(
            "there is no database {} yet: start `nucleus up`",
            file.display()
        );
    }
    let db = Db::connect_to_look(url)
        .await
        .context("the database cannot be opened")?;
    schema::status(&db).await?.check()?;
    Ok(db)
}

/// Prints events after `position`, which follows what is printed.
async fn follow(db: &Db, position: &mut Option<i64>, once: bool) -> anyhow::Result<End> {
    loop {
        let found = match outbox::follow(db, Scope::Operator, *position, PAGE).await {
            Ok(found) => found,
            Err(error) => {
                if !matches!(error, FollowError::Db(_)) {
                    // There is no going on from there.
                    *position = None;
                }
                return Err(explain(error));
            }
        };
        for event in found.events {
            if let End::Unread = print(serde_json::to_string(&event.event)?).await? {
                return Ok(End::Unread);
            }
            *position = Some(event.position);
        }
        *position = Some(found.resume);
        if found.more {
            continue;
        }
        if once {
            return Ok(End::Done);
        }
        if is_reader_gone()? {
            return Ok(End::Unread);
        }
        SystemClock.sleep(EVERY).await;
    }
}

/// What a person reads of it.
fn explain(error: FollowError) -> anyhow::Error {
    match error {
        FollowError::Expired => anyhow!(
            "events after the cursor are older than NUCLEUS_EVENTS__RETENTION_DAYS and gone: read \
             what is stored with GET /integrations/{{id}}/records, and go on with --from-start"
        ),
        FollowError::Beyond => anyhow!(
            "the cursor is not of this database, or of a later state of it: go on with --from-start"
        ),
        FollowError::Db(error) => anyhow::Error::new(error).context("events cannot be read"),
    }
}

/// Writes a line where blocking is allowed: a reader that has stopped must not keep signals waiting.
async fn print(mut line: String) -> io::Result<End> {
    line.push('\n');
    let write = move || {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush())
    };
    match tokio::task::spawn_blocking(write).await? {
        Ok(()) => Ok(End::Done),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(End::Unread),
        Err(error) => Err(error),
    }
}

/// Whether the other end of the pipe is closed, which a write alone would tell, and there may be
/// nothing to write for days.
fn is_reader_gone() -> io::Result<bool> {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut polled, Some(&at_once)) {
        Err(Errno::INTR) => return Ok(false),
        polled => polled?,
    };
    let gone = PollFlags::ERR | PollFlags::HUP;
    Ok(polled[0].revents().intersects(gone))
}
