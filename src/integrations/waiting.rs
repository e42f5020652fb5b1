//! Accounts that wait for their person's word and do not get it: their grants are revoked as those of
//! connections are.
//!
//! The row of the flow is the memory of it. It is `ending` from before the service is asked until what
//! became of the grant is written down, and names the credentials for so long; what a death or a failing
//! service leaves there is taken up by the sweep.

use chrono::TimeDelta;

use super::{Announced, IntegrationError, Integrations, Revocation};
use crate::{
    db::{
        disconnection::{self, Disconnection},
        grant::Grant,
        oauth_session::{self, OAuthSession, Which},
    },
    domain::{EntityId, IntegrationId, errors, ids::Id},
    secrets::SecretError,
};

/// A service that fails is asked again after so long,
const AGAIN: TimeDelta = TimeDelta::minutes(1);
/// and not any more when the flow began so long ago: a little later the sweep of secrets destroys what
/// waits.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::minutes(45);

impl Integrations {
    /// Ends what waits and is not confirmed any more; whether the grant stands is in the answer. Where the
    /// service fails, it is asked again later. `None` where somebody else decided about it.
    pub async fn end_waiting(
        &self,
        session: &OAuthSession,
    ) -> Result<Option<Revocation>, IntegrationError> {
        let is_last = session.created_at + GIVEN_UP_AFTER <= self.clock.now();
        self.end_session(session, is_last).await
    }

    /// Ends what was not confirmed in time, or was not ended before. One that fails does not stop the
    /// others.
    pub async fn end_unconfirmed(&self) -> Result<(), IntegrationError> {
        let late = Which::Over(self.clock.now());
        for session in oauth_session::waiting(&self.db, late).await? {
            if let Err(error) = self.end_waiting(&session).await {
                tracing::error!(
                    entity.id = %session.entity_id,
                    provider = session.service_name,
                    error = errors::chain(&error),
                    "a grant that nobody confirmed is revoked later"
                );
            }
        }
        Ok(())
    }

    /// Ends what waits for an entity that is being removed; whether or not the services do.
    pub(super) async fn end_waiting_of(&self, id: EntityId) -> Result<(), IntegrationError> {
        for session in oauth_session::waiting(&self.db, Which::OfEntity(id)).await? {
            self.end_session(&session, true).await?;
        }
        Ok(())
    }

    async fn end_session(
        &self,
        session: &OAuthSession,
        is_last: bool,
    ) -> Result<Option<Revocation>, IntegrationError> {
        let (Some(path), Some(intent)) = (&session.secret_path, session.secret_intent_id) else {
            return Ok(None);
        };
        let kept = Announced {
            intent,
            path: path.parse().map_err(SecretError::from)?,
        };
        let service = session.service()?;
        let begun = self.clock.now();
        let tx = self.db.begin().await?;
        let is_mine = oauth_session::begin_ending(&tx, session, begun + AGAIN).await?;
        tx.commit().await?;
        if !is_mine {
            return Ok(None);
        }
        fail::fail_point!("waiting.begun");
        let grant = Grant {
            of: None,
            entity_id: session.entity_id,
            account: session.account.as_deref(),
        };
        let revocation = self.revoke_kept(service, &grant, &kept.path).await?;
        fail::fail_point!("waiting.revoked");
        if matches!(revocation, Revocation::Failed(_)) && !is_last {
            return Ok(Some(revocation));
        }
        let now = self.clock.now();
        let row = Disconnection {
            id: Id::new(),
            integration_id: IntegrationId::from(session.id.0),
            entity_id: session.entity_id,
            service_name: session.service_name.clone(),
            records: None,
            requested_at: begun,
            outcome: None,
            detail: None,
            record_count: None,
        };
        let (word, detail) = (revocation.as_str(), revocation.detail());
        let tx = self.db.begin().await?;
        oauth_session::end(&tx, session.id, now).await?;
        let row = disconnection::begin(&tx, &row).await?;
        disconnection::answered(&tx, row.id, word, detail, now).await?;
        disconnection::finish(&tx, &row, now).await?;
        tx.commit().await?;
        self.metrics.revoked(service, word);
        tracing::info!(
            entity.id = %session.entity_id,
            provider = %service,
            outcome = word,
            "an account was not connected in the end"
        );
        self.take_back(&kept).await;
        Ok(Some(revocation))
    }
}
