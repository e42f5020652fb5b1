//! Connections and their credentials: the order in which row and secret are written, so that
//! neither is ever left without the other.
//!
//! An intent row announces a version of a secret, the version is written, and one transaction pins
//! it on the integration and removes the intent. What a death in between leaves behind is an intent
//! older than an hour; the sweep then destroys what is not pinned.

use std::sync::Arc;

use chrono::TimeDelta;
use secrecy::SecretString;
use serde::Serialize;
use tracing::Span;
use utoipa::ToSchema;

use crate::{
    audit::Attempt,
    db::{
        Db, DbError, Tx,
        audit_log::{self, Act},
        entity, former_integration, integration,
        integration::{Grant, Integration, Named},
        outbox, raw_data, secret_intent,
        secret_intent::{SecretIntent, SecretIntentId},
        sync_run,
    },
    domain::{
        Clock, EntityId, IntegrationId, ServiceName, audit::Action, errors, ids::Id,
        record::Change, sync::Scope,
    },
    oauth::tokens::TokenService,
    secrets::{Credentials, Labels, SecretError, SecretName, SecretPath, SecretStore},
    traces,
};

/// An intent whose writer has not come back for so long belongs to a dead one.
pub const INTENT_AGE: TimeDelta = TimeDelta::hours(1);
/// Intents looked at in one sweep.
const SWEEP: u64 = 100;
/// Records deleted in one statement.
const DELETE: u64 = 100;
/// Revoking at Google ends the grant of all three.
const GOOGLE: [ServiceName; 3] = [
    ServiceName::Gmail,
    ServiceName::GoogleCalendar,
    ServiceName::GoogleDrive,
];

/// The services for which one grant of `service` stands.
pub fn sharing(service: &ServiceName) -> &[ServiceName] {
    if GOOGLE.contains(service) {
        &GOOGLE
    } else {
        std::slice::from_ref(service)
    }
}

/// Why a connection was not made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum IntegrationError {
    /// The entity has the service connected.
    #[error("the entity has this service connected")]
    Exists,
    /// The store did not do it; [`DbError::Conflict`] where somebody else changed the connection at
    /// the same time.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The secret store did not do it.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// What becomes of the records of a removed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// They stay, and are adopted when the same entity connects the same account again.
    Keep,
    /// They go.
    Delete,
}

/// A version of a secret that is written and that no row names yet.
#[derive(Debug)]
pub struct Announced {
    /// Announces it.
    pub intent: SecretIntentId,
    /// Where it is.
    pub path: SecretPath,
}

/// What removing an integration did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedIntegration)]
pub struct Removed {
    /// The integration that was.
    pub integration_id: IntegrationId,
    /// Whether the service revoked the grant.
    pub revoked: bool,
    /// Why it did not: `shared_grant` (another integration lives on it), `not_supported`, or what the
    /// service said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// How many records were kept or deleted.
    pub records: u64,
}

/// Makes, changes and removes connections.
pub struct Integrations {
    db: Db,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    tokens: Arc<TokenService>,
}

impl Integrations {
    /// Works on these.
    pub fn new(
        db: Db,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        tokens: Arc<TokenService>,
    ) -> Self {
        Self {
            db,
            secrets,
            clock,
            tokens,
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

    /// Gives the connection other credentials and destroys the old ones. `account` is whose they are,
    /// where the service has said so.
    pub async fn replace_credentials(
        &self,
        found: &Integration,
        credentials: Credentials,
        account: Option<Named<'_>>,
    ) -> Result<(), IntegrationError> {
        let announced = self
            .announce(found.entity_id, found.service()?, credentials)
            .await?;
        if let Err(error) = self.pin(found, &announced.path, account).await {
            if !error.is_in_doubt() {
                self.take_back(&announced).await;
            }
            return Err(error.into());
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
        account: Option<Named<'_>>,
    ) -> Result<(), DbError> {
        let before = found.secret_path.as_deref();
        let tx = self.db.begin().await?;
        let now = self.clock.now();
        integration::pin_secret(&tx, found.id, before, &path.to_string(), true, now).await?;
        if let Some(account) = account {
            integration::set_account(&tx, found.id, account, now).await?;
        }
        self.write_down(&tx, found, Action::CredentialsReplace)
            .await?;
        tx.commit().await
    }

    /// Removes the connection: at the service, with its runs and credentials, and with its records
    /// or without them. A service that fails does not stop the removal.
    pub async fn remove(
        &self,
        found: &Integration,
        records: Records,
    ) -> Result<Removed, IntegrationError> {
        let (revoked, reason) = self.revoke(found).await?;
        let name = SecretName::new(found.entity_id, found.service()?);
        let now = self.clock.now();
        let tx = self.db.begin().await?;
        // The run first and the integration then, as a worker's transactions take them: the other way
        // round each would wait for the other.
        sync_run::take_away(&tx, found.id).await?;
        // Takes the row, and reads it again: its credentials may have been replaced meanwhile.
        integration::update(&tx, found.id, integration::Update::default(), now).await?;
        let found = &integration::find_in(&tx, Scope::Operator, found.id).await?;
        // The credentials go after the row; until then the intent remembers them.
        let intent = SecretIntent {
            id: Id::new(),
            secret_name: name.to_string(),
            created_at: now,
        };
        secret_intent::insert(&tx, &intent).await?;
        let count = match records {
            Records::Keep => {
                if let Some(account) = &found.account {
                    former_integration::insert(&tx, found, account, now).await?;
                }
                raw_data::release(&tx, found.id).await?
            }
            Records::Delete => self.delete_records(&tx, found).await?,
        };
        outbox::delete_sync_requests(&tx, found.id).await?;
        integration::delete(&tx, found.id).await?;
        self.write_down(&tx, found, Action::IntegrationRemove)
            .await?;
        tx.commit().await?;
        self.tokens.forget(found.id);
        self.destroy_last(found.secret_path.as_deref(), intent.id)
            .await;
        Ok(Removed {
            integration_id: found.id,
            revoked,
            reason,
            records: count,
        })
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

    async fn delete_records(&self, tx: &Tx, found: &Integration) -> Result<u64, DbError> {
        let source = outbox::Source {
            entity_id: found.entity_id,
            integration_id: found.id,
            service_name: found.service_name.clone(),
            run_id: None,
            traceparent: traces::traceparent(&Span::current()),
        };
        let mut count = 0;
        loop {
            let rows = raw_data::delete_some(tx, found.id, DELETE).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            count += rows.len() as u64;
            let changed = rows
                .iter()
                .filter(|(_, stored)| !stored.deleted)
                .map(|(id, stored)| stored.changed(id, Change::Deleted))
                .collect();
            outbox::append_dna_events(tx, &source, changed, self.clock.now()).await?;
        }
    }

    /// Revokes the grant of a connection that is being removed.
    async fn revoke(&self, found: &Integration) -> Result<(bool, Option<String>), DbError> {
        let service = found.service()?;
        if found.credential_type != "oauth2" {
            return Ok((false, Some("not_supported".to_owned())));
        }
        let path = found.secret_path.as_deref().unwrap_or_default();
        let credentials = match self.credentials(path).await {
            Ok(credentials) => credentials,
            Err(error) => {
                tracing::warn!(
                    integration.id = %found.id,
                    error = errors::chain(&error),
                    "the grant was not revoked, because its credentials cannot be read"
                );
                let reason = format!("the credentials cannot be read: {}", error.outline());
                return Ok((false, Some(reason)));
            }
        };
        let Credentials::OAuth2(credentials) = credentials else {
            return Ok((false, Some("not_supported".to_owned())));
        };
        let grant = Grant {
            of: Some(found.id),
            entity_id: found.entity_id,
            account: found.account.as_deref(),
            services: sharing(&service),
        };
        match credentials.grant_token() {
            Some(token) => self.revoke_grant(service, &grant, token).await,
            None => Ok((false, Some("not_supported".to_owned()))),
        }
    }

    /// Revokes a grant by one of its tokens, unless a connection lives on it. A service that fails is no error: the second
    /// part says why the grant was not revoked.
    pub async fn revoke_grant(
        &self,
        service: ServiceName,
        grant: &Grant<'_>,
        token: &SecretString,
    ) -> Result<(bool, Option<String>), DbError> {
        if integration::sharing_grant(&self.db, grant).await? > 0 {
            return Ok((false, Some("shared_grant".to_owned())));
        }
        let target = grant.of.map_or(service.to_string(), |id| id.to_string());
        let attempt = Attempt::begin(
            &self.db,
            self.clock.as_ref(),
            Some(grant.entity_id),
            Action::GrantRevoke,
            &target,
        )
        .await?;
        let revoked = self.tokens.revoke(service, token).await;
        attempt.end(revoked.is_ok(), &target).await;
        match revoked {
            Ok(()) => Ok((true, None)),
            Err(error) => {
                tracing::warn!(
                    entity.id = %grant.entity_id,
                    provider = %service,
                    error = %error,
                    "the service did not revoke the grant"
                );
                Ok((false, Some(error.to_string())))
            }
        }
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
            // A younger intent's version may be the next to be pinned.
            if secret_intent::has_younger(&self.db, &intent.secret_name, old).await? {
                continue;
            }
            let pinned = integration::pinned_paths(&self.db, &intent.secret_name).await?;
            for path in self.secrets.versions(&name).await? {
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

    /// Removes an entity with all its connections and their records; each connection's grant is
    /// revoked first.
    pub async fn remove_entity(&self, id: EntityId) -> Result<Vec<Removed>, IntegrationError> {
        let mut removed = Vec::new();
        loop {
            let slicing = crate::db::Slicing {
                after: None,
                limit: 100,
            };
            let found = integration::list(
                &self.db,
                Scope::Entity(id),
                &integration::Filter::default(),
                slicing,
            )
            .await?;
            if found.items.is_empty() {
                break;
            }
            for item in &found.items {
                removed.push(self.remove(item, Records::Delete).await?);
            }
        }
        let tx = self.db.begin().await?;
        entity::delete(&tx, id).await?;
        let target = id.to_string();
        let act = Act::done(id, Action::EntityRemove, &target);
        audit_log::append(&tx, &act, self.clock.now()).await?;
        tx.commit().await?;
        // A connection made meanwhile went with the entity; nobody will write these names again.
        for service in ServiceName::ALL {
            let name = SecretName::new(id, service);
            if let Err(error) = self.secrets.delete(&name).await {
                let error = errors::chain(&error);
                tracing::warn!(error, "the secrets of a removed entity may be left");
            }
        }
        Ok(removed)
    }
}
