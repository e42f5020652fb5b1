//! Connecting an account by OAuth: the authorization code flow with PKCE, from the start to the first
//! request for a sync.
//!
//! A flow is a row of `oauth_sessions`. Its state is used up by a conditional update before the code is
//! exchanged, so that of several answers one calls the token endpoint. Whoever brings the answer must
//! be who began the flow: a key of the same entity, or the same browser. Where a key began it and a
//! browser brings the answer, the credentials are kept aside, and the person in front of the browser
//! is shown which account would go to which entity and has to confirm.

use chrono::{DateTime, TimeDelta, Utc};
use url::Url;

use crate::{
    db::{
        DbError,
        audit_log::{self, Act},
        entity,
        grant::Grant,
        integration,
        oauth_session::{self, OAuthSession},
    },
    domain::{EntityId, ServiceName, audit::Action, errors, ids::Id},
    integrations::{Integrations, Revocation},
    oauth::{
        OAuthConfig,
        authorization::{self, AuthorizationRequest},
    },
    secrets::OAuth2Credentials,
    sync::Engine,
};

mod answer;
mod confirm;
mod error;
mod return_to;
mod store;

pub use answer::{Answer, Bearer, Denial, Taken};
pub use confirm::{Confirmation, Decided, Decision};
pub use error::{ConnectError, Failure};
pub use return_to::{InvalidReturnTo, allowed as allowed_return_to};
pub use store::Connected;

/// A person has so long to consent, and as long again to confirm. The credentials that wait meanwhile
/// must be younger than what the sweep of secrets destroys.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);
/// Sessions that are forgotten in one transaction.
const SWEEP: u64 = 100;

/// What a flow begins with.
#[derive(Debug)]
pub struct Start {
    /// Whose account is to be connected.
    pub entity_id: EntityId,
    /// Who asks: `operator` or the id of the key.
    pub created_by: String,
    /// The browser that began it, where one did: its cookie.
    pub browser: Option<String>,
    /// Where the answer goes.
    pub redirect_uri: String,
    /// Where the browser goes at the end.
    pub return_to: Option<Url>,
}

/// A flow that has begun.
#[derive(Debug)]
pub struct Started {
    /// Where to send the person's browser.
    pub authorization_url: Url,
    /// What binds the answer to the flow.
    pub state: String,
    /// Until when it may be finished.
    pub expires_at: DateTime<Utc>,
}

/// Connects accounts of one service.
pub struct Flow<'a> {
    engine: &'a Engine,
    integrations: &'a Integrations,
    name: ServiceName,
    client: &'a OAuthConfig,
    client_id: &'a str,
}

impl<'a> Flow<'a> {
    /// For the service with this name, if a client is registered with it.
    pub fn new(
        engine: &'a Engine,
        integrations: &'a Integrations,
        client: Option<&'a OAuthConfig>,
        name: ServiceName,
    ) -> Result<Self, ConnectError> {
        let client = client.ok_or(ConnectError::NoClient(name))?;
        let client_id = client.client_id.as_deref();
        Ok(Self {
            engine,
            integrations,
            name,
            client,
            client_id: client_id.ok_or(ConnectError::NoClient(name))?,
        })
    }

    /// Begins a flow.
    pub async fn start(&self, start: Start) -> Result<Started, ConnectError> {
        if !entity::exists(&self.engine.db, start.entity_id).await? {
            return Err(ConnectError::NoEntity);
        }
        let (state, salt) = (authorization::random_text(), authorization::random_text());
        let now = self.engine.clock.now();
        let session = OAuthSession {
            id: Id::new(),
            entity_id: start.entity_id,
            service_name: self.name.to_string(),
            state_hash: authorization::hash(&state),
            pkce_salt: salt,
            browser_hash: start.browser.as_deref().map(authorization::hash),
            redirect_uri: start.redirect_uri,
            return_to: start.return_to.map(String::from),
            created_by: Some(start.created_by),
            status: String::new(),
            account: None,
            account_name: None,
            scopes: None,
            secret_path: None,
            secret_intent_id: None,
            token_expires_at: None,
            consent_expires_at: None,
            integration_id: None,
            created_at: now,
            expires_at: now + LIFETIME,
        };
        let tx = self.engine.db.begin().await?;
        oauth_session::insert(&tx, &session).await?;
        let target = session.id.to_string();
        let act = Act::done(session.entity_id, Action::OAuthStart, &target);
        audit_log::append(&tx, &act, now).await?;
        tx.commit().await?;
        let verifier = authorization::code_verifier(&state, &session.pkce_salt);
        let known = integration::of_service(&self.engine.db, session.entity_id, self.name).await?;
        let request = AuthorizationRequest {
            client_id: self.client_id,
            redirect_uri: &session.redirect_uri,
            state: &state,
            verifier: &verifier,
            account_name: known
                .as_ref()
                .and_then(|known| known.account_name.as_deref()),
        };
        Ok(Started {
            authorization_url: authorization::authorization_url(self.client, &request),
            state,
            expires_at: session.expires_at,
        })
    }

    /// Has a grant revoked that is not wanted for a `reason`, unless a connection lives on it. The account
    /// is told where it is known.
    pub(super) async fn give_back(
        &self,
        entity_id: EntityId,
        account: Option<&str>,
        credentials: &OAuth2Credentials,
        reason: ConnectError,
    ) -> ConnectError {
        let grant = Grant {
            of: None,
            entity_id,
            account,
        };
        let revoked = self
            .integrations
            .revoke_grant(self.name, &grant, credentials)
            .await;
        unwanted(reason, revoked)
    }
}

/// The reason, with what became of the grant.
fn unwanted(reason: ConnectError, revoked: Result<Revocation, DbError>) -> ConnectError {
    match revoked {
        Ok(grant) => ConnectError::Unwanted {
            reason: Box::new(reason),
            grant,
        },
        Err(error) => {
            let error = errors::chain(&error);
            tracing::error!(error, "a grant that is not wanted was not revoked");
            reason
        }
    }
}

/// Ends the flows that nobody confirmed in time, and forgets those that are over.
pub async fn sweep(engine: &Engine, integrations: &Integrations) -> Result<(), ConnectError> {
    let now = engine.clock.now();
    integrations.end_unconfirmed().await?;
    // Kept as long again, so that whoever comes late is told why it is too late.
    while oauth_session::purge(&engine.db, now - LIFETIME, SWEEP).await? == SWEEP {}
    Ok(())
}
