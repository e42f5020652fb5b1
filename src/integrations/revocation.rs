//! What becomes of a grant at its service: whether somebody else lives on it, by which token the service
//! is asked to revoke it, and what its answer is worth.

use secrecy::SecretString;

use super::Integrations;
use crate::{
    audit::Attempt,
    db::{
        DbError,
        disconnection::{self, Disconnection, DisconnectionId},
        grant::{self, Grant},
        integration::Integration,
    },
    domain::{ServiceName, audit::Action, errors},
    oauth::{endpoint::EndpointError, tokens::TokenError},
    providers,
    secrets::{Credentials, OAuth2Credentials, SecretPath},
};

/// Revoking at Google ends what one client was granted for an account, in all three.
const GOOGLE: [ServiceName; 3] = [
    ServiceName::Gmail,
    ServiceName::GoogleCalendar,
    ServiceName::GoogleDrive,
];

/// What became of a grant at its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The service revoked it.
    Revoked,
    /// The service says that it did not stand any more.
    AlreadyGone,
    /// Another integration lives on it.
    SharedGrant,
    /// The service revokes nothing, or not what these credentials are.
    NotSupported,
    /// There are no credentials to revoke: the access was ended before.
    NoCredentials,
    /// The service ended the access token; the refresh token that came with it, it does not.
    AccessTokenOnly,
    /// There is no token that the service would take, so it may well stand; why.
    NoUsableToken(String),
    /// The service did not, or the credentials cannot be read; why.
    Failed(String),
}

impl Revocation {
    /// Its word in the table and in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::AlreadyGone => "already_gone",
            Self::SharedGrant => "shared_grant",
            Self::NotSupported => "not_supported",
            Self::NoCredentials => "no_credentials",
            Self::AccessTokenOnly => "access_token_only",
            Self::NoUsableToken(_) => "no_usable_token",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether the grant stands no more.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Revoked | Self::AlreadyGone)
    }

    /// What is kept in the table.
    pub(super) fn detail(&self) -> Option<&str> {
        match self {
            Self::NoUsableToken(why) | Self::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// As a row keeps it.
    pub(super) fn kept(row: &Disconnection) -> Option<Self> {
        let detail = || row.detail.clone().unwrap_or_default();
        Some(match row.outcome.as_deref()? {
            "revoked" => Self::Revoked,
            "already_gone" => Self::AlreadyGone,
            "shared_grant" => Self::SharedGrant,
            "not_supported" => Self::NotSupported,
            "no_credentials" => Self::NoCredentials,
            "access_token_only" => Self::AccessTokenOnly,
            "no_usable_token" => Self::NoUsableToken(detail()),
            _ => Self::Failed(detail()),
        })
    }
}

/// The token by which a service revokes the grant, if it is among these.
fn revoking_token(
    way: providers::Revocation,
    credentials: &OAuth2Credentials,
) -> Option<&SecretString> {
    match way.wants_access_token() {
        true => credentials.access_token.as_ref(),
        false => credentials.grant_token(),
    }
}

impl Integrations {
    /// Revokes the grant of an integration whose access is being ended. [`DbError::NotFound`] where somebody
    /// else has come to the end of that.
    pub(super) async fn revoke_grant_of(
        &self,
        found: &Integration,
        ending: DisconnectionId,
    ) -> Result<Revocation, DbError> {
        let service = found.service()?;
        if found.secret_path.is_none() {
            return Ok(Revocation::NoCredentials);
        }
        if found.credential_type != "oauth2" {
            return Ok(Revocation::NotSupported);
        }
        // Before the right to refresh is taken, which this may need itself.
        let good = match providers::of(service).oauth.revocation.wants_access_token() {
            false => None,
            true => match self.tokens.token_for(found.id, None, false).await {
                Ok(token) => Some(token),
                Err(error) => return Ok(without_token(found, error)),
            },
        };
        let grant = Grant {
            of: Some(found.id),
            entity_id: found.entity_id,
            account: found.account.as_deref(),
        };
        let revoking = self
            .tokens
            .undisturbed(found.id, |mut credentials| async move {
                // Once it is over the account may be connected again. Asked after they were read, because
                // then these are the credentials that are to end.
                let tx = self.db.begin().await?;
                disconnection::go_on(&tx, ending).await?;
                tx.commit().await?;
                let now = self.clock.now();
                let has_ended = credentials
                    .access_token_expires_at
                    .is_some_and(|end| end <= now);
                if credentials.access_token.is_none() || has_ended {
                    credentials.access_token = good.or(credentials.access_token);
                }
                self.revoke_grant(service, &grant, &credentials).await
            });
        match revoking.await {
            Ok(revocation) => revocation,
            Err(error) => Ok(without_token(found, error)),
        }
    }

    /// Revokes a grant by one of its tokens, unless a connection lives on it. A service that fails is no
    /// error.
    pub async fn revoke_grant(
        &self,
        service: ServiceName,
        grant: &Grant<'_>,
        credentials: &OAuth2Credentials,
    ) -> Result<Revocation, DbError> {
        if grant::sharing(&self.db, grant, &self.services_of_grant(service)).await? > 0 {
            return Ok(Revocation::SharedGrant);
        }
        let way = providers::of(service).oauth.revocation;
        let token = match revoking_token(way, credentials) {
            Some(token) if way != providers::Revocation::NotOffered => token,
            _ => return Ok(Revocation::NotSupported),
        };
        let target = grant.of.map_or(service.to_string(), |id| id.to_string());
        let attempt = Attempt::begin(
            &self.db,
            self.clock.as_ref(),
            Some(grant.entity_id),
            Action::GrantRevoke,
            &target,
        )
        .await?;
        let revoked = self.tokens.revoke(service, token).await;
        attempt.end(revoked.is_ok(), &target).await;
        let ends_one_token =
            way == providers::Revocation::OwnToken && credentials.refresh_token.is_some();
        Ok(match revoked {
            Ok(()) | Err(EndpointError::Gone(_)) if ends_one_token => Revocation::AccessTokenOnly,
            Ok(()) => Revocation::Revoked,
            // RFC 7009, section 2.2: what is void need not be revoked.
            Err(EndpointError::Gone(_)) => Revocation::AlreadyGone,
            Err(EndpointError::Expired(said)) => Revocation::NoUsableToken(said),
            Err(error) => {
                tracing::warn!(
                    entity.id = %grant.entity_id,
                    provider = %service,
                    error = %error,
                    "the service did not revoke the grant"
                );
                Revocation::Failed(error.to_string())
            }
        })
    }

    /// As [`Integrations::revoke_grant`], by credentials that no integration has.
    pub async fn revoke_kept(
        &self,
        service: ServiceName,
        grant: &Grant<'_>,
        path: &SecretPath,
    ) -> Result<Revocation, DbError> {
        match self.credentials(path.as_str()).await {
            Ok(Credentials::OAuth2(credentials)) => {
                self.revoke_grant(service, grant, &credentials).await
            }
            Ok(Credentials::Fields(_)) => Ok(Revocation::NotSupported),
            Err(error) => {
                tracing::warn!(
                    entity.id = %grant.entity_id,
                    provider = %service,
                    error = errors::chain(&error),
                    "a grant was not revoked, because its credentials cannot be read"
                );
                let reason = format!("the credentials cannot be read: {}", error.outline());
                Ok(Revocation::Failed(reason))
            }
        }
    }

    /// The services for which a grant of `service` stands: Google's, as far as they are asked by the same
    /// client.
    fn services_of_grant(&self, service: ServiceName) -> Vec<ServiceName> {
        if !GOOGLE.contains(&service) {
            return vec![service];
        }
        let same = |other: &ServiceName| self.tokens.may_be_one_client(service, *other);
        GOOGLE.into_iter().filter(same).collect()
    }
}

/// What becomes of a grant when its tokens are not to be had.
fn without_token(found: &Integration, error: TokenError) -> Revocation {
    match error {
        // A consent that ran out, or a refresh whose answer was lost, says nothing of the grant.
        TokenError::Expired(why) | TokenError::Lost(why) => Revocation::NoUsableToken(why),
        TokenError::Revoked(_) => Revocation::AlreadyGone,
        error => {
            tracing::warn!(
                integration.id = %found.id,
                error = %error,
                "the grant was not revoked, because its tokens are not to be had"
            );
            Revocation::Failed(error.to_string())
        }
    }
}
