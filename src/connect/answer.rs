//! What the authorization server answered: who may bring it, and what it is worth.

use secrecy::SecretString;

use super::{
    Confirmation, ConnectError, Connected, Failure, Flow,
    store::{Granted, must_be_same},
};
use crate::{
    db::{
        integration,
        oauth_session::{self, OAuthSession, Stage},
    },
    domain::sync::Scope,
    oauth::{
        account::{AccountError, Known},
        authorization,
        endpoint::{CodeGrant, Tokens},
    },
    providers::Account,
    secrets::{Credentials, OAuth2Credentials},
};

/// What the authorization server answered (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug)]
pub struct Answer {
    /// The state that it was asked with.
    pub state: String,
    /// The code, or why there is none.
    pub code: Result<SecretString, Denial>,
    /// Who answers.
    pub iss: Option<String>,
}

/// The words of an authorization server that says no.
#[derive(Debug)]
pub struct Denial {
    /// `error`.
    pub error: String,
    /// `error_description`, which may be empty.
    pub description: String,
}

/// Who brings an answer.
#[derive(Debug, Clone, Copy)]
pub enum Bearer<'a> {
    /// The holder of a key.
    Key(Scope),
    /// A browser, by its cookie.
    Browser(&'a str),
}

/// How an answer was taken.
#[derive(Debug)]
pub enum Taken {
    /// The account is connected.
    Connected(Connected),
    /// The person has to confirm first.
    Confirm(Confirmation),
}

impl Flow<'_> {
    /// Takes what the authorization server answered.
    pub async fn finish(&self, answer: Answer, bearer: Bearer<'_>) -> Result<Taken, Failure> {
        let session = self.session(&answer.state, bearer).await?;
        let return_to = session.return_to.clone();
        self.take(session, answer, bearer)
            .await
            .map_err(|error| Failure { error, return_to })
    }

    /// The flow that the answer belongs to, if this bearer may finish it.
    async fn session(&self, state: &str, bearer: Bearer<'_>) -> Result<OAuthSession, ConnectError> {
        let found = oauth_session::by_state(&self.engine.db, &authorization::hash(state)).await?;
        let session = found.ok_or(ConnectError::UnknownState)?;
        // One redirect URI a service: an answer of another service's server does not come this way.
        if session.service()? != self.name {
            return Err(ConnectError::UnknownState);
        }
        match bearer {
            Bearer::Key(Scope::Entity(entity)) if entity != session.entity_id => {
                Err(ConnectError::UnknownState)
            }
            Bearer::Browser(cookie) if !is_of_browser(&session, cookie) => {
                Err(ConnectError::OtherBrowser)
            }
            _ => Ok(session),
        }
    }

    async fn take(
        &self,
        session: OAuthSession,
        answer: Answer,
        bearer: Bearer<'_>,
    ) -> Result<Taken, ConnectError> {
        match (session.stage()?, bearer) {
            (Stage::Started, _) => {}
            // The person reloads the page.
            (Stage::Confirming, Bearer::Browser(_)) => {
                self.not_over(&session)?;
                return self.confirmation(&session).await.map(Taken::Confirm);
            }
            // Where a key finished the flow, no browser has anything to look at.
            (Stage::Connected, Bearer::Browser(_)) if session.browser_hash.is_some() => {
                return self.connected_before(session).await.map(Taken::Connected);
            }
            _ => return Err(ConnectError::UsedState),
        }
        self.not_over(&session)?;
        if !authorization::is_issuer(self.client, answer.iss.as_deref()) {
            return Err(ConnectError::OtherIssuer);
        }
        let browser_hash = match bearer {
            Bearer::Browser(cookie) => Some(authorization::hash(cookie)),
            Bearer::Key(_) => None,
        };
        let tx = self.engine.db.begin().await?;
        let now = self.engine.clock.now();
        let taken = oauth_session::take(&tx, session.id, browser_hash.as_deref(), now).await?;
        tx.commit().await?;
        if !taken {
            return Err(ConnectError::UsedState);
        }
        fail::fail_point!("connect.taken");
        let code = answer.code.map_err(|denial| ConnectError::Denied {
            error: denial.error,
            description: denial.description,
        })?;
        let granted = self.exchange(&session, &answer.state, &code).await?;
        let must_confirm = browser_hash.is_some() && session.browser_hash.is_none();
        if must_confirm {
            self.wait(&session, granted).await.map(Taken::Confirm)
        } else {
            self.store(&session, Stage::Used, granted)
                .await
                .map(Taken::Connected)
        }
    }

    pub(super) fn not_over(&self, session: &OAuthSession) -> Result<(), ConnectError> {
        if session.expires_at <= self.engine.clock.now() {
            return Err(ConnectError::ExpiredState);
        }
        Ok(())
    }

    /// Exchanges the code, asks whose the account is, and keeps the credentials.
    async fn exchange(
        &self,
        session: &OAuthSession,
        state: &str,
        code: &SecretString,
    ) -> Result<Granted, ConnectError> {
        let grant = CodeGrant {
            code,
            redirect_uri: &session.redirect_uri,
            code_verifier: &authorization::code_verifier(state, &session.pkce_salt),
        };
        let tokens = self.engine.tokens.exchange(self.name, &grant).await?;
        let Tokens {
            access_token,
            expires_at,
            refresh_token,
            consent_expires_at,
            scope,
            ..
        } = tokens;
        let known = self.engine.tokens.account(self.name, &access_token).await;
        let scopes = authorization::granted(self.client.provider, scope.as_deref());
        let credentials = OAuth2Credentials {
            refresh_token,
            scopes: scopes.clone(),
            access_token: Some(access_token),
            access_token_expires_at: expires_at,
        };
        let told = known.as_ref().ok().map(|known| known.account.id.clone());
        let account = match self.wanted(session, &credentials, known).await {
            Ok(account) => account,
            Err(reason) => {
                let entity_id = session.entity_id;
                let account = told.as_deref();
                return Err(self
                    .give_back(entity_id, account, &credentials, reason)
                    .await);
            }
        };
        fail::fail_point!("connect.exchanged");
        let kept = self
            .integrations
            .announce(
                session.entity_id,
                self.name,
                Credentials::OAuth2(credentials),
            )
            .await?;
        Ok(Granted {
            account,
            scopes,
            kept,
            token_expires_at: expires_at,
            consent_expires_at,
        })
    }

    /// The account, where what was granted is enough and it may be this entity's. It is asked before
    /// anything is kept, and once more when that is stored.
    async fn wanted(
        &self,
        session: &OAuthSession,
        granted: &OAuth2Credentials,
        known: Result<Known, AccountError>,
    ) -> Result<Account, ConnectError> {
        let provider = self.client.provider;
        let missing = authorization::missing(provider, &granted.scopes);
        if !missing.is_empty() {
            return Err(ConnectError::ScopesMissing(missing));
        }
        if granted.refresh_token.is_none() && provider.oauth.needs_refresh_token {
            return Err(ConnectError::NoRefreshToken);
        }
        let account = known?.account;
        let before = integration::of_service(&self.engine.db, session.entity_id, self.name).await?;
        if let Some(before) = before {
            must_be_same(&before, &account)?;
        }
        Ok(account)
    }
}

/// Whether the flow is this browser's, or may become it.
pub(super) fn is_of_browser(session: &OAuthSession, cookie: &str) -> bool {
    match &session.browser_hash {
        Some(hash) => *hash == authorization::hash(cookie),
        None => true,
    }
}
