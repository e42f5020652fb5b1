//! Connections and their credentials: the order in which row and secret are written, so that
//! neither is ever left without the other.
//!
//! An intent row announces a version of a secret, the version is written, and one transaction pins
//! it on the integration and removes the intent. What a death in between leaves behind is an intent
//! older than an hour; the sweep then destroys what is not pinned.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;

use crate::{
    db::{
        Db, DbError, Tx,
        audit_log::{self, Act},
        disconnection, entity,
        integration::{self, Integration, Named},
        secret_intent::{self, SecretIntent, SecretIntentId},
    },
    domain::{
        Clock, EntityId, IntegrationId, ServiceName, audit::Action, errors, ids::Id, sync::Scope,
    },
    metrics::Metrics,
    oauth::{account::Known, tokens::TokenService},
    providers::Account,
    secrets::{Credentials, Labels, SecretError, SecretName, SecretPath, SecretStore},
};

mod check;
mod disconnect;
mod revocation;
mod waiting;

pub use check::Checked;
pub use disconnect::{Records, Removed};
pub use revocation::Revocation;

/// An intent whose writer has not come back for so long belongs to a dead one.
pub const INTENT_AGE: TimeDelta = TimeDelta::hours(1);
/// Intents looked at in one sweep.
const SWEEP: u64 = 100;
/// An account as its row names it.
pub fn named(account: &Account) -> Named<'_> {
    Named {
        id: &account.id,
        name: &account.name,
    }
}

/// Why a connection was not made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum IntegrationError {
    /// The entity has the service connected.
    #[error("the entity has this service connected")]
    Exists,
    /// The access of the connection is being ended.
    #[error("the access to this account is being ended: try again in some minutes")]
    Ending,
    /// The store did not do it; [`DbError::Conflict`] where somebody else changed the connection at
    /// the same time.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The secret store did not do it.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// A version of a secret that is written and that no row names yet.
#[derive(Debug)]
pub struct Announced {
    /// Announces it.
    pub intent: SecretIntentId,
    /// Where it is.
    pub path: SecretPath,
}

/// Makes, changes and removes connections.
pub struct Integrations {
    db: Db,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    tokens: Arc<TokenService>,
    metrics: Arc<Metrics>,
}

/// Fails where the access of an integration, whose row `tx` has changed, is being ended: what it were
/// given now would go with it.
pub async fn refuse_if_ending(tx: &Tx, id: IntegrationId) -> Result<(), IntegrationError> {
    match disconnection::is_under_way(tx, id).await? {
        true => Err(IntegrationError::Ending),
        false => Ok(()),
    }
}

impl Integrations {
    /// Works on these.
    pub fn new(
        db: Db,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        tokens: Arc<TokenService>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            db,
            secrets,
            clock,
            tokens,
            metrics,
        }
    }

    /// Adds the connection with its credentials; `row.secret_path` is set here. One that is there
    /// under the same id was added by the same request, which was not answered: it is given back.
    pub async fn create(
        &self,
        mut row: Integration,
        credentials: Credentials,
    ) -> Result<Integration, IntegrationError> {
        let announced = self
            .announce(row.entity_id, row.service()?, credentials)
            .await?;
        row.secret_path = Some(announced.path.to_string());
        let result = self.insert(&row, announced.intent).await;
        if let Err(error) = result {
            // Only the version made here: the entity's other connection has its own.
            if !error.is_in_doubt() {
                self.take_back(&announced).await;
            }
            if matches!(error, DbError::Conflict) {
                return match integration::find(&self.db, Scope::Operator, row.id).await {
                    Err(DbError::NotFound) => Err(IntegrationError::Exists),
                    found => Ok(found?),
                };
            }
            let is_orphan = !entity::exists(&self.db, row.entity_id).await?;
            return Err(if is_orphan { DbError::NotFound } else { error }.into());
        }
        Ok(row)
    }

    async fn insert(&self, row: &Integration, intent: SecretIntentId) -> Result<(), DbError> {
        let tx = self.db.begin().await?;
        integration::insert(&tx, row).await?;
        secret_intent::delete(&tx, intent).await?;
        self.write_down(&tx, row, Action::IntegrationCreate).await?;
        tx.commit().await
    }

    /// Gives the connection other credentials and destroys the old ones. `asked` is whose they are, or
    /// why the service did not say so, where it was asked.
    pub async fn replace_credentials(
        &self,
        found: &Integration,
        credentials: Credentials,
        asked: Option<Result<Known, String>>,
    ) -> Result<(), IntegrationError> {
        let announced = self
            .announce(found.entity_id, found.service()?, credentials)
            .await?;
        if let Err(error) = self.pin(found, &announced.path, asked).await {
            let is_in_doubt = matches!(&error, IntegrationError::Db(error) if error.is_in_doubt());
            if !is_in_doubt {
                self.take_back(&announced).await;
            }
            return Err(error);
        }
        self.tokens.forget(found.id);
        self.destroy_last(found.secret_path.as_deref(), announced.intent)
            .await;
        Ok(())
    }

    async fn pin(
        &self,
        found: &Integration,
        path: &SecretPath,
        asked: Option<Result<Known, String>>,
    ) -> Result<(), IntegrationError> {
        let before = found.secret_path.as_deref();
        let tx = self.db.begin().await?;
        let now = self.clock.now();
        integration::pin_secret(&tx, found.id, before, &path.to_string(), true, now).await?;
        refuse_if_ending(&tx, found.id).await?;
        match asked {
            None => {}
            Some(Ok(Known { account, scopes })) => {
                integration::set_account(&tx, found.id, named(&account), now).await?;
                if let Some(scopes) = scopes {
                    integration::set_scopes(&tx, found.id, json!(scopes)).await?;
                }
            }
            Some(Err(untested)) => integration::set_message(&tx, found.id, Some(&untested)).await?,
        }
        self.write_down(&tx, found, Action::CredentialsReplace)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Appends what is done with a connection to the audit log, at the end of the transaction that does
    /// it.
    async fn write_down(&self, tx: &Tx, of: &Integration, action: Action) -> Result<(), DbError> {
        let target = of.id.to_string();
        let act = Act::done(of.entity_id, action, &target);
        audit_log::append(tx, &act, self.clock.now())
            .await
            .map(drop)
    }

    /// The credentials at `path`.
    pub async fn credentials(&self, path: &str) -> Result<Credentials, SecretError> {
        let path: SecretPath = path.parse()?;
        Credentials::open(&self.secrets.get(&path).await?)
    }

    /// Announces a version and writes it. It is to be pinned together with
    /// [`Integrations::insert`] or the like, or taken back.
    pub async fn announce(
        &self,
        entity_id: EntityId,
        service: ServiceName,
        credentials: Credentials,
    ) -> Result<Announced, IntegrationError> {
        let labels = Labels { entity_id, service };
        let name = SecretName::new(entity_id, service);
        let intent = SecretIntent {
            id: Id::new(),
            secret_name: name.to_string(),
            created_at: self.clock.now(),
        };
        let tx = self.db.begin().await?;
        secret_intent::insert(&tx, &intent).await?;
        tx.commit().await?;
        fail::fail_point!("secret.intent");
        let path = self
            .secrets
            .put(&name, credentials.seal()?, &labels)
            .await?;
        fail::fail_point!("secret.put");
        Ok(Announced {
            intent: intent.id,
            path,
        })
    }

    /// Undoes [`Integrations::announce`] where the version is not wanted after all, or the
    /// transaction that should have pinned it failed. One whose end is in doubt may have pinned it,
    /// and is left to the sweep.
    pub async fn take_back(&self, announced: &Announced) {
        self.destroy_last(Some(announced.path.as_str()), announced.intent)
            .await;
    }

    /// Destroys a version that no row names any more, and then forgets the intent. If this fails,
    /// the intent stays, and the sweep does it.
    pub async fn destroy_last(&self, path: Option<&str>, intent: SecretIntentId) {
        let destroyed: Result<(), IntegrationError> = async {
            if let Some(path) = path {
                let path = path.parse().map_err(SecretError::from)?;
                self.secrets.destroy(&path).await?;
            }
            let tx = self.db.begin().await?;
            secret_intent::delete(&tx, intent).await?;
            Ok(tx.commit().await?)
        }
        .await;
        if let Err(error) = destroyed {
            let error = errors::chain(&error);
            tracing::warn!(error, "a version of a secret is left to the sweep");
        }
    }

    /// Destroys versions that were announced by a process that died before it pinned them.
    pub async fn sweep_secrets(&self) {
        if let Err(error) = self.try_sweep_secrets().await {
            let error = errors::chain(&error);
            tracing::error!(error, "secrets without an integration could not be swept");
        }
    }

    async fn try_sweep_secrets(&self) -> Result<(), IntegrationError> {
        let old = self.clock.now() - INTENT_AGE;
        for intent in secret_intent::older_than(&self.db, old, SWEEP).await? {
            let Ok(name) = intent.secret_name.parse::<SecretName>() else {
                return Err(DbError::Schema(format!(
                    "secret_intents.secret_name {:?} is no name of ours",
                    intent.secret_name
                ))
                .into());
            };
            // The versions first: each of them was announced before it was listed, so what is read after
            // it knows either its intent or that it is pinned.
            let versions = self.secrets.versions(&name).await?;
            // A younger intent's version may be the next to be pinned.
            if secret_intent::has_younger(&self.db, &intent.secret_name, old).await? {
                continue;
            }
            let pinned = integration::pinned_paths(&self.db, &intent.secret_name).await?;
            for path in versions {
                if !pinned.contains(&path.to_string()) {
                    self.secrets.destroy(&path).await?;
                    tracing::warn!(secret.path = %path, "a version that nobody pinned was destroyed");
                }
            }
            let tx = self.db.begin().await?;
            secret_intent::delete(&tx, intent.id).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Whether the secret store answers.
    pub async fn secrets_answer(&self) -> bool {
        let probe = SecretName::new(EntityId::from(uuid::Uuid::nil()), ServiceName::Gmail);
        self.secrets.versions(&probe).await.is_ok()
    }
}
