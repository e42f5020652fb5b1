//! What a connector is given: the tokens of one integration in the connector's own terms.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Engine, Service, SyncSettings};
use crate::{
    connectors::{Access, ConnectorError, Governor, Spending, TokenProvider},
    db::{DbError, integration::Integration, quota_window},
    domain::IntegrationId,
    oauth::tokens::{TokenError, TokenService},
};

/// Makes what the connector of `integration` may touch for one call that somebody waits for. It is
/// made whatever is left of the quota: a sync under way may have spent it all.
pub fn access(
    engine: &Engine,
    service: &Service,
    integration: &Integration,
    settings: &SyncSettings,
) -> Access {
    let tokens = Arc::new(IntegrationTokens {
        service: Arc::clone(&engine.tokens),
        integration: integration.id,
        account_known: Arc::new(AtomicBool::new(false)),
    });
    of(engine, service, settings, unbounded(engine), tokens)
}

fn unbounded(engine: &Engine) -> Governor {
    Governor::new(None, Spending::default(), Arc::clone(&engine.clock))
}

/// As [`access`], for a run, with the quota that is left. Once `account_known`, there are no tokens of
/// replaced credentials for it, which may be another account's.
pub(super) async fn access_of_run(
    engine: &Engine,
    service: &Service,
    integration: &Integration,
    settings: &SyncSettings,
    account_known: Arc<AtomicBool>,
) -> Result<Access, DbError> {
    let spent = quota_window::load(&engine.db, integration.id)
        .await?
        // What an older version saved in another shape is a minute old by now.
        .and_then(|value| serde_json::from_value::<Spending>(value).ok())
        .unwrap_or_default();
    let budget = service.connector.user_minute();
    let governor = Governor::new(budget, spent, Arc::clone(&engine.clock));
    let tokens = Arc::new(IntegrationTokens {
        service: Arc::clone(&engine.tokens),
        integration: integration.id,
        account_known,
    });
    Ok(of(engine, service, settings, governor, tokens))
}

fn of(
    engine: &Engine,
    service: &Service,
    settings: &SyncSettings,
    governor: Governor,
    tokens: Arc<dyn TokenProvider>,
) -> Access {
    Access {
        service: service.connector.service(),
        base_url: service.api_url.clone(),
        client: engine.client.clone(),
        tokens,
        governor: Arc::new(governor),
        clock: Arc::clone(&engine.clock),
        metrics: Arc::clone(&engine.metrics),
        patient_until: engine.limits.hold_until(engine.clock.now()),
        include_spam_trash: settings.include_spam_trash,
        leaving: CancellationToken::new(),
    }
}

struct IntegrationTokens {
    service: Arc<TokenService>,
    integration: IntegrationId,
    account_known: Arc<AtomicBool>,
}

impl IntegrationTokens {
    async fn token(&self, rejected: Option<&SecretString>) -> Result<SecretString, ConnectorError> {
        let known = self.account_known.load(Ordering::Relaxed);
        self.service
            .token_for(self.integration, rejected, known)
            .await
            .map_err(connector_error)
    }
}

#[async_trait]
impl TokenProvider for IntegrationTokens {
    async fn access_token(&self) -> Result<SecretString, ConnectorError> {
        self.token(None).await
    }

    async fn replace(&self, rejected: &SecretString) -> Result<SecretString, ConnectorError> {
        self.token(Some(rejected)).await
    }

    async fn refused(&self) -> ConnectorError {
        refused_at_once()
    }
}

fn refused_at_once() -> ConnectorError {
    ConnectorError::Revoked(
        "the service refuses a token that was issued just now: connect the account again"
            .to_owned(),
    )
}

fn connector_error(error: TokenError) -> ConnectorError {
    match error {
        TokenError::Expired(detail) | TokenError::Lost(detail) => ConnectorError::Expired(detail),
        TokenError::Revoked(detail) => ConnectorError::Revoked(detail),
        TokenError::ClientRefused(detail) => ConnectorError::Rejected {
            code: "client_refused",
            detail,
        },
        TokenError::Credentials(detail) => ConnectorError::Rejected {
            code: "credentials_unreadable",
            detail,
        },
        TokenError::Unavailable(detail) => ConnectorError::Unavailable(detail),
    }
}
