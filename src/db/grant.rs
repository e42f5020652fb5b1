//! What a grant at a service hangs on in `entity_integrations`: who lives on it, where its credentials are,
//! and its end.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, MAX_LIST, Sql, Tx};
use crate::domain::{EntityId, IntegrationId, ServiceName, sync::IntegrationStatus};

/// A grant at a service, as far as integrations can share one.
#[derive(Debug)]
pub struct Grant<'a> {
    /// The integration that holds it, if it is connected.
    pub of: Option<IntegrationId>,
    /// Its owner.
    pub entity_id: EntityId,
    /// The account, where it is known.
    pub account: Option<&'a str>,
}

/// How many other integrations live on the same grant, which stands for `services`. One whose account is
/// not known yet, because it was never asked, counts where it is the same owner's. A token given by hand
/// is no grant's. One whose access is being ended does not count: of two that end at once, neither would
/// be revoked.
pub async fn sharing(db: &Db, grant: &Grant<'_>, services: &[ServiceName]) -> Result<i64, DbError> {
    let mut sql = Sql::new(
        "SELECT count(*) FROM entity_integrations WHERE status NOT IN ('revoked', 'expired')
            AND credential_type = 'oauth2'
            AND NOT EXISTS (SELECT 1 FROM disconnections
                WHERE integration_id = entity_integrations.id AND finished_at IS NULL)",
        [],
    );
    if let Some(id) = grant.of {
        sql = sql.push(" AND id <> ").bind(id);
    }
    sql = match grant.account {
        Some(account) => sql
            .push(" AND (account = ")
            .bind(account)
            .push(" OR (account IS NULL AND entity_id = ")
            .bind(grant.entity_id)
            .push("))"),
        // Of an account that nobody knows, and nobody has, it may be anybody's.
        None if grant.of.is_none() => sql,
        None => sql.push(" AND entity_id = ").bind(grant.entity_id),
    };
    sql.push(" AND service_name IN ")
        .tuple(services.iter().map(|service| service.as_str()))
        .scalar(db.reader())
        .await
}

/// The access is being ended: nothing more is done with it.
pub async fn switch_off(
    tx: &Tx,
    id: IntegrationId,
    status: IntegrationStatus,
    message: &str,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let changed = Sql::new(
        "UPDATE entity_integrations SET status = $2, sync_error_message = $3, updated_at = $4,
            access_ended_at = $4, next_check_at = NULL
         WHERE id = $1",
        [
            id.into(),
            status.as_str().into(),
            message.into(),
            now.into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    match changed {
        0 => Err(DbError::NotFound),
        _ => Ok(()),
    }
}

/// The credentials at `path` are going to be destroyed; `false` where others are pinned by now.
pub async fn drop_secret(
    tx: &Tx,
    id: IntegrationId,
    path: &str,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE entity_integrations SET secret_path = NULL, token_expires_at = NULL,
            refresh_lease_until = NULL, refresh_sent_at = NULL, account_verified = false,
            refresh_generation = refresh_generation + 1,
            credentials_generation = credentials_generation + 1, updated_at = $3
         WHERE id = $1 AND secret_path = $2",
        [id.into(), path.into(), now.into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// Where the credentials of these integrations are; one that is gone, or has none, is left out.
pub async fn secret_paths(
    db: &Db,
    ids: &[IntegrationId],
) -> Result<Vec<(IntegrationId, String)>, DbError> {
    let mut found = Vec::new();
    for some in ids.chunks(MAX_LIST) {
        let rows: Vec<Placed> = Sql::new(
            "SELECT id, secret_path FROM entity_integrations
             WHERE secret_path IS NOT NULL AND id IN ",
            [],
        )
        .tuple(some.iter().copied())
        .all(db.reader())
        .await?;
        found.extend(rows.into_iter().map(|row| (row.id, row.secret_path)));
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Placed {
    id: IntegrationId,
    secret_path: String,
}
