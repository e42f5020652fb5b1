//! What a connector is given: the tokens of one integration in the connector's own terms.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Engine, Service, SyncSettings};
use crate::{
    connectors::{Access, ConnectorError, Governor, Spending, TokenProvider},
    db::{DbError, integration::Integration, quota_window},
    domain::IntegrationId,
    oauth::tokens::{TokenError, TokenService},
};

/// Makes what the connector of `integration` may touch, with the quota that is left.
pub async fn access(
    engine: &Engine,
    service: &Service,
    integration: &Integration,
    settings: &SyncSettings,
) -> Result<Access, DbError> {
    let spent = quota_window::load(&engine.db, integration.id)
        .await?
        // What an older version saved in another shape is a minute old by now.
        .and_then(|value| serde_json::from_value::<Spending>(value).ok())
        .unwrap_or_default();
    let governor = Governor::new(
        service.connector.user_minute(),
        spent,
        Arc::clone(&engine.clock),
    );
    Ok(Access {
        base_url: service.api_url.clone(),
        client: engine.client.clone(),
        tokens: Arc::new(IntegrationTokens {
            service: Arc::clone(&engine.tokens),
            integration: integration.id,
        }),
        governor: Arc::new(governor),
        clock: Arc::clone(&engine.clock),
        include_spam_trash: settings.include_spam_trash,
    })
}

struct IntegrationTokens {
    service: Arc<TokenService>,
    integration: IntegrationId,
}

#[async_trait]
impl TokenProvider for IntegrationTokens {
    async fn access_token(&self) -> Result<SecretString, ConnectorError> {
        self.service
            .access_token(self.integration)
            .await
            .map_err(connector_error)
    }

    async fn replace(&self, rejected: &SecretString) -> Result<SecretString, ConnectorError> {
        self.service
            .replace(self.integration, rejected)
            .await
            .map_err(connector_error)
    }

    async fn refused(&self) -> ConnectorError {
        ConnectorError::Revoked(
            "the service refuses a token that was issued just now: connect the account again"
                .to_owned(),
        )
    }
}

fn connector_error(error: TokenError) -> ConnectorError {
    match error {
        TokenError::Expired(detail) => ConnectorError::Expired(detail),
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
