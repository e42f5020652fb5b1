//! `entity_integrations`: connected accounts.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};

use super::{Db, DbError, Slice, Slicing, Sql, Tx, standing};
use crate::domain::{
    EntityId, IntegrationId, ServiceName,
    sync::{IntegrationStatus, Scope},
};

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Integration {
    /// Its id.
    pub id: IntegrationId,
    /// Its owner.
    pub entity_id: EntityId,
    /// The service.
    pub service_name: String,
    /// The owner's own word for the kind of service.
    pub service_type: Option<String>,
    /// What people call it.
    pub display_name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where its credentials are, the version pinned.
    pub secret_path: Option<String>,
    /// `oauth2`, `api_key`, `basic_auth` or `bearer_token`.
    pub credential_type: String,
    /// See [`IntegrationStatus`].
    pub status: String,
    /// What names the account at the service for good, once it has been asked.
    pub account: Option<String>,
    /// What people know that account by.
    pub account_name: Option<String>,
    /// Whether the account was asked for with the present credentials.
    pub account_verified: bool,
    /// When the last run ended that did not fail.
    pub last_sync_at: Option<DateTime<Utc>>,
    /// `success`, `partial` or `failed`.
    pub last_sync_status: Option<String>,
    /// Why it failed.
    pub sync_error_message: Option<String>,
    /// How many runs have failed since the last one that did not.
    pub sync_failures: i32,
    /// When the scheduler asks for the next run.
    pub next_sync_at: Option<DateTime<Utc>>,
    /// When the access token given at creation ends.
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When the person has to consent again, where that is known.
    pub consent_expires_at: Option<DateTime<Utc>>,
    /// Counts the versions of the credentials and the attempts to refresh them.
    pub refresh_generation: i64,
    /// Counts how often other credentials were given or these taken away; a refresh is none of it.
    pub credentials_generation: i64,
    /// When the operator ended the access, until the account is connected again.
    pub access_ended_at: Option<DateTime<Utc>>,
    /// When the service is asked how the connection stands, where no sync does.
    pub next_check_at: Option<DateTime<Utc>>,
    /// Scopes asked for.
    pub scopes: JsonValue,
    /// The owner's own settings of the connector.
    pub config: JsonValue,
    /// See [`crate::sync::settings`].
    pub sync_settings: JsonValue,
    /// Free.
    pub meta_data: JsonValue,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub updated_at: DateTime<Utc>,
    /// Who made it: `operator` or the id of the key.
    pub created_by: Option<String>,
}

impl Integration {
    /// The status as a value.
    pub fn status(&self) -> Result<IntegrationStatus, DbError> {
        self.status
            .parse()
            .map_err(|error: crate::domain::sync::UnknownWord| {
                DbError::Schema(format!("entity_integrations.status: {error}"))
            })
    }

    /// What people know the account by; one that was asked for by an older program has one name only.
    pub fn account_shown(&self) -> Option<&str> {
        self.account_name.as_deref().or(self.account.as_deref())
    }

    /// The service as a value.
    pub fn service(&self) -> Result<ServiceName, DbError> {
        self.service_name
            .parse()
            .map_err(|error: crate::domain::service::UnknownService| {
                DbError::Schema(format!("entity_integrations.service_name: {error}"))
            })
    }
}

/// Adds an integration; another of the same entity and service is a [`DbError::Conflict`].
pub async fn insert(tx: &Tx, row: &Integration) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO entity_integrations (id, entity_id, service_name, service_type, display_name,
            description, secret_path, credential_type, status, account, account_name, account_verified,
            next_sync_at, token_expires_at, consent_expires_at, scopes, config, sync_settings, meta_data,
            created_at, updated_at, created_by, sync_error_message, next_check_at)
         VALUES ",
        [],
    )
    .tuple([
        Value::from(row.id),
        row.entity_id.into(),
        row.service_name.clone().into(),
        row.service_type.clone().into(),
        row.display_name.clone().into(),
        row.description.clone().into(),
        row.secret_path.clone().into(),
        row.credential_type.clone().into(),
        row.status.clone().into(),
        row.account.clone().into(),
        row.account_name.clone().into(),
        row.account_verified.into(),
        row.next_sync_at.into(),
        row.token_expires_at.into(),
        row.consent_expires_at.into(),
        row.scopes.clone().into(),
        row.config.clone().into(),
        row.sync_settings.clone().into(),
        row.meta_data.clone().into(),
        row.created_at.into(),
        row.updated_at.into(),
        row.created_by.clone().into(),
        row.sync_error_message.clone().into(),
        row.next_check_at.into(),
    ])
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The integration, if `scope` may see it.
pub async fn find(db: &Db, scope: Scope, id: IntegrationId) -> Result<Integration, DbError> {
    by_id(scope, id)
        .one(db.reader())
        .await?
        .ok_or(DbError::NotFound)
}

/// As [`find`], within a transaction.
pub async fn find_in(tx: &Tx, scope: Scope, id: IntegrationId) -> Result<Integration, DbError> {
    by_id(scope, id)
        .one(&tx.inner)
        .await?
        .ok_or(DbError::NotFound)
}

/// The integration of an entity at a service.
pub async fn of_service(
    db: &Db,
    entity: EntityId,
    service: ServiceName,
) -> Result<Option<Integration>, DbError> {
    by_service(entity, service).one(db.reader()).await
}

/// As [`of_service`], within a transaction.
pub async fn of_service_in(
    tx: &Tx,
    entity: EntityId,
    service: ServiceName,
) -> Result<Option<Integration>, DbError> {
    by_service(entity, service).one(&tx.inner).await
}

fn by_service(entity: EntityId, service: ServiceName) -> Sql {
    Sql::new(
        "SELECT * FROM entity_integrations WHERE entity_id = $1 AND service_name = $2",
        [entity.into(), service.as_str().into()],
    )
}

fn by_id(scope: Scope, id: IntegrationId) -> Sql {
    Sql::new(
        "SELECT * FROM entity_integrations WHERE id = $1",
        [id.into()],
    )
    .owned_by(scope)
}

/// Which integrations a list shows.
#[derive(Debug, Default)]
pub struct Filter {
    /// Only this entity's.
    pub entity_id: Option<EntityId>,
    /// Only this service's.
    pub service_name: Option<ServiceName>,
    /// Only those that stand so.
    pub status: Option<IntegrationStatus>,
    /// Only those whose consent ends before this.
    pub consent_ends_before: Option<DateTime<Utc>>,
}

/// Integrations that `scope` may see, newest first.
pub async fn list(
    db: &Db,
    scope: Scope,
    filter: &Filter,
    slicing: Slicing,
) -> Result<Slice<Integration>, DbError> {
    let mut sql = Sql::new("SELECT * FROM entity_integrations WHERE true", []).owned_by(scope);
    if let Some(entity) = filter.entity_id {
        sql = sql.push(" AND entity_id = ").bind(entity);
    }
    if let Some(service) = filter.service_name {
        sql = sql.push(" AND service_name = ").bind(service.as_str());
    }
    if let Some(status) = filter.status {
        sql = sql.push(" AND status = ").bind(status.as_str());
    }
    if let Some(time) = filter.consent_ends_before {
        sql = sql.push(" AND consent_expires_at < ").bind(time);
    }
    sql.slice(slicing, db.reader()).await
}

/// What an owner changes; what is absent stays.
#[derive(Debug, Default)]
pub struct Update {
    /// Shown name; the inner absence clears it.
    pub display_name: Option<Option<String>>,
    /// Description; the inner absence clears it.
    pub description: Option<Option<String>>,
    /// The connector's settings.
    pub config: Option<JsonValue>,
    /// How to sync.
    pub sync_settings: Option<JsonValue>,
    /// Switched on or off.
    pub status: Option<IntegrationStatus>,
    /// When the next run is due.
    pub next_sync_at: Option<DateTime<Utc>>,
}

/// Applies what an owner changes.
pub async fn update(
    tx: &Tx,
    id: IntegrationId,
    update: Update,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let mut sql = Sql::new(
        "UPDATE entity_integrations SET updated_at = $1",
        [now.into()],
    );
    if let Some(display_name) = update.display_name {
        sql = sql.push(", display_name = ").bind(display_name);
    }
    if let Some(description) = update.description {
        sql = sql.push(", description = ").bind(description);
    }
    if let Some(config) = update.config {
        sql = sql.push(", config = ").bind(config);
    }
    if let Some(sync_settings) = update.sync_settings {
        sql = sql.push(", sync_settings = ").bind(sync_settings);
    }
    if let Some(status) = update.status {
        sql = sql.push(", status = ").bind(status.as_str());
    }
    if let Some(next_sync_at) = update.next_sync_at {
        sql = sql.push(", next_sync_at = ").bind(next_sync_at);
    }
    one_changed(sql.push(" WHERE id = ").bind(id).execute(&tx.inner).await?)
}

/// Pins another version of the credentials, if the pinned one is still `before`. New credentials
/// of the owner (`replaced`) may be another account's, so the account has to be asked for again,
/// and a connection that had ended is active. Whoever holds the right to refresh has no use for it
/// any more, so it ends; [`super::refresh_lease::release`] with the generation of before would not find it.
pub async fn pin_secret(
    tx: &Tx,
    id: IntegrationId,
    before: Option<&str>,
    path: &str,
    replaced: bool,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let changed = Sql::new(
        "UPDATE entity_integrations SET secret_path = $2, updated_at = $3,
            refresh_generation = refresh_generation + 1, refresh_lease_until = NULL,
            refresh_sent_at = NULL,
            account_verified = (account_verified AND NOT $4),
            token_expires_at = CASE WHEN $4 THEN NULL ELSE token_expires_at END,
            consent_expires_at = CASE WHEN $4 THEN NULL ELSE consent_expires_at END,
            sync_error_message = CASE WHEN $4 THEN NULL ELSE sync_error_message END,
            credentials_generation = credentials_generation + CASE WHEN $4 THEN 1 ELSE 0 END,
            access_ended_at = CASE WHEN $4 THEN NULL ELSE access_ended_at END,
            next_check_at = CASE WHEN $4 AND next_sync_at IS NULL THEN $3 ELSE next_check_at END,
            status = CASE WHEN $4 AND status <> 'inactive' THEN 'active' ELSE status END
         WHERE id = $1 AND coalesce(secret_path, '') = $5",
        [
            id.into(),
            path.into(),
            now.into(),
            replaced.into(),
            before.unwrap_or_default().into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    if changed == 0 {
        Err(DbError::Conflict)
    } else {
        Ok(())
    }
}

/// An account at a service.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// What names it for good.
    pub id: &'a str,
    /// What people know it by.
    pub name: &'a str,
}

/// What an account that is connected again brings.
#[derive(Debug)]
pub struct Reconnected<'a> {
    /// Whose it is, as the service knows it and as people do.
    pub account: Named<'a>,
    /// Where its credentials are.
    pub secret_path: &'a str,
    /// What was granted.
    pub scopes: JsonValue,
    /// When the access token ends.
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When the person has to consent again.
    pub consent_expires_at: Option<DateTime<Utc>>,
}

/// Gives an integration the credentials of the account that was connected again, and switches it
/// on. A [`DbError::Conflict`] where it has other credentials than it was `found` with.
pub async fn reconnect(
    tx: &Tx,
    found: &Integration,
    again: Reconnected<'_>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let changed = Sql::new(
        "UPDATE entity_integrations SET account = $2, secret_path = $3, scopes = $4,
            token_expires_at = $5, updated_at = $6, credential_type = 'oauth2', status = 'active',
            sync_error_message = NULL, account_verified = true, refresh_lease_until = NULL,
            refresh_sent_at = NULL, account_name = $8, consent_expires_at = $9,
            refresh_generation = refresh_generation + 1, access_ended_at = NULL,
            credentials_generation = credentials_generation + 1,
            next_check_at = CASE WHEN next_sync_at IS NULL THEN $10 END
         WHERE id = $1 AND coalesce(secret_path, '') = $7",
        [
            found.id.into(),
            again.account.id.into(),
            again.secret_path.into(),
            again.scopes.into(),
            again.token_expires_at.into(),
            now.into(),
            found.secret_path.clone().unwrap_or_default().into(),
            again.account.name.into(),
            again.consent_expires_at.into(),
            (now + standing::CHECK_EVERY).into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    if changed == 0 {
        Err(DbError::Conflict)
    } else {
        Ok(())
    }
}

/// A refresh moved the end of the consent to which the credentials at `path` belong.
pub async fn set_consent_end(
    tx: &Tx,
    id: IntegrationId,
    path: &str,
    end: DateTime<Utc>,
) -> Result<(), DbError> {
    Sql::new(
        "UPDATE entity_integrations SET consent_expires_at = $3
         WHERE id = $1 AND secret_path = $2",
        [id.into(), path.into(), end.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The service named the account behind the present credentials.
pub async fn set_account(
    tx: &Tx,
    id: IntegrationId,
    account: Named<'_>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    Sql::new(
        "UPDATE entity_integrations SET account = $2, account_name = $4, account_verified = true,
            updated_at = $3
         WHERE id = $1",
        [
            id.into(),
            account.id.into(),
            now.into(),
            account.name.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// What the service says that the present credentials may do.
pub async fn set_scopes(tx: &Tx, id: IntegrationId, scopes: JsonValue) -> Result<(), DbError> {
    Sql::new(
        "UPDATE entity_integrations SET scopes = $2 WHERE id = $1",
        [id.into(), scopes.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// What its owner has to know of the connection.
pub async fn set_message(tx: &Tx, id: IntegrationId, message: Option<&str>) -> Result<(), DbError> {
    Sql::new(
        "UPDATE entity_integrations SET sync_error_message = $2 WHERE id = $1",
        [id.into(), message.map(str::to_owned).into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Removes the row and, by cascade, its runs, cursors and gaps.
pub async fn delete(tx: &Tx, id: IntegrationId) -> Result<(), DbError> {
    one_changed(
        Sql::new("DELETE FROM entity_integrations WHERE id = $1", [id.into()])
            .execute(&tx.inner)
            .await?,
    )
}

fn one_changed(changed: u64) -> Result<(), DbError> {
    if changed == 0 {
        Err(DbError::NotFound)
    } else {
        Ok(())
    }
}

/// The versions of a secret that integrations have pinned.
pub async fn pinned_paths(db: &Db, secret_name: &str) -> Result<Vec<String>, DbError> {
    let rows: Vec<Pinned> = Sql::new(
        "SELECT secret_path FROM entity_integrations WHERE secret_path LIKE $1",
        [format!("%{secret_name}/%").into()],
    )
    .all(db.reader())
    .await?;
    Ok(rows.into_iter().map(|row| row.secret_path).collect())
}

#[derive(FromQueryResult)]
struct Pinned {
    secret_path: String,
}
