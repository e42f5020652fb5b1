//! `nucleus key`: who may call the API.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;

use super::say;
use crate::{
    app::{App, Setup},
    config::Config,
    db::{
        api_key::{self, ApiKeyId, KeyScope},
        audit_log::{self, Act},
        entity,
    },
    domain::{EntityId, SystemClock, audit::Action, time},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, this once, on a line of its own.
    Create {
        /// Whose it is.
        #[command(flatten)]
        owner: Owner,
        /// Whether it may change anything, or only look.
        #[arg(long, value_enum, default_value = "write")]
        scope: ScopeArgument,
    },
    /// Print id, owner, scope, state, and when each was made and last used.
    List,
    /// Make a key worthless.
    Revoke {
        /// Its id, as the list shows it.
        id: String,
    },
}

/// Whose key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Owner {
    /// This entity's.
    #[arg(long, value_name = "ID")]
    entity: Option<String>,
    /// The operator's.
    #[arg(long)]
    operator: bool,
}

/// What the key may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ScopeArgument {
    /// Look at everything its owner may see.
    Read,
    /// Change it too.
    Write,
}

impl From<ScopeArgument> for KeyScope {
    fn from(argument: ScopeArgument) -> Self {
        match argument {
            ScopeArgument::Read => Self::Read,
            ScopeArgument::Write => Self::Write,
        }
    }
}

/// Does it.
pub async fn run(config: &Config, command: KeyCommand) -> anyhow::Result<()> {
    let app = App::build(config, Arc::new(SystemClock), Setup::Expect).await?;
    let db = &app.engine.db;
    match command {
        KeyCommand::Create { owner, scope } => {
            let entity = match owner.entity {
                Some(text) => {
                    let id: EntityId = text
                        .parse()
                        .with_context(|| format!("{text:?} is not an entity's id"))?;
                    if !entity::exists(db, id).await? {
                        bail!(
                            "there is no entity {id}: `nucleus entity list` shows those there are"
                        );
                    }
                    Some(id)
                }
                None => None,
            };
            say(app.create_key(entity, scope.into()).await?.expose_secret());
        }
        KeyCommand::List => {
            for key in api_key::list(db).await? {
                let owner = key
                    .entity_id
                    .map_or("operator".to_owned(), |id| id.to_string());
                let state = key.revoked_at.map_or("live".to_owned(), |at| {
                    format!("revoked {}", time::rfc3339(at))
                });
                let used = key.last_used_at.map_or("never used".to_owned(), |at| {
                    format!("last used {}", time::rfc3339(at))
                });
                say(&format!(
                    "{}  {owner}  {:5}  created {}  {used}  {state}",
                    key.id,
                    key.scope,
                    time::rfc3339(key.created_at)
                ));
            }
        }
        KeyCommand::Revoke { id } => {
            let key: ApiKeyId = id
                .parse()
                .with_context(|| format!("{id:?} is not a key's id"))?;
            let tx = db.begin().await?;
            let now = app.now();
            let revoked = api_key::revoke(&tx, key, now).await.with_context(|| {
                format!("key {key} was not revoked: `nucleus key list` shows those there are")
            })?;
            let Some(revoked) = revoked else {
                say(&format!("{key} was revoked before"));
                return Ok(());
            };
            let target = key.to_string();
            let act = Act::done(revoked.entity_id, Action::KeyRevoke, &target);
            audit_log::append(&tx, &act, now).await?;
            tx.commit().await?;
            say(&format!("revoked {key}"));
        }
    }
    Ok(())
}
