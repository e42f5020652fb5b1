//! The end of a flow: credentials pinned, integration active, sync asked for, in one transaction.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{ConnectError, Flow, unwanted};
use crate::{
    db::{
        Tx,
        audit_log::{self, Act},
        grant::Grant,
        integration::{self, Integration, Reconnected},
        oauth_session::{self, OAuthSession, Stage},
        secret_intent,
        standing::CHECK_EVERY,
    },
    domain::{
        IntegrationId,
        audit::Action,
        sync::{IntegrationStatus, Scope, Trigger},
    },
    integrations::{Announced, named, refuse_if_ending},
    providers::Account,
    sync::{self, Request, RequestError, SyncSettings},
};

/// An account that is connected.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub integration_id: IntegrationId,
    /// What people know the account by.
    pub account: String,
    /// Whose it is now.
    pub entity_name: String,
    /// Whether the connection is a new one.
    pub is_new: bool,
    /// Whether its items are brought here.
    pub can_sync: bool,
    /// Where the browser goes.
    pub return_to: Option<String>,
}

/// Credentials that were granted and are kept in the secret store, not yet pinned.
pub(super) struct Granted {
    pub(super) account: Account,
    pub(super) scopes: Vec<String>,
    pub(super) kept: Announced,
    pub(super) token_expires_at: Option<DateTime<Utc>>,
    pub(super) consent_expires_at: Option<DateTime<Utc>>,
}

impl Flow<'_> {
    /// Pins the credentials on the integration and asks for a sync, in one transaction.
    pub(super) async fn store(
        &self,
        session: &OAuthSession,
        from: Stage,
        granted: Granted,
    ) -> Result<Connected, ConnectError> {
        let stored = self.store_in(session, from, &granted).await;
        let (integration_id, before) = match stored {
            Ok(stored) => stored,
            // Somebody else decided about these credentials, and has dealt with them.
            Err(ConnectError::UsedState) if from == Stage::Confirming => {
                return Err(ConnectError::UsedState);
            }
            Err(error) => {
                let is_in_doubt = matches!(&error, ConnectError::Db(error) if error.is_in_doubt());
                if from != Stage::Used || is_in_doubt {
                    return Err(error);
                }
                let refused = self.refused(session, &granted, error).await;
                self.integrations.take_back(&granted.kept).await;
                return Err(refused);
            }
        };
        self.engine.tokens.forget(integration_id);
        let is_new = before.is_none();
        if let Some(before) = before {
            self.integrations
                .destroy_last(before.as_deref(), granted.kept.intent)
                .await;
        }
        tracing::info!(
            integration.id = %integration_id,
            entity.id = %session.entity_id,
            provider = %self.name,
            new = is_new,
            "an account was connected"
        );
        Ok(Connected {
            integration_id,
            entity_name: self.entity_name(session).await?,
            account: granted.account.name,
            is_new,
            can_sync: self.can_sync(),
            return_to: session.return_to.clone(),
        })
    }

    /// What is not wanted after all is given back; what failed may be tried again.
    async fn refused(
        &self,
        session: &OAuthSession,
        granted: &Granted,
        error: ConnectError,
    ) -> ConnectError {
        if !matches!(
            error,
            ConnectError::OtherAccount { .. } | ConnectError::Ending
        ) {
            return error;
        }
        let grant = Grant {
            of: None,
            entity_id: session.entity_id,
            account: Some(&granted.account.id),
        };
        let path = &granted.kept.path;
        unwanted(
            error,
            self.integrations.revoke_kept(self.name, &grant, path).await,
        )
    }

    /// Gives the integration and, where it was there before, what it had pinned.
    async fn store_in(
        &self,
        session: &OAuthSession,
        from: Stage,
        granted: &Granted,
    ) -> Result<(IntegrationId, Option<Option<String>>), ConnectError> {
        let now = self.engine.clock.now();
        let tx = self.engine.db.begin().await?;
        let known = integration::of_service_in(&tx, session.entity_id, self.name).await?;
        let id = known
            .as_ref()
            .map_or_else(IntegrationId::new, |known| known.id);
        let account = named(&granted.account);
        if !oauth_session::connected(&tx, session.id, from, id, account).await? {
            return Err(ConnectError::UsedState);
        }
        match &known {
            Some(known) => {
                must_be_same(known, &granted.account)?;
                let again = Reconnected {
                    account,
                    secret_path: granted.kept.path.as_str(),
                    scopes: json!(granted.scopes),
                    token_expires_at: granted.token_expires_at,
                    consent_expires_at: granted.consent_expires_at,
                };
                integration::reconnect(&tx, known, again, now).await?;
                refuse_if_ending(&tx, id).await?;
            }
            None => {
                let row = self.new_integration(session, id, granted, now);
                integration::insert(&tx, &row).await?;
                secret_intent::delete(&tx, granted.kept.intent).await?;
            }
        }
        if self.can_sync() {
            self.request_sync(&tx, id, now).await?;
        }
        let target = id.to_string();
        let act = Act::done(session.entity_id, Action::IntegrationConnect, &target);
        audit_log::append(&tx, &act, now).await?;
        fail::fail_point!("connect.commit");
        tx.commit().await?;
        fail::fail_point!("connect.connected");
        Ok((id, known.map(|known| known.secret_path)))
    }

    fn new_integration(
        &self,
        session: &OAuthSession,
        id: IntegrationId,
        granted: &Granted,
        now: DateTime<Utc>,
    ) -> Integration {
        let settings = SyncSettings::default();
        Integration {
            id,
            entity_id: session.entity_id,
            service_name: self.name.to_string(),
            service_type: None,
            display_name: None,
            description: None,
            secret_path: Some(granted.kept.path.to_string()),
            credential_type: "oauth2".to_owned(),
            status: IntegrationStatus::Active.as_str().to_owned(),
            account: Some(granted.account.id.clone()),
            account_name: Some(granted.account.name.clone()),
            account_verified: true,
            last_sync_at: None,
            last_sync_status: None,
            sync_error_message: None,
            sync_failures: 0,
            next_sync_at: self.can_sync().then(|| settings.next_sync(now, 0, id)),
            token_expires_at: granted.token_expires_at,
            consent_expires_at: granted.consent_expires_at,
            refresh_generation: 0,
            credentials_generation: 0,
            access_ended_at: None,
            next_check_at: (!self.can_sync()).then(|| now + CHECK_EVERY),
            scopes: json!(granted.scopes),
            config: json!({}),
            sync_settings: json!(settings),
            meta_data: json!({}),
            created_at: now,
            updated_at: now,
            created_by: session.created_by.clone(),
        }
    }

    /// Whether there is a connector; what is connected without one waits for it.
    pub(super) fn can_sync(&self) -> bool {
        self.engine.services.contains_key(&self.name)
    }

    async fn request_sync(
        &self,
        tx: &Tx,
        id: IntegrationId,
        now: DateTime<Utc>,
    ) -> Result<(), ConnectError> {
        let request = Request {
            trigger: Trigger::Connected,
            confirm_mass_deletion: false,
        };
        match sync::request_in(tx, now, Scope::Operator, id, request).await {
            // What was connected just now is active.
            Ok(_) | Err(RequestError::NotSyncable(_)) => Ok(()),
            Err(RequestError::Db(error)) => Err(error.into()),
        }
    }
}

/// The account of a connection stays the same: its records are that account's.
pub(super) fn must_be_same(known: &Integration, given: &Account) -> Result<(), ConnectError> {
    match &known.account {
        Some(id) if *id != given.id => {
            let name = known.account_shown().unwrap_or_default();
            let same_name = name == given.name;
            Err(ConnectError::OtherAccount {
                known: told_apart(name, id, same_name),
                given: told_apart(&given.name, &given.id, same_name),
            })
        }
        _ => Ok(()),
    }
}

/// What an account is called, with what names it for good where another is called the same.
fn told_apart(name: &str, id: &str, same_name: bool) -> String {
    match same_name {
        true => format!("{name} ({id})"),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_one_name_are_told_apart_by_what_names_them_for_good() {
        assert_eq!(told_apart("Ada", "7", true), "Ada (7)");
        assert_eq!(told_apart("ada@example.org", "7", false), "ada@example.org");
    }
}
