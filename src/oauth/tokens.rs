//! Valid access tokens: the one in memory while it lasts, else one of a refresh. Access tokens are kept
//! in memory, one refresh at a time an integration; [`Refresher`] does the same across processes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use super::{
    account::{self, AccountError, Known},
    endpoint::{CodeGrant, EndpointError, Tokens},
    refresh::{Held, Refresher, Wanted},
};
use crate::{
    db::{
        DbError, grant,
        integration::{self, Integration},
    },
    domain::{IntegrationId, ServiceName, audit::Origin, errors, sync::Scope},
    secrets::{InvalidSecretText, OAuth2Credentials, SecretError},
};

/// A refresh is waited for so long; it goes on although nobody waits any more. Longer than another
/// process's refresh is waited for, and an endpoint after it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no token. Each variant is a decision for the caller.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The consent ran out.
    #[error("the consent has expired: {0}")]
    Expired(String),
    /// The grant is void, after a refresh whose answer was never stored: nobody withdrew the consent, as far
    /// as is known.
    #[error("the consent has expired: {0}")]
    Lost(String),
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

/// Why it is not known whose an integration's credentials are.
#[derive(Debug, thiserror::Error)]
pub enum UnknownAccount {
    /// There is no token to ask with.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The service does not say.
    #[error(transparent)]
    Account(#[from] AccountError),
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

type Slots = HashMap<IntegrationId, Arc<tokio::sync::Mutex<Slot>>>;

#[derive(Default)]
struct Slot {
    held: Option<Held>,
}

/// Gives access tokens for all integrations.
pub struct TokenService {
    refresher: Arc<Refresher>,
    slots: Mutex<Slots>,
    tasks: TaskTracker,
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
        let locking = self.slot(id).lock_owned();
        let mut slot = tokio::time::timeout(PATIENCE, locking)
            .await
            .map_err(|_| too_long())?;
        let refresher = Arc::clone(&self.refresher);
        let wanted = Wanted {
            rejected: rejected.cloned(),
            for_known_account,
        };
        // The short way, once for every item: the token of a known account stays that account's,
        // whatever its owner has replaced since.
        if let Some(held) = &slot.held
            && for_known_account
            && held.account_verified
            && refresher.lasts(held, id, &wanted)
        {
            return Ok(held.token.clone());
        }
        let found = integration::find(&refresher.db, Scope::Operator, id).await?;
        wanted.check_account(&found)?;
        if let Some(held) = &mut slot.held
            && found.secret_path.as_deref() == Some(&held.secret_path)
            && refresher.lasts(held, id, &wanted)
        {
            held.account_verified = found.account_verified;
            return Ok(held.token.clone());
        }
        let read = refresher.read(found).await?;
        wanted.check_account(&read.found)?;
        // What is in memory came after what is stored beside the same refresh token: once it is refused,
        // the older one is no better.
        let superseded = slot.held.as_ref().map(|held| held.secret_path.clone());
        if let Some(stored) = read.stored_token().filter(|stored| {
            superseded.as_ref() != Some(&stored.secret_path) && refresher.lasts(stored, id, &wanted)
        }) {
            slot.held = Some(stored.clone());
            return Ok(stored.token);
        }
        // A run may be cancelled at any point. A refresh that was broken off after the provider
        // answered would lose a rotated refresh token, and hold its lease until that ends.
        let refreshing = async move {
            let fresh = refresher.refresh(read, &wanted).await?;
            let token = fresh.token.clone();
            slot.held = Some(fresh);
            Ok(token)
        };
        let refreshing = self.tasks.spawn(Origin::current().scope(refreshing));
        match tokio::time::timeout(PATIENCE, refreshing).await {
            Ok(Ok(refreshed)) => refreshed,
            Ok(Err(error)) => Err(TokenError::Unavailable(format!(
                "the refresh did not end: {error}"
            ))),
            Err(_) => Err(too_long()),
        }
    }

    /// How many integrations have something in memory.
    pub fn held(&self) -> usize {
        self.all_slots().len()
    }

    /// Lets go of the tokens of integrations that are gone or have other credentials by now, whichever
    /// process did that.
    pub async fn let_go(&self) -> Result<(), DbError> {
        let ids: Vec<IntegrationId> = self.all_slots().keys().copied().collect();
        let paths = grant::secret_paths(&self.refresher.db, &ids).await?;
        let paths: HashMap<IntegrationId, String> = paths.into_iter().collect();
        self.all_slots().retain(|id, slot| {
            // One that was made since, or that somebody is at, is looked at the next time.
            if !ids.contains(id) || Arc::strong_count(slot) > 1 {
                return true;
            }
            let Ok(slot) = slot.try_lock() else {
                return true;
            };
            let held = slot.held.as_ref();
            held.is_some_and(|held| paths.get(id) == Some(&held.secret_path))
        });
        Ok(())
    }

    /// Forgets what is in memory of an integration that was removed.
    pub fn forget(&self, id: IntegrationId) {
        self.all_slots().remove(&id);
    }

    /// Asks the service whose the access token is.
    pub async fn account(
        &self,
        service: ServiceName,
        token: &SecretString,
    ) -> Result<Known, AccountError> {
        let refresher = &self.refresher;
        let config = refresher.config(service)?;
        let (clock, metrics) = (&*refresher.clock, &refresher.metrics);
        account::ask(&refresher.endpoint, config, token, clock, metrics).await
    }

    /// Asks the service whose an integration's credentials are.
    pub async fn account_of(&self, found: &Integration) -> Result<Known, UnknownAccount> {
        let service = found.service().map_err(TokenError::from)?;
        let token = self.token_for(found.id, None, false).await?;
        let refused = match self.account(service, &token).await {
            Err(
                refused @ (AccountError::Unauthorized(_)
                | AccountError::Revoked(_)
                | AccountError::Expired(_)),
            ) => refused,
            answered => return Ok(answered?),
        };
        let other = match self.token_for(found.id, Some(&token), false).await {
            Ok(other) => other,
            Err(ended @ (TokenError::Revoked(_) | TokenError::Expired(_))) => {
                return Err(ended_as(&refused, ended).into());
            }
            Err(error) => return Err(error.into()),
        };
        match self.account(service, &other).await {
            Err(
                AccountError::Unauthorized(said)
                | AccountError::Revoked(said)
                | AccountError::Expired(said),
            ) => Err(TokenError::Revoked(format!(
                "{said}, although it was issued just now: connect the account again"
            ))
            .into()),
            answered => Ok(answered?),
        }
    }

    /// Works with the credentials of an integration as they are by then, while nobody refreshes them: after
    /// a refresh that is under way, in whichever process, and before the next.
    pub async fn undisturbed<W: Future>(
        &self,
        id: IntegrationId,
        work: impl FnOnce(OAuth2Credentials) -> W,
    ) -> Result<W::Output, TokenError> {
        self.refresher.undisturbed(id, work).await
    }

    /// Whether two services may know us as the same client: not where each has another one configured.
    pub fn may_be_one_client(&self, one: ServiceName, other: ServiceName) -> bool {
        let client = |service| {
            let config = self.refresher.services.get(&service);
            config.and_then(|config| config.client_id.as_deref())
        };
        match (client(one), client(other)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    }

    /// Revokes a grant at the service, by one of its tokens.
    pub async fn revoke(
        &self,
        service: ServiceName,
        token: &SecretString,
    ) -> Result<(), EndpointError> {
        let refresher = &self.refresher;
        refresher
            .endpoint
            .revoke(refresher.config(service)?, token)
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
        Arc::clone(self.all_slots().entry(id).or_default())
    }

    fn all_slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that a token was refused and there is no other: where the service said of the token how
/// it ended, it ended so, whatever is said of the refresh token.
fn ended_as(refused: &AccountError, ended: TokenError) -> TokenError {
    match (refused, ended) {
        (AccountError::Revoked(said), TokenError::Expired(detail)) => {
            TokenError::Revoked(format!("{said}; {detail}"))
        }
        (AccountError::Expired(said), TokenError::Revoked(detail)) => {
            TokenError::Expired(format!("{said}; {detail}"))
        }
        (_, ended) => ended,
    }
}

fn too_long() -> TokenError {
    TokenError::Unavailable("a refresh has been under way for too long".to_owned())
}
