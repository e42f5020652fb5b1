//! The person's word: an account that a browser brought to a flow that a key began waits for it.

use serde_json::json;
use utoipa::ToSchema;

use super::{
    ConnectError, Connected, Failure, Flow, LIFETIME, answer::is_of_browser, store::Granted,
};
use crate::{
    db::{
        DbError, entity,
        oauth_session::{self, OAuthSession, OAuthSessionId, Stage, Waiting},
    },
    integrations::{Announced, named},
    providers::Account,
    secrets::SecretError,
};

/// What a person has to confirm.
#[derive(Debug)]
pub struct Confirmation {
    /// Names it in the form.
    pub id: OAuthSessionId,
    /// What people know the account by.
    pub account: String,
    /// To whom it would go.
    pub entity_name: String,
    /// Where the browser would go.
    pub return_to: Option<String>,
}

/// What becomes of an account that waits for its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Decision {
    /// It is connected.
    Connect,
    /// It is not, and the grant is revoked.
    Cancel,
}

/// How a decision was carried out.
#[derive(Debug)]
pub enum Decided {
    /// The account is connected.
    Connected(Connected),
    /// It is not.
    Cancelled {
        /// Where the browser goes.
        return_to: Option<String>,
        /// Whether the grant stands no more at the service.
        is_revoked: bool,
    },
}

impl Flow<'_> {
    /// Lets the credentials wait for the person's word.
    pub(super) async fn wait(
        &self,
        session: &OAuthSession,
        granted: Granted,
    ) -> Result<Confirmation, ConnectError> {
        let tx = self.engine.db.begin().await?;
        let waiting = Waiting {
            account: named(&granted.account),
            scopes: json!(granted.scopes),
            secret_path: granted.kept.path.as_str(),
            secret_intent_id: granted.kept.intent,
            token_expires_at: granted.token_expires_at,
            consent_expires_at: granted.consent_expires_at,
            expires_at: self.engine.clock.now() + LIFETIME,
        };
        let waits = match oauth_session::wait(&tx, session.id, waiting).await {
            Ok(()) => tx.commit().await,
            Err(error) => Err(error),
        };
        if let Err(error) = waits {
            if !error.is_in_doubt() {
                self.integrations.take_back(&granted.kept).await;
            }
            return Err(error.into());
        }
        fail::fail_point!("connect.kept");
        Ok(Confirmation {
            id: session.id,
            account: granted.account.name,
            entity_name: self.entity_name(session).await?,
            return_to: session.return_to.clone(),
        })
    }

    pub(super) async fn confirmation(
        &self,
        session: &OAuthSession,
    ) -> Result<Confirmation, ConnectError> {
        Ok(Confirmation {
            id: session.id,
            account: session.account_shown().unwrap_or_default().to_owned(),
            entity_name: self.entity_name(session).await?,
            return_to: session.return_to.clone(),
        })
    }

    pub(super) async fn connected_before(
        &self,
        session: OAuthSession,
    ) -> Result<Connected, ConnectError> {
        Ok(Connected {
            integration_id: session.integration_id.ok_or(ConnectError::UsedState)?,
            entity_name: self.entity_name(&session).await?,
            account: session.account_shown().unwrap_or_default().to_owned(),
            is_new: false,
            can_sync: self.can_sync(),
            return_to: session.return_to,
        })
    }

    pub(super) async fn entity_name(&self, session: &OAuthSession) -> Result<String, ConnectError> {
        match entity::find(&self.engine.db, session.entity_id).await {
            Ok(entity) => Ok(entity.name),
            Err(DbError::NotFound) => Err(ConnectError::UnknownState),
            Err(error) => Err(error.into()),
        }
    }

    /// Carries out what the person in front of `browser` decided.
    pub async fn decide(
        &self,
        id: OAuthSessionId,
        browser: &str,
        decision: Decision,
    ) -> Result<Decided, Failure> {
        let found = oauth_session::find(&self.engine.db, id).await?;
        let session = found.ok_or(ConnectError::UnknownState)?;
        if session.service()? != self.name {
            return Err(ConnectError::UnknownState.into());
        }
        if session.browser_hash.is_none() || !is_of_browser(&session, browser) {
            return Err(ConnectError::OtherBrowser.into());
        }
        let return_to = session.return_to.clone();
        self.carry_out(session, decision)
            .await
            .map_err(|error| Failure { error, return_to })
    }

    async fn carry_out(
        &self,
        session: OAuthSession,
        decision: Decision,
    ) -> Result<Decided, ConnectError> {
        match (session.stage()?, decision) {
            (Stage::Confirming, Decision::Connect) => {
                self.not_over(&session)?;
                let granted = granted_to(&session)?;
                let connected = self.store(&session, Stage::Confirming, granted).await?;
                Ok(Decided::Connected(connected))
            }
            (Stage::Confirming, Decision::Cancel) => {
                let ended = self.integrations.end_waiting(&session).await?;
                Ok(Decided::Cancelled {
                    return_to: session.return_to,
                    is_revoked: ended.ok_or(ConnectError::UsedState)?.is_ended(),
                })
            }
            // The form was sent twice.
            (Stage::Connected, Decision::Connect) => {
                self.connected_before(session).await.map(Decided::Connected)
            }
            _ => Err(ConnectError::UsedState),
        }
    }
}

/// What waits in a session for its confirmation.
fn granted_to(session: &OAuthSession) -> Result<Granted, ConnectError> {
    let (Some(path), Some(intent), Some(account)) = (
        &session.secret_path,
        session.secret_intent_id,
        &session.account,
    ) else {
        return Err(ConnectError::UsedState);
    };
    let scopes = session.scopes.clone().unwrap_or_default();
    Ok(Granted {
        account: Account {
            id: account.clone(),
            name: session.account_shown().unwrap_or_default().to_owned(),
        },
        scopes: serde_json::from_value(scopes).unwrap_or_default(),
        kept: Announced {
            intent,
            path: path.parse().map_err(SecretError::from)?,
        },
        token_expires_at: session.token_expires_at,
        consent_expires_at: session.consent_expires_at,
    })
}
