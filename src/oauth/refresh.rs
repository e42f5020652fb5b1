//! Refreshes, one at a time an integration across processes, safe wherever a process dies.
//!
//! A lease in the integration's row gives the right. Before the refresh token is sent the row says so;
//! what comes back is stored and pinned before it is used. A service that rotates refresh tokens takes
//! the whole grant away when it sees an old one, so what it gave is not let go while the process
//! lives. If the process dies in between, the row tells the next one why the grant is gone.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use fail::fail_point;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{
    OAuthConfig,
    endpoint::{EndpointError, TokenEndpoint, Tokens},
    tokens::TokenError,
};
use crate::{
    db::{
        Db, DbError,
        integration::{self, Integration},
        refresh_lease::{self, Leased, RefreshLease},
        secret_intent::{self, SecretIntent, SecretIntentId},
    },
    domain::{Clock, IntegrationId, ServiceName, errors, ids::Id, sync::Scope, time},
    metrics::{Metrics, RefreshOutcome},
    secrets::{
        Credentials, Labels, OAuth2Credentials, SecretError, SecretName, SecretPath, SecretStore,
    },
};

mod undisturbed;

/// A token is replaced this long before it ends, and up to half as long again: integrations that
/// were connected together are not refreshed together.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// The right to refresh lasts so long without its holder, who renews it
const LEASE_MS: i64 = 10_000;
/// this often.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// A lease that nobody renews for so long is a dead process's, whatever its time.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);
/// How long another process's refresh is waited for, between looks.
const LOOK: Duration = Duration::from_millis(100);
/// Looks before the other process is taken for stuck.
const MAX_LOOKS: u32 = 400;
/// Attempts to store what a service gave: the first few close together, the rest
const STORE_ATTEMPTS: u32 = 130;
/// so far apart, ten minutes in all.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// An access token in memory.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: SecretString,
    expires_at: Option<DateTime<Utc>>,
    /// The version of the credentials it came from; other credentials make it worthless.
    pub(super) secret_path: String,
    /// Whether it is known whose those credentials are.
    pub(super) account_verified: bool,
}

/// What a token is wanted for.
pub(super) struct Wanted {
    /// One that the service refused.
    pub(super) rejected: Option<SecretString>,
    /// Whether whoever wants it has asked whose the credentials are.
    pub(super) for_known_account: bool,
}

impl Wanted {
    /// Fails where the owner has replaced the credentials since the account was asked for.
    pub(super) fn check_account(&self, found: &Integration) -> Result<(), TokenError> {
        if found.account_verified || !self.for_known_account {
            return Ok(());
        }
        Err(TokenError::Unavailable(
            "the credentials were replaced; whose they are is asked first".to_owned(),
        ))
    }
}

/// An integration's row with the credentials it names.
pub(super) struct Read {
    pub(super) found: Integration,
    path: String,
    credentials: OAuth2Credentials,
}

impl Read {
    /// The access token that is stored beside the refresh token it came with.
    pub(super) fn stored_token(&self) -> Option<Held> {
        self.credentials.access_token.as_ref().map(|token| Held {
            token: token.clone(),
            expires_at: self.credentials.access_token_expires_at,
            secret_path: self.path.clone(),
            account_verified: self.found.account_verified,
        })
    }
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

impl Refresher {
    pub(super) fn config(&self, service: ServiceName) -> Result<&OAuthConfig, EndpointError> {
        self.services
            .get(&service)
            .ok_or_else(|| EndpointError::Client(format!("{service} is not configured")))
    }

    /// Whether the token can be used: not refused, and not about to end. One whose end is not known is
    /// used until it is refused.
    pub(super) fn lasts(&self, held: &Held, id: IntegrationId, wanted: &Wanted) -> bool {
        if is(&held.token, wanted.rejected.as_ref()) {
            return false;
        }
        let Some(end) = held.expires_at else {
            return true;
        };
        // The last bytes of a UUID v7 are random, and the same at every look.
        let share = i32::from(id.0.as_bytes()[15]);
        end - AHEAD - AHEAD * share / 512 > self.clock.now()
    }

    /// The credentials that a row names, with the row as it is by then: between reading the row and
    /// reading the store, another process may have pinned a new version and destroyed this one. Each
    /// turn but the last follows such a change.
    pub(super) async fn read(&self, mut found: Integration) -> Result<Read, TokenError> {
        loop {
            let path = pinned(&found)?;
            let bytes = match self.secrets.get(&path.parse()?).await {
                Err(missing @ SecretError::Missing(_)) => {
                    found = integration::find(&self.db, Scope::Operator, found.id).await?;
                    if found.secret_path.as_ref() == Some(&path) {
                        return Err(missing.into());
                    }
                    continue;
                }
                read => read?,
            };
            return match Credentials::open(&bytes)?.into_tokens() {
                Some(credentials) => Ok(Read {
                    found,
                    path,
                    credentials,
                }),
                None => Err(TokenError::Credentials(
                    "the integration's credentials hold no token".to_owned(),
                )),
            };
        }
    }

    /// Refreshes under a lease that all processes share.
    pub(super) async fn refresh(&self, read: Read, wanted: &Wanted) -> Result<Held, TokenError> {
        let id = read.found.id;
        let mut lease = self.lease(id).await?;
        let generation = lease.generation;
        let result = tokio::select! {
            result = self.refresh_leased(read, wanted, &mut lease) => result,
            never = self.hold(id, generation) => match never {},
        };
        self.release(id, &lease).await;
        result
    }

    /// The lease is left to its end if this fails; it is short.
    async fn release(&self, id: IntegrationId, lease: &RefreshLease) {
        if let Err(error) = refresh_lease::release(&self.db, id, lease).await {
            tracing::warn!(integration.id = %id, error = %error, "the refresh's lease was not released");
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "leases are not on the program's clock"
    )]
    async fn lease(&self, id: IntegrationId) -> Result<RefreshLease, TokenError> {
        let mut seen: Option<(i64, Instant)> = None;
        for _ in 0..MAX_LOOKS {
            let abandoned = seen.filter(|(_, since)| since.elapsed() >= ABANDONED_AFTER);
            let abandoned = abandoned.map(|(until, _)| until);
            match refresh_lease::lease(&self.db, id, LEASE_MS, abandoned).await? {
                Leased::Ours(lease) => return Ok(lease),
                Leased::Theirs(until) if seen.is_some_and(|(before, _)| before == until) => {}
                Leased::Theirs(until) => seen = Some((until, Instant::now())),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(TokenError::Unavailable(
            "another process has been refreshing for too long".to_owned(),
        ))
    }

    /// Keeps the lease for as long as it is polled. Where that fails the refresh goes on: what it
    /// writes is compared and set.
    #[expect(
        clippy::disallowed_methods,
        reason = "leases are not on the program's clock"
    )]
    async fn hold(&self, id: IntegrationId, generation: i64) -> Infallible {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if let Err(error) = refresh_lease::renew(&self.db, id, generation, LEASE_MS).await {
                tracing::warn!(integration.id = %id, error = %error, "the refresh's lease was not renewed");
            }
        }
    }

    async fn refresh_leased(
        &self,
        mut read: Read,
        wanted: &Wanted,
        lease: &mut RefreshLease,
    ) -> Result<Held, TokenError> {
        let id = read.found.id;
        loop {
            // While the lease was waited for, another process may have stored a new refresh token;
            // a provider that rotates them takes the whole grant away when it sees the old one.
            let current = integration::find(&self.db, Scope::Operator, id).await?;
            wanted.check_account(&current)?;
            if pinned(&current)? != read.path {
                read = self.read(current).await?;
                wanted.check_account(&read.found)?;
                let stored = read.stored_token();
                if let Some(stored) = stored.filter(|stored| self.lasts(stored, id, wanted)) {
                    return Ok(stored);
                }
            }
            let result = self.refresh_once(&read, lease).await;
            self.metrics
                .refreshed(read.found.service()?, outcome(&result));
            match result {
                Err(
                    TokenError::Revoked(detail)
                    | TokenError::Expired(detail)
                    | TokenError::Lost(detail),
                ) if self.moved_on(id, &read.path).await? => {
                    // The owner has stored other credentials meanwhile.
                    tracing::info!(integration.id = %id, reason = detail, "credentials were read again");
                }
                ended => return ended,
            }
        }
    }

    async fn moved_on(&self, id: IntegrationId, path: &str) -> Result<bool, TokenError> {
        let found = integration::find(&self.db, Scope::Operator, id).await?;
        Ok(found.secret_path.as_deref() != Some(path))
    }

    async fn refresh_once(
        &self,
        read: &Read,
        lease: &mut RefreshLease,
    ) -> Result<Held, TokenError> {
        let Read {
            found,
            path,
            credentials,
        } = read;
        let service = found.service()?;
        let config = self.config(service).map_err(token_error)?;
        let now = self.clock.now();
        let Some(refresh_token) = &credentials.refresh_token else {
            return Err(without_refresh_token(credentials, now));
        };
        let in_doubt_since = lease.sent_at;
        if !refresh_lease::sent(&self.db, found.id, lease.generation, now).await? {
            return Err(TokenError::Unavailable(
                "another process took the refresh over".to_owned(),
            ));
        }
        lease.sent_at = in_doubt_since.or(Some(now));
        fail_point!("refresh.sent");
        let answer = self.endpoint.refresh(config, refresh_token, now).await;
        fail_point!("refresh.answered");
        let answer = match answer {
            Ok(answer) => answer,
            // The refresh token may be used up all the same, so the next one must not be lost.
            Err(EndpointError::Incomplete(Some(next))) if !is(&next, Some(refresh_token)) => {
                self.store(read, &next, None).await?;
                lease.sent_at = None;
                return Err(token_error(EndpointError::Incomplete(None)));
            }
            Err(error) => {
                // An endpoint that is unavailable may have taken the refresh token in all the same.
                match error {
                    EndpointError::Gone(_) | EndpointError::Expired(_) => lease.sent_at = None,
                    EndpointError::Client(_) => lease.sent_at = in_doubt_since,
                    EndpointError::Incomplete(_) | EndpointError::Unavailable(_) => {}
                }
                let lost_since = in_doubt_since.filter(|_| config.provider.oauth.rotates);
                let consent_end = found.consent_expires_at.filter(|end| *end <= now);
                return Err(match (token_error(error), consent_end, lost_since) {
                    (TokenError::Revoked(detail), Some(end), _) => TokenError::Expired(format!(
                        "{detail}; the consent ended at {}",
                        time::rfc3339(end)
                    )),
                    (
                        TokenError::Revoked(detail) | TokenError::Expired(detail),
                        None,
                        Some(since),
                    ) => lost(since, &detail),
                    (refused, ..) => refused,
                });
            }
        };
        tracing::info!(integration.id = %found.id, provider = %service, "the access token was refreshed");
        let secret_path = match &answer.refresh_token {
            Some(next) if !is(next, Some(refresh_token)) => {
                self.store(read, next, Some(&answer)).await?
            }
            _ => path.clone(),
        };
        lease.sent_at = None;
        if let Some(end) = answer.consent_expires_at {
            let tx = self.db.begin().await?;
            integration::set_consent_end(&tx, found.id, &secret_path, end).await?;
            tx.commit().await?;
        }
        let Tokens {
            access_token,
            expires_at,
            ..
        } = answer;
        Ok(Held {
            token: access_token,
            expires_at,
            secret_path,
            account_verified: found.account_verified,
        })
    }

    /// Stores a rotated refresh token, with the access token that came with it so that other processes
    /// need not refresh, and gives where. What does not answer is asked again and again: without the
    /// new token the grant is lost.
    #[expect(
        clippy::disallowed_methods,
        reason = "leases are not on the program's clock"
    )]
    async fn store(
        &self,
        read: &Read,
        next: &SecretString,
        answer: Option<&Tokens>,
    ) -> Result<String, TokenError> {
        let next = OAuth2Credentials {
            refresh_token: Some(next.clone()),
            scopes: read.credentials.scopes.clone(),
            access_token: answer.map(|answer| answer.access_token.clone()),
            access_token_expires_at: answer.and_then(|answer| answer.expires_at),
        };
        let mut version = Version {
            intent: Id::new(),
            is_announced: false,
            puts: 0,
            path: None,
        };
        let mut wait = LOOK;
        for attempt in 1..=STORE_ATTEMPTS {
            let error = match self.try_store(read, &next, &mut version).await {
                Ok(pinned) => {
                    self.destroy(&read.path, &version).await;
                    return Ok(pinned);
                }
                Err(error) => error,
            };
            let passes = match &error {
                NotStored::Db(error) => !matches!(error, DbError::Conflict | DbError::NotFound),
                NotStored::Secret(error) => matches!(
                    error,
                    SecretError::Unavailable { .. }
                        | SecretError::Exhausted { .. }
                        | SecretError::Denied { .. }
                ),
            };
            tracing::warn!(
                integration.id = %read.found.id,
                attempt,
                error = errors::chain(&error),
                "a rotated refresh token was not stored"
            );
            if !passes || attempt == STORE_ATTEMPTS {
                return Err(error.into());
            }
            // Whoever has the right by now: where nobody has pinned another, this one is the last that the
            // service gave.
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(STORE_EVERY);
        }
        Err(NotStored::Db(DbError::Conflict).into())
    }

    /// Goes as far as it can, and on from there the next time.
    async fn try_store(
        &self,
        read: &Read,
        next: &OAuth2Credentials,
        version: &mut Version,
    ) -> Result<String, NotStored> {
        let labels = Labels {
            entity_id: read.found.entity_id,
            service: read.found.service()?,
        };
        let name = SecretName::new(labels.entity_id, labels.service);
        let now = self.clock.now();
        if !version.is_announced {
            let intent = SecretIntent {
                id: version.intent,
                secret_name: name.to_string(),
                created_at: now,
            };
            let tx = self.db.begin().await?;
            match secret_intent::insert(&tx, &intent).await {
                Ok(()) => tx.commit().await?,
                // The commit before, of which nothing was heard.
                Err(DbError::Conflict) => drop(tx),
                Err(error) => return Err(error.into()),
            }
            version.is_announced = true;
        }
        let path = match &version.path {
            Some(path) => path.clone(),
            None => {
                let sealed = Credentials::OAuth2(next.clone()).seal()?;
                version.puts += 1;
                let path = self.secrets.put(&name, sealed, &labels).await?;
                version.path.insert(path.to_string()).clone()
            }
        };
        fail_point!("refresh.put");
        let tx = self.db.begin().await?;
        let before = Some(read.path.as_str());
        match integration::pin_secret(&tx, read.found.id, before, &path, false, now).await {
            Ok(()) => tx.commit().await?,
            Err(DbError::Conflict) => {
                drop(tx);
                let current = integration::find(&self.db, Scope::Operator, read.found.id).await?;
                // Else the commit before, of which nothing was heard, has pinned it.
                if current.secret_path.as_ref() != Some(&path) {
                    return Err(DbError::Conflict.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        fail_point!("refresh.pinned");
        Ok(path)
    }

    /// Destroys the version before. The intent goes last: should that version stay, or one whose
    /// writing was not answered, the sweep finds it by the intent.
    async fn destroy(&self, before: &str, version: &Version) {
        let destroyed: Result<(), NotStored> = async {
            let path: SecretPath = before.parse().map_err(SecretError::from)?;
            self.secrets.destroy(&path).await?;
            if version.puts > 1 {
                return Ok(());
            }
            let tx = self.db.begin().await?;
            secret_intent::delete(&tx, version.intent).await?;
            Ok(tx.commit().await?)
        }
        .await;
        if let Err(error) = destroyed {
            let error = errors::chain(&error);
            tracing::warn!(
                secret.path = before,
                error,
                "an old version is left to the sweep"
            );
        }
    }
}

/// A version on its way into the secret store and the row.
struct Version {
    intent: SecretIntentId,
    is_announced: bool,
    /// Attempts to put it; each may have left a version.
    puts: u32,
    path: Option<String>,
}

/// Why a version was not stored.
#[derive(Debug, thiserror::Error)]
enum NotStored {
    /// A [`DbError::Conflict`] where the owner has stored other credentials meanwhile.
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<NotStored> for TokenError {
    fn from(error: NotStored) -> Self {
        match error {
            NotStored::Db(DbError::Conflict) => Self::Unavailable(
                "the credentials were replaced while they were refreshed".to_owned(),
            ),
            NotStored::Db(error) => error.into(),
            NotStored::Secret(error) => error.into(),
        }
    }
}

fn pinned(found: &Integration) -> Result<String, TokenError> {
    found.secret_path.clone().ok_or_else(|| {
        TokenError::Credentials("the integration has no credentials: connect it again".to_owned())
    })
}

/// There is no access token but the one that was given, and it is not to be used any more.
fn without_refresh_token(credentials: &OAuth2Credentials, now: DateTime<Utc>) -> TokenError {
    match credentials.access_token_expires_at {
        Some(end) if end - AHEAD * 2 <= now => TokenError::Expired(
            "the access token has ended, and the service gave none to refresh it with: connect the \
             account again"
                .to_owned(),
        ),
        _ => TokenError::Revoked(
            "the service does not accept the token any more: give the integration another, or \
             connect the account again"
                .to_owned(),
        ),
    }
}

fn is(token: &SecretString, other: Option<&SecretString>) -> bool {
    other.is_some_and(|other| other.expose_secret() == token.expose_secret())
}

fn outcome(result: &Result<Held, TokenError>) -> RefreshOutcome {
    match result {
        Ok(_) => RefreshOutcome::Success,
        Err(TokenError::Expired(_) | TokenError::Lost(_)) => RefreshOutcome::Expired,
        Err(TokenError::Revoked(_)) => RefreshOutcome::Revoked,
        Err(TokenError::ClientRefused(_)) => RefreshOutcome::ClientRefused,
        Err(TokenError::Credentials(_)) => RefreshOutcome::Credentials,
        Err(TokenError::Unavailable(_)) => RefreshOutcome::Unavailable,
    }
}

/// Nobody withdrew the consent, as far as is known: a refresh was sent, and its answer never stored.
fn lost(since: DateTime<Utc>, detail: &str) -> TokenError {
    TokenError::Lost(format!(
        "{detail}; a refresh that began at {} was broken off before its answer was stored, and may \
         have used the refresh token up",
        time::rfc3339(since)
    ))
}

fn token_error(error: EndpointError) -> TokenError {
    match error {
        EndpointError::Expired(said) => {
            TokenError::Expired(format!("{said}: connect the account again"))
        }
        EndpointError::Gone(said) => {
            TokenError::Revoked(format!("{said}: connect the account again"))
        }
        EndpointError::Client(detail) => TokenError::ClientRefused(format!(
            "the authorization server refuses this client ({}): check the service's client_id and \
             client_secret",
            detail.trim()
        )),
        EndpointError::Unavailable(detail) => TokenError::Unavailable(detail),
        EndpointError::Incomplete(_) => {
            TokenError::Unavailable("the token endpoint's answer holds no access token".to_owned())
        }
    }
}
