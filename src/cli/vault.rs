//! `nucleus vault`: the key that credentials are sealed with.

use anyhow::{Context, bail};
use clap::Subcommand;
use secrecy::ExposeSecret;

use super::{note, say};
use crate::{
    app::{self, Setup},
    audit::Attempt,
    config::{Config, SecretsKind},
    db::{Db, schema},
    domain::{SystemClock, audit::Action},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Give the vault another key and seal everything with it, while whatever runs goes on.
    Rotate,
}

/// Does it.
pub async fn run(config: &Config, command: VaultCommand) -> anyhow::Result<()> {
    let VaultCommand::Rotate = command;
    if config.secrets.kind != SecretsKind::Vault {
        bail!(
            "credentials are kept in Secret Manager, which has keys of its own: there is no vault"
        );
    }
    let is_configured = config.secrets.vault_key.is_some();
    if is_configured && config.secrets.previous_vault_key.is_none() {
        bail!(
            "the vault's key is configured: set NUCLEUS_SECRETS__VAULT_KEY to another one and \
             NUCLEUS_SECRETS__PREVIOUS_VAULT_KEY to the present one, start every process again, and \
             run this then"
        );
    }
    let vault = app::open_vault(config, Setup::Expect).await?;
    let url = config.database.url.expose_secret();
    let db = Db::connect(url, app::limits(&config.database))
        .await
        .context("the database cannot be opened")?;
    schema::status(&db).await?.check()?;
    let attempt = Attempt::begin(&db, &SystemClock, None, Action::VaultRotate, "vault")
        .await
        .context("the audit log cannot be written, so the key was not replaced")?;
    let rotated = vault.rotate().await;
    let is_whole = rotated
        .as_ref()
        .is_ok_and(|rotated| rotated.damaged.is_empty());
    attempt.end(is_whole, "vault").await;
    db.close().await?;
    let rotated = rotated.context("the vault may be sealed with two keys: run this again")?;
    for path in &rotated.damaged {
        note(&format!("{path} cannot be opened and was left as it is"));
    }
    say(&format!(
        "the vault is sealed with key {}; {} versions were sealed anew",
        rotated.key, rotated.versions
    ));
    if !rotated.damaged.is_empty() {
        bail!(
            "{} versions are still sealed with another key, which is kept for them: put their files back \
             from a copy, or connect their accounts again, and run this again",
            rotated.damaged.len()
        );
    }
    note(match is_configured {
        true => {
            "NUCLEUS_SECRETS__PREVIOUS_VAULT_KEY is needed no more, but for copies of the vault made before"
        }
        false => {
            "the old key is gone: copies of the vault made before need the key file that was copied with them"
        }
    });
    Ok(())
}
