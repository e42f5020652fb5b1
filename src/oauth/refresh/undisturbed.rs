//! What is done with an integration's credentials while nobody refreshes them: a refresh under way is
//! waited for, and the next one waits.

use super::Refresher;
use crate::{
    db::integration,
    domain::{IntegrationId, sync::Scope},
    oauth::tokens::TokenError,
    secrets::OAuth2Credentials,
};

impl Refresher {
    /// Reads the credentials that are the integration's by now, and holds the right to refresh them until
    /// `work` is done.
    pub(in crate::oauth) async fn undisturbed<W: Future>(
        &self,
        id: IntegrationId,
        work: impl FnOnce(OAuth2Credentials) -> W,
    ) -> Result<W::Output, TokenError> {
        let lease = self.lease(id).await?;
        let working = async {
            let found = integration::find(&self.db, Scope::Operator, id).await?;
            let read = self.read(found).await?;
            Ok(work(read.credentials).await)
        };
        let result = tokio::select! {
            result = working => result,
            never = self.hold(id, lease.generation) => match never {},
        };
        self.release(id, &lease).await;
        result
    }
}
