//! `nucleus revoke`: ends the access to every account of a service at once, for an incident. Integrations
//! and records stay, for the accounts to be connected again.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{FutureExt, StreamExt, stream};

use super::{note, say};
use crate::{
    app::{App, Setup},
    config::Config,
    db::{
        Db, DbError, Slicing,
        integration::{self, Filter, Integration},
        oauth_session::{self, OAuthSession, Which},
    },
    domain::{IntegrationId, ServiceName, SystemClock, errors, sync::Scope},
    integrations::{IntegrationError, Revocation},
    telemetry::one_line,
};

/// Integrations read at once.
const PAGE: u64 = 500;
/// Services are asked about so many at the same time.
const AT_ONCE: usize = 8;

/// Which, and whether it is meant.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Of all entities.
    #[arg(long, required = true)]
    all: bool,
    /// Of this service.
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// Do it; without this it is only said what would be done.
    #[arg(long)]
    yes: bool,
}

/// What a command would do was told, and not done.
#[derive(Debug, thiserror::Error)]
#[error("nothing was done: give --yes to do it")]
pub struct NotConfirmed;

/// Does it, and goes on where one fails.
pub async fn run(config: &Config, args: RevokeArgs) -> anyhow::Result<()> {
    let app = App::build(config, Arc::new(SystemClock), Setup::Expect).await?;
    let service = args.service;
    let found = with_credentials(&app.engine.db, service).await?;
    let waiting = oauth_session::waiting(&app.engine.db, Which::AtService(service))
        .await
        .context("the accounts that wait to be confirmed cannot be read")?;
    if !args.yes {
        let also = match waiting.len() {
            0 => String::new(),
            count => format!(" and {count} that wait to be confirmed"),
        };
        say(&format!(
            "this would revoke {}{also} at {service}, destroy their credentials and cancel their syncs; \
             records stay",
            integrations(found.len())
        ));
        return Err(NotConfirmed.into());
    }
    let total = found.len() + waiting.len();
    let app = &app;
    let connected = found.into_iter().map(|id| {
        async move { (id.to_string(), app.integrations.revoke_access(id).await) }.boxed()
    });
    let waiting = waiting
        .iter()
        .map(|session| async move { (session.id.to_string(), end(app, session).await) }.boxed());
    let mut ending = stream::iter(connected.chain(waiting)).buffer_unordered(AT_ONCE);
    let (mut done, mut failed, mut shared, mut left) = (0, 0, 0, 0);
    while let Some((id, ended)) = ending.next().await {
        done += 1;
        let line = |what: &str| format!("{done}/{total}  {id}  {what}");
        match ended {
            Ok(Revocation::Failed(why)) => {
                failed += 1;
                note(&line(&format!("failed: {}", one_line(&why))));
            }
            Ok(revocation) => {
                match &revocation {
                    Revocation::SharedGrant => shared += 1,
                    Revocation::NoCredentials => {}
                    other => left += usize::from(!other.is_ended()),
                }
                say(&line(revocation.as_str()));
            }
            // Removed, or decided about, since it was read.
            Err(IntegrationError::Db(DbError::NotFound)) => {
                say(&line("removed or decided about meanwhile"))
            }
            Err(error) => {
                failed += 1;
                note(&line(&format!("failed: {}", errors::chain(&error))));
            }
        }
    }
    if shared > 0 {
        note(&format!(
            "{} still stand, because integrations of other services live on the same grants: revoke \
             those services too",
            grants(shared)
        ));
    }
    if left > 0 {
        note(&format!(
            "{} may still stand, because the service revokes no more than that: their people can \
             remove the app there",
            grants(left)
        ));
    }
    match failed {
        0 => Ok(()),
        _ => bail!(
            "{failed} of {total} were not revoked; their syncs are stopped and their credentials \
             kept: run the command again"
        ),
    }
}

/// One that its person has confirmed or refused since is no row of ours any more.
async fn end(app: &App, session: &OAuthSession) -> Result<Revocation, IntegrationError> {
    let ended = app.integrations.end_waiting(session).await?;
    ended.ok_or(IntegrationError::Db(DbError::NotFound))
}

fn integrations(count: usize) -> String {
    match count {
        1 => "1 integration".to_owned(),
        _ => format!("{count} integrations"),
    }
}

fn grants(count: usize) -> String {
    match count {
        1 => "1 grant".to_owned(),
        _ => format!("{count} grants"),
    }
}

/// The integrations of a service that have credentials, whatever their status.
async fn with_credentials(db: &Db, service: ServiceName) -> anyhow::Result<Vec<IntegrationId>> {
    let filter = Filter {
        service_name: Some(service),
        ..Filter::default()
    };
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let slicing = Slicing { after, limit: PAGE };
        let slice = integration::list(db, Scope::Operator, &filter, slicing)
            .await
            .context("the integrations cannot be read")?;
        after = slice.items.last().map(|row| row.id.0);
        let live = slice.items.into_iter().filter(has_credentials);
        ids.extend(live.map(|row| row.id));
        if !slice.more {
            return Ok(ids);
        }
    }
}

fn has_credentials(row: &Integration) -> bool {
    row.secret_path.is_some()
}
