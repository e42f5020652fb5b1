//! `nucleus migrate`: the schema's own command.

use anyhow::Context;
use secrecy::ExposeSecret;

use super::say;
use crate::{
    app,
    config::Config,
    db::{Db, Limits, schema},
};

/// Brings the schema up to date, or only says how it stands.
pub async fn migrate(config: &Config, status: bool) -> anyhow::Result<()> {
    app::prepare_data_dir(&config.data_dir)?;
    let url = config.database.url.expose_secret();
    let db = Db::connect(url, Limits::of(1))
        .await
        .context("the database cannot be opened")?;
    if !status {
        schema::migrate(&db, url).await?;
    }
    let found = schema::status(&db).await?;
    for name in &found.applied {
        say(&format!("applied  {name}"));
    }
    for name in &found.pending {
        say(&format!("pending  {name}"));
    }
    if status { Ok(()) } else { Ok(found.check()?) }
}
