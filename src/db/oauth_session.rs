//! `oauth_sessions`: OAuth flows under way. No secret is in a row: of the state and of the browser's
//! cookie there are hashes, and the code verifier is made of the state and [`OAuthSession::pkce_salt`].

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue};

use super::{Db, DbError, Sql, Tx, integration::Named, secret_intent::SecretIntentId};
use crate::domain::{EntityId, IntegrationId, ServiceName, ids::Id};

/// A session's id.
pub type OAuthSessionId = Id<kind::OAuthSession>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::OAuthSessionId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum OAuthSession {}
}

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The person is at the authorization server.
    Started,
    /// The state was used; the code is being exchanged, or that failed.
    Used,
    /// The account is known and its credentials are kept; the person has to confirm.
    Confirming,
    /// The person does not confirm; the grant is being revoked, until when its credentials are kept.
    Ending,
    /// The account is connected.
    Connected,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Used => "used",
            Self::Confirming => "confirming",
            Self::Ending => "ending",
            Self::Connected => "connected",
        }
    }
}

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct OAuthSession {
    /// Its id.
    pub id: OAuthSessionId,
    /// Whose account is being connected.
    pub entity_id: EntityId,
    /// At which service.
    pub service_name: String,
    /// Lower-case hex SHA-256 of the state.
    pub state_hash: String,
    /// Random; with the state it gives the code verifier.
    pub pkce_salt: String,
    /// Lower-case hex SHA-256 of the cookie of the browser that the flow belongs to; absent until
    /// one answers, where a key began it.
    pub browser_hash: Option<String>,
    /// The redirect URI of the authorization request; the exchange has to name the same.
    pub redirect_uri: String,
    /// Where the browser goes at the end.
    pub return_to: Option<String>,
    /// Who began it: `operator` or the id of the key.
    pub created_by: Option<String>,
    /// See [`Stage`].
    pub status: String,
    /// What names the account at the service for good, once it was asked.
    pub account: Option<String>,
    /// What people know it by.
    pub account_name: Option<String>,
    /// What was granted.
    pub scopes: Option<JsonValue>,
    /// The credentials that wait for a confirmation.
    pub secret_path: Option<String>,
    /// Announces them.
    pub secret_intent_id: Option<SecretIntentId>,
    /// When their access token ends.
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When the person has to consent again, where that is known.
    pub consent_expires_at: Option<DateTime<Utc>>,
    /// What came of it.
    pub integration_id: Option<IntegrationId>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// Until when it may be finished.
    pub expires_at: DateTime<Utc>,
}

impl OAuthSession {
    /// Where it stands.
    pub fn stage(&self) -> Result<Stage, DbError> {
        [
            Stage::Started,
            Stage::Used,
            Stage::Confirming,
            Stage::Ending,
            Stage::Connected,
        ]
        .into_iter()
        .find(|stage| stage.as_str() == self.status)
        .ok_or_else(|| {
            DbError::Schema(format!(
                "oauth_sessions.status {:?} is no word of ours",
                self.status
            ))
        })
    }

    /// What people know the account by.
    pub fn account_shown(&self) -> Option<&str> {
        self.account_name.as_deref().or(self.account.as_deref())
    }

    /// The service as a value.
    pub fn service(&self) -> Result<ServiceName, DbError> {
        self.service_name
            .parse()
            .map_err(|error: crate::domain::service::UnknownService| {
                DbError::Schema(format!("oauth_sessions.service_name: {error}"))
            })
    }
}

/// Adds a session that has just begun.
pub async fn insert(tx: &Tx, session: &OAuthSession) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO oauth_sessions (id, entity_id, service_name, state_hash, pkce_salt,
            browser_hash, redirect_uri, return_to, created_by, status, created_at, expires_at)
         VALUES ",
        [],
    )
    .tuple([
        sea_orm::Value::from(session.id),
        session.entity_id.into(),
        session.service_name.clone().into(),
        session.state_hash.clone().into(),
        session.pkce_salt.clone().into(),
        session.browser_hash.clone().into(),
        session.redirect_uri.clone().into(),
        session.return_to.clone().into(),
        session.created_by.clone().into(),
        Stage::Started.as_str().into(),
        session.created_at.into(),
        session.expires_at.into(),
    ])
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The session with this state.
pub async fn by_state(db: &Db, state_hash: &str) -> Result<Option<OAuthSession>, DbError> {
    Sql::new(
        "SELECT * FROM oauth_sessions WHERE state_hash = $1",
        [state_hash.into()],
    )
    .one(db.reader())
    .await
}

/// The session.
pub async fn find(db: &Db, id: OAuthSessionId) -> Result<Option<OAuthSession>, DbError> {
    Sql::new("SELECT * FROM oauth_sessions WHERE id = $1", [id.into()])
        .one(db.reader())
        .await
}

/// Uses the state up, if it was not: of several answers with the same state one succeeds. A session
/// without a browser gets this one.
pub async fn take(
    tx: &Tx,
    id: OAuthSessionId,
    browser_hash: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE oauth_sessions SET status = 'used', browser_hash = coalesce(browser_hash, $2)
         WHERE id = $1 AND status = 'started' AND expires_at > $3",
        [
            id.into(),
            browser_hash.map(str::to_owned).into(),
            now.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// What waits for a confirmation.
#[derive(Debug)]
pub struct Waiting<'a> {
    /// Whose it is, as the service knows it and as people do.
    pub account: Named<'a>,
    /// What was granted.
    pub scopes: JsonValue,
    /// Where the credentials are.
    pub secret_path: &'a str,
    /// Announces them.
    pub secret_intent_id: SecretIntentId,
    /// When their access token ends.
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When the person has to consent again.
    pub consent_expires_at: Option<DateTime<Utc>>,
    /// Until when the person may confirm.
    pub expires_at: DateTime<Utc>,
}

/// The account is known; the person has to confirm.
pub async fn wait(tx: &Tx, id: OAuthSessionId, waiting: Waiting<'_>) -> Result<(), DbError> {
    let changed = Sql::new(
        "UPDATE oauth_sessions SET status = 'confirming', account = $2, scopes = $3,
            secret_path = $4, secret_intent_id = $5, token_expires_at = $6, expires_at = $7,
            account_name = $8, consent_expires_at = $9
         WHERE id = $1 AND status = 'used'",
        [
            id.into(),
            waiting.account.id.into(),
            waiting.scopes.into(),
            waiting.secret_path.into(),
            waiting.secret_intent_id.into(),
            waiting.token_expires_at.into(),
            waiting.expires_at.into(),
            waiting.account.name.into(),
            waiting.consent_expires_at.into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(DbError::NotFound)
    }
}

/// The account is connected, from the stage in which the caller saw the session. False where another
/// was faster.
pub async fn connected(
    tx: &Tx,
    id: OAuthSessionId,
    from: Stage,
    integration: IntegrationId,
    account: Named<'_>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE oauth_sessions SET status = 'connected', integration_id = $3, account = $4,
            account_name = $5,
            secret_path = NULL, secret_intent_id = NULL
         WHERE id = $1 AND status = $2",
        [
            id.into(),
            from.as_str().into(),
            integration.into(),
            account.id.into(),
            account.name.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// Takes a session whose credentials wait, as it was `found`, for them to be ended: nobody confirms it any
/// more, and nobody else takes it before `until`. False where another was faster.
pub async fn begin_ending(
    tx: &Tx,
    found: &OAuthSession,
    until: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE oauth_sessions SET status = 'ending', expires_at = $4
         WHERE id = $1 AND status = $2 AND expires_at = $3 AND secret_path IS NOT NULL",
        [
            found.id.into(),
            found.status.clone().into(),
            found.expires_at.into(),
            until.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// It is known what became of the grant; the credentials wait no more.
pub async fn end(tx: &Tx, id: OAuthSessionId, now: DateTime<Utc>) -> Result<(), DbError> {
    Sql::new(
        "UPDATE oauth_sessions SET status = 'used', secret_path = NULL, secret_intent_id = NULL,
            expires_at = $2
         WHERE id = $1 AND status = 'ending'",
        [id.into(), now.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Which of the sessions whose credentials wait.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// Those whose time was over before this.
    Over(DateTime<Utc>),
    /// Those of an entity.
    OfEntity(EntityId),
    /// Those at a service.
    AtService(ServiceName),
}

/// Sessions whose credentials wait for a confirmation or for their end, oldest first.
pub async fn waiting(db: &Db, which: Which) -> Result<Vec<OAuthSession>, DbError> {
    let sql = Sql::new(
        "SELECT * FROM oauth_sessions WHERE status IN ('confirming', 'ending')",
        [],
    );
    let sql = match which {
        Which::Over(time) => sql.push(" AND expires_at < ").bind(time),
        Which::OfEntity(id) => sql.push(" AND entity_id = ").bind(id),
        Which::AtService(name) => sql.push(" AND service_name = ").bind(name.as_str()),
    };
    sql.push(" ORDER BY expires_at").all(db.reader()).await
}

/// Deletes sessions that ended before `time`, at most `limit`; says how many.
pub async fn purge(db: &Db, time: DateTime<Utc>, limit: u64) -> Result<u64, DbError> {
    let tx = db.begin().await?;
    let deleted = Sql::new(
        "DELETE FROM oauth_sessions WHERE id IN (
            SELECT id FROM oauth_sessions WHERE expires_at < $1 AND status NOT IN ('confirming', 'ending')
            ORDER BY expires_at LIMIT $2)",
        [time.into(), (limit as i64).into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}
