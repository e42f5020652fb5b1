//! Valid access tokens. One refresh at a time an integration, across processes; access tokens are
//! kept in memory only, and the secret store is written only when a refresh token changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::task::TaskTracker;

use super::{
    OAuthConfig,
    endpoint::{CodeGrant, EndpointError, TokenEndpoint, Tokens},
};
use crate::{
    db::{
        Db, DbError, integration, integration::Integration, secret_intent,
        secret_intent::SecretIntent,
    },
    domain::{Clock, IntegrationId, ServiceName, errors, ids::Id, sync::Scope},
    metrics::{Metrics, RefreshOutcome},
    secrets::{
        Credentials, InvalidSecretText, Labels, OAuth2Credentials, SecretError, SecretName,
        SecretPath, SecretStore,
    },
};

/// A token is replaced this long before it ends, and up to half as long again: integrations that
/// were connected together are not refreshed together.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// A refresh holds its right across processes so long; a call to the endpoint ends sooner.
const LEASE_MS: i64 = 30_000;
/// How long another process's refresh is waited for, between looks.
const LOOK: Duration = Duration::from_millis(250);
/// Looks before the other process is taken for stuck.
const MAX_LOOKS: u32 = 160;

/// Why there is no token. Each variant is a decision for the caller.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The consent ran out.
    #[error("the consent has expired: {0}")]
    Expired(String),
    /// The consent was withdrawn.
    #[error("access was revoked: {0}")]
    Revoked(String),
    /// The authorization server does not take our client: the operator's to mend.
    #[error("{0}")]
    ClientRefused(String),
    /// The stored credentials are missing or cannot be read: the operator's to mend.
    #[error("{0}")]
    Credentials(String),
    /// Nothing is known to be wrong; later it may work.
    #[error("{0}")]
    Unavailable(String),
}

impl From<DbError> for TokenError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound => Self::Credentials("the integration was removed".to_owned()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<SecretError> for TokenError {
    /// The cause goes to the log: the owner of a run reads its error, and cannot mend the store.
    fn from(error: SecretError) -> Self {
        tracing::warn!(
            error = errors::chain(&error),
            "the credentials were not to be had"
        );
        match error {
            SecretError::Exhausted { .. } | SecretError::Unavailable { .. } => {
                Self::Unavailable(error.to_string())
            }
            other => Self::Credentials(format!(
                "the stored credentials cannot be read: {}",
                other.outline()
            )),
        }
    }
}

impl From<InvalidSecretText> for TokenError {
    fn from(error: InvalidSecretText) -> Self {
        SecretError::from(error).into()
    }
}

/// A token in memory.
#[derive(Clone)]
struct Cached {
    token: SecretString,
    expires_at: Option<DateTime<Utc>>,
    /// The version of the credentials it came from; other credentials make it worthless.
    secret_path: String,
    /// Whether it is known whose those credentials are.
    account_verified: bool,
}

#[derive(Default)]
struct Slot {
    cached: Option<Cached>,
}

/// Gives access tokens for all integrations.
pub struct TokenService {
    refresher: Arc<Refresher>,
    slots: Mutex<HashMap<IntegrationId, Arc<tokio::sync::Mutex<Slot>>>>,
    tasks: TaskTracker,
}

/// What a refresh needs; it runs to its end although nobody waits for it any more.
pub struct Refresher {
    /// The store.
    pub db: Db,
    /// Where credentials are.
    pub secrets: Arc<dyn SecretStore>,
    /// The one source of time.
    pub clock: Arc<dyn Clock>,
    /// Makes the calls.
    pub endpoint: TokenEndpoint,
    /// The registered client of each service.
    pub services: HashMap<ServiceName, OAuthConfig>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl TokenService {
    /// Refreshes run in `tasks`, which the process waits for before it ends.
    pub fn new(refresher: Refresher, tasks: TaskTracker) -> Self {
        Self {
            refresher: Arc::new(refresher),
            slots: Mutex::default(),
            tasks,
        }
    }

    /// A token that is valid now, as far as is known, and other than `rejected`, if the service refused
    /// one. `for_known_account` is for a run that has asked whose the credentials are: once the owner
    /// has replaced them there is no token for it, as it would go on with what may be another account.
    pub async fn token_for(
        &self,
        id: IntegrationId,
        rejected: Option<&SecretString>,
        for_known_account: bool,
    ) -> Result<SecretString, TokenError> {
        let mut slot = self.slot(id).lock_owned().await;
        let refresher = Arc::clone(&self.refresher);
        let lasts = |cached: &Cached| {
            !is(&cached.token, rejected)
                && cached
                    .expires_at
                    .is_none_or(|end| !refresher.ends_soon(end, id))
        };
        // The short way, once for every item: the token of a known account stays that account's,
        // whatever its owner has replaced since.
        if let Some(cached) = slot.cached.as_ref().filter(|cached| lasts(cached))
            && for_known_account
            && cached.account_verified
        {
            return Ok(cached.token.clone());
        }
        let found = integration::find(&refresher.db, Scope::Operator, id).await?;
        if for_known_account {
            refuse_unknown_account(&found)?;
        }
        let path = pinned(&found)?;
        let usable = |cached: &Cached| cached.secret_path == path && lasts(cached);
        if let Some(cached) = slot.cached.as_mut().filter(|cached| usable(cached)) {
            cached.account_verified = found.account_verified;
            return Ok(cached.token.clone());
        }
        let (found, path, credentials) = refresher.oauth_credentials(found).await?;
        if for_known_account {
            refuse_unknown_account(&found)?;
        }
        let given = given_at_creation(&credentials, &path, found.account_verified);
        if let Some(given) = given.filter(|given| usable(given)) {
            slot.cached = Some(given.clone());
            return Ok(given.token);
        }
        // A run may be cancelled at any point. A refresh that was broken off after the provider
        // answered would lose a rotated refresh token, and hold its lease until that ends.
        let refreshing = self.tasks.spawn(async move {
            let fresh = refresher.refresh(found, path, credentials).await?;
            let token = fresh.token.clone();
            slot.cached = Some(fresh);
            Ok(token)
        });
        refreshing.await.unwrap_or_else(|error| {
            Err(TokenError::Unavailable(format!(
                "the refresh did not end: {error}"
            )))
        })
    }

    /// Forgets what is in memory of an integration that was removed.
    pub fn forget(&self, id: IntegrationId) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Revokes a grant at the service.
    pub async fn revoke(
        &self,
        service: ServiceName,
        refresh_token: &SecretString,
    ) -> Result<(), EndpointError> {
        let refresher = &self.refresher;
        refresher
            .endpoint
            .revoke(refresher.config(service)?, refresh_token)
            .await
    }

    /// Exchanges an authorization code at the service.
    pub async fn exchange(
        &self,
        service: ServiceName,
        grant: &CodeGrant<'_>,
    ) -> Result<Tokens, EndpointError> {
        let refresher = &self.refresher;
        let now = refresher.clock.now();
        refresher
            .endpoint
            .exchange(refresher.config(service)?, grant, now)
            .await
    }

    fn slot(&self, id: IntegrationId) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id).or_default())
    }
}

impl Refresher {
    fn config(&self, service: ServiceName) -> Result<&OAuthConfig, EndpointError> {
        self.services
            .get(&service)
            .ok_or_else(|| EndpointError::Client(format!("{service} is not configured")))
    }

    fn ends_soon(&self, end: DateTime<Utc>, id: IntegrationId) -> bool {
        // The last bytes of a UUID v7 are random, and the same at every look.
        let share = i32::from(id.0.as_bytes()[15]);
        end - AHEAD - AHEAD * share / 512 <= self.clock.now()
    }

    /// The credentials that a row names, with their path and the row as it is by then: between reading
    /// the row and reading the store, another process may have pinned a new version and destroyed this
    /// one. Each turn but the last follows such a change.
    async fn oauth_credentials(
        &self,
        mut found: Integration,
    ) -> Result<(Integration, String, OAuth2Credentials), TokenError> {
        loop {
            let text = pinned(&found)?;
            let path: SecretPath = text.parse()?;
            let bytes = match self.secrets.get(&path).await {
                Err(missing @ SecretError::Missing(_)) => {
                    found = integration::find(&self.db, Scope::Operator, found.id).await?;
                    if found.secret_path.as_deref() == Some(&text) {
                        return Err(missing.into());
                    }
                    continue;
                }
                read => read?,
            };
            return match Credentials::open(&bytes)? {
                Credentials::OAuth2(credentials) => Ok((found, text, credentials)),
                Credentials::Fields(_) => Err(TokenError::Credentials(
                    "the integration's credentials are not those of OAuth 2.0".to_owned(),
                )),
            };
        }
    }

    /// Refreshes under a lease that all processes share.
    async fn refresh(
        &self,
        found: Integration,
        path: String,
        credentials: OAuth2Credentials,
    ) -> Result<Cached, TokenError> {
        let id = found.id;
        let generation = self.lease(id).await?;
        let result = self.refresh_leased(&found, path, credentials).await;
        if let Ok(service) = found.service() {
            self.metrics.refreshed(service, outcome(&result));
        }
        // Left to its end if this fails; it is short.
        if let Err(error) = integration::release_refresh(&self.db, id, generation).await {
            tracing::warn!(integration.id = %id, error = %error, "the refresh's lease was not released");
        }
        result
    }

    async fn refresh_leased(
        &self,
        found: &Integration,
        mut path: String,
        mut credentials: OAuth2Credentials,
    ) -> Result<Cached, TokenError> {
        let id = found.id;
        loop {
            // While the lease was waited for, another process may have stored a new refresh token;
            // a provider that rotates them takes the whole grant away when it sees the old one.
            if self.moved_on(id, &path).await? {
                let current = integration::find(&self.db, Scope::Operator, id).await?;
                (_, path, credentials) = self.oauth_credentials(current).await?;
            }
            match self.refresh_once(found, &path, &credentials).await {
                Err(TokenError::Revoked(detail) | TokenError::Expired(detail))
                    if self.moved_on(id, &path).await? =>
                {
                    // The owner has stored other credentials meanwhile.
                    tracing::info!(integration.id = %id, reason = detail, "credentials were read again");
                }
                result => return result,
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "leases are not on the program's clock"
    )]
    async fn lease(&self, id: IntegrationId) -> Result<i64, TokenError> {
        for _ in 0..MAX_LOOKS {
            if let Some(generation) = integration::lease_refresh(&self.db, id, LEASE_MS).await? {
                return Ok(generation);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(TokenError::Unavailable(
            "another process has been refreshing for too long".to_owned(),
        ))
    }

    async fn moved_on(&self, id: IntegrationId, path: &str) -> Result<bool, TokenError> {
        let found = integration::find(&self.db, Scope::Operator, id).await?;
        Ok(found.secret_path.as_deref() != Some(path))
    }

    async fn refresh_once(
        &self,
        found: &Integration,
        path: &str,
        credentials: &OAuth2Credentials,
    ) -> Result<Cached, TokenError> {
        let service = found.service()?;
        let config = self.config(service).map_err(token_error)?;
        let answer = self
            .endpoint
            .refresh(config, &credentials.refresh_token, self.clock.now())
            .await
            .map_err(token_error)?;
        tracing::info!(integration.id = %found.id, provider = %service, "the access token was refreshed");
        let secret_path = match &answer.refresh_token {
            Some(next) if !is(next, Some(&credentials.refresh_token)) => {
                self.store(found, path, credentials, next).await?
            }
            _ => path.to_owned(),
        };
        let Tokens {
            access_token,
            expires_at,
            ..
        } = answer;
        Ok(Cached {
            token: access_token,
            expires_at,
            secret_path,
            account_verified: found.account_verified,
        })
    }

    /// Stores a rotated refresh token before the access token that came with it is used.
    async fn store(
        &self,
        found: &Integration,
        before: &str,
        credentials: &OAuth2Credentials,
        next: &SecretString,
    ) -> Result<String, TokenError> {
        let next = OAuth2Credentials {
            refresh_token: next.clone(),
            scopes: credentials.scopes.clone(),
            access_token: None,
            access_token_expires_at: None,
        };
        let labels = Labels {
            entity_id: found.entity_id,
            service: found.service()?,
        };
        let name = SecretName::new(labels.entity_id, labels.service);
        let now = self.clock.now();
        let intent = SecretIntent {
            id: Id::new(),
            secret_name: name.to_string(),
            created_at: now,
        };
        let tx = self.db.begin().await?;
        secret_intent::insert(&tx, &intent).await?;
        tx.commit().await?;
        let path = self
            .secrets
            .put(&name, Credentials::OAuth2(next).seal()?, &labels)
            .await?;
        let pinned = path.to_string();
        let tx = self.db.begin().await?;
        integration::pin_secret(&tx, found.id, Some(before), &pinned, false, now).await?;
        tx.commit().await?;
        // The intent goes last: should the old version stay, the sweep finds it by the intent.
        let before: SecretPath = before.parse()?;
        if let Err(error) = self.secrets.destroy(&before).await {
            let error = errors::chain(&error);
            tracing::warn!(integration.id = %found.id, error, "an old version is left to the sweep");
            return Ok(pinned);
        }
        let tx = self.db.begin().await?;
        secret_intent::delete(&tx, intent.id).await?;
        tx.commit().await?;
        Ok(pinned)
    }
}

fn refuse_unknown_account(found: &Integration) -> Result<(), TokenError> {
    if found.account_verified {
        return Ok(());
    }
    Err(TokenError::Unavailable(
        "the credentials were replaced; whose they are is asked first".to_owned(),
    ))
}

fn pinned(found: &Integration) -> Result<String, TokenError> {
    found.secret_path.clone().ok_or_else(|| {
        TokenError::Credentials("the integration has no credentials: connect it again".to_owned())
    })
}

fn given_at_creation(
    credentials: &OAuth2Credentials,
    path: &str,
    account_verified: bool,
) -> Option<Cached> {
    credentials.access_token.as_ref().map(|token| Cached {
        token: token.clone(),
        expires_at: credentials.access_token_expires_at,
        secret_path: path.to_owned(),
        account_verified,
    })
}

fn is(token: &SecretString, other: Option<&SecretString>) -> bool {
    other.is_some_and(|other| other.expose_secret() == token.expose_secret())
}

fn outcome(result: &Result<Cached, TokenError>) -> RefreshOutcome {
    match result {
        Ok(_) => RefreshOutcome::Success,
        Err(TokenError::Expired(_)) => RefreshOutcome::Expired,
        Err(TokenError::Revoked(_)) => RefreshOutcome::Revoked,
        Err(TokenError::ClientRefused(_)) => RefreshOutcome::ClientRefused,
        Err(TokenError::Credentials(_)) => RefreshOutcome::Credentials,
        Err(TokenError::Unavailable(_)) => RefreshOutcome::Unavailable,
    }
}

fn token_error(error: EndpointError) -> TokenError {
    match error {
        // A policy of the account's organisation asks for a new login; the consent stands.
        EndpointError::InvalidGrant {
            subtype: Some(subtype),
            ..
        } if subtype == "invalid_rapt" => {
            TokenError::Expired("the organisation asks for a new login: connect again".to_owned())
        }
        EndpointError::InvalidGrant { description, .. } => {
            TokenError::Revoked(format!("{description}: connect the account again"))
        }
        EndpointError::Client(detail) => TokenError::ClientRefused(format!(
            "the authorization server refuses this client ({}): check the service's client_id and \
             client_secret",
            detail.trim()
        )),
        EndpointError::Unavailable(detail) => TokenError::Unavailable(detail),
    }
}
