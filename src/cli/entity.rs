//! `nucleus entity`: whose footprints these are.

use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;

use super::say;
use crate::{
    app::{App, Setup},
    config::Config,
    db::{
        Slicing,
        audit_log::{self, Act},
        entity::{self, Entity},
    },
    domain::{EntityId, SystemClock, audit::Action, sync::Scope, time},
    telemetry::one_line,
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum EntityCommand {
    /// Add an entity and print its id.
    Create {
        /// What people call it.
        name: String,
    },
    /// Print id, time and name of each.
    List,
}

/// Does it.
pub async fn run(config: &Config, command: EntityCommand) -> anyhow::Result<()> {
    let app = App::build(config, Arc::new(SystemClock), Setup::Expect).await?;
    let db = &app.engine.db;
    match command {
        EntityCommand::Create { name } => {
            if name.trim().is_empty() || name.chars().count() > 255 {
                bail!("the name must have 1 to 255 characters");
            }
            let row = Entity {
                id: EntityId::new(),
                name: name.trim().to_owned(),
                created_at: app.now(),
            };
            let tx = db.begin().await?;
            entity::insert(&tx, &row).await?;
            let target = row.id.to_string();
            let act = Act::done(row.id, Action::EntityCreate, &target);
            audit_log::append(&tx, &act, row.created_at).await?;
            tx.commit().await?;
            say(&row.id.to_string());
        }
        EntityCommand::List => {
            let mut after = None;
            loop {
                let slice =
                    entity::list(db, Scope::Operator, Slicing { after, limit: 1000 }).await?;
                for row in &slice.items {
                    say(&format!(
                        "{}  {}  {}",
                        row.id,
                        time::rfc3339(row.created_at),
                        one_line(&row.name)
                    ));
                }
                after = slice.items.last().map(|row| row.id.0);
                if !slice.more {
                    break;
                }
            }
        }
    }
    Ok(())
}
