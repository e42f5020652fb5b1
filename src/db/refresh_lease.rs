//! The right to refresh an integration's credentials, which one process has at a time: columns of
//! `entity_integrations`.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, now_ms};
use crate::domain::IntegrationId;

/// The right to refresh an integration's credentials, across processes.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct RefreshLease {
    /// Tells this right from those before and after it.
    #[sea_orm(from_alias = "refresh_generation")]
    pub generation: i64,
    /// Since when it has not been known whether the service took the refresh token in: a refresh was
    /// sent, and nobody stored or refused what came of it.
    #[sea_orm(from_alias = "refresh_sent_at")]
    pub sent_at: Option<DateTime<Utc>>,
}

/// Whether the right was to be had.
#[derive(Debug)]
pub enum Leased {
    /// It is ours.
    Ours(RefreshLease),
    /// Another process has it, until this time of the database's clock, in milliseconds.
    Theirs(i64),
}

/// Takes the right to refresh the credentials, across processes, for `lease_ms`.
///
/// A right whose holder has sent the refresh token is not taken because its time is over: while the
/// database was away, its holder could not renew it, and has the next refresh token in its hands. It is
/// taken by who has seen it `abandoned`: unchanged for as long as a lease, with a database that answered.
pub async fn lease(
    db: &Db,
    id: IntegrationId,
    lease_ms: i64,
    abandoned: Option<i64>,
) -> Result<Leased, DbError> {
    let tx = db.begin().await?;
    let now = now_ms(&tx.inner);
    let lease: Option<RefreshLease> = Sql::new(
        format!(
            "UPDATE entity_integrations SET refresh_lease_until = {now} + $2,
                refresh_generation = refresh_generation + 1
             WHERE id = $1 AND (refresh_lease_until IS NULL OR (refresh_lease_until < {now}
                AND (refresh_sent_at IS NULL OR refresh_lease_until = $3)))
             RETURNING refresh_generation, refresh_sent_at"
        ),
        [id.into(), lease_ms.into(), abandoned.into()],
    )
    .one(&tx.inner)
    .await?;
    let leased = match lease {
        Some(lease) => Leased::Ours(lease),
        None => {
            let until: Option<Option<i64>> = Sql::new(
                "SELECT refresh_lease_until FROM entity_integrations WHERE id = $1",
                [id.into()],
            )
            .optional(&tx.inner)
            .await?;
            // One that was given back between the two is had at the next look.
            Leased::Theirs(until.ok_or(DbError::NotFound)?.unwrap_or_default())
        }
    };
    tx.commit().await?;
    Ok(leased)
}

/// Holds the right for another `lease_ms`; `false` where it has ended or passed to somebody else.
pub async fn renew(
    db: &Db,
    id: IntegrationId,
    generation: i64,
    lease_ms: i64,
) -> Result<bool, DbError> {
    let tx = db.begin().await?;
    let now = now_ms(&tx.inner);
    let changed = Sql::new(
        format!(
            "UPDATE entity_integrations SET refresh_lease_until = {now} + $3
             WHERE id = $1 AND refresh_generation = $2 AND refresh_lease_until IS NOT NULL"
        ),
        [id.into(), generation.into(), lease_ms.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(changed == 1)
}

/// The refresh token is about to be sent; `false` where the right has passed to somebody else, and it
/// must not be.
pub async fn sent(
    db: &Db,
    id: IntegrationId,
    generation: i64,
    at: DateTime<Utc>,
) -> Result<bool, DbError> {
    let tx = db.begin().await?;
    let changed = Sql::new(
        "UPDATE entity_integrations SET refresh_sent_at = coalesce(refresh_sent_at, $3)
         WHERE id = $1 AND refresh_generation = $2 AND refresh_lease_until IS NOT NULL",
        [id.into(), generation.into(), at.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(changed == 1)
}

/// Gives the right back with what is known by then of a refresh that was sent, unless the right has
/// passed to somebody else.
pub async fn release(db: &Db, id: IntegrationId, lease: &RefreshLease) -> Result<(), DbError> {
    let tx = db.begin().await?;
    Sql::new(
        "UPDATE entity_integrations SET refresh_lease_until = NULL, refresh_sent_at = $3
         WHERE id = $1 AND refresh_generation = $2",
        [id.into(), lease.generation.into(), lease.sent_at.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}
