//! Tokens that a person gives by hand: asked about at their service before they are kept.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::error::ApiError;
use crate::{
    app::App,
    db::integration::Integration,
    domain::ServiceName,
    oauth::account::{AccountError, Known},
    providers,
};

/// Whose a token is, or why nobody could say. The error names what is wrong with the token: the
/// service refuses it, it lacks a scope, or it is of another account than `of` holds the records of.
pub(super) async fn ask(
    app: &App,
    service: ServiceName,
    fields: &BTreeMap<String, SecretString>,
    of: Option<&Integration>,
) -> Result<Result<Known, String>, ApiError> {
    let Some((name, token)) = fields.first_key_value() else {
        return Err(ApiError::field("credentials", "hold no token"));
    };
    let field = format!("credentials.{name}");
    let title = service.title();
    let known = match app.engine.tokens.account(service, token).await {
        Ok(known) => known,
        Err(AccountError::Unavailable(reason)) => {
            return Ok(Err(format!(
                "the credentials were not tested, because {title} did not answer: {reason}"
            )));
        }
        Err(
            AccountError::Unauthorized(said)
            | AccountError::Revoked(said)
            | AccountError::Expired(said),
        ) => {
            let message = format!("is not accepted by {title}: {said}");
            return Err(ApiError::field(field, message));
        }
        Err(AccountError::Refused(said)) => {
            let message = format!("cannot be used: {said}");
            return Err(ApiError::field(field, message));
        }
    };
    let provider = providers::of(service);
    if let (Some(by_hand), Some(scopes)) = (&provider.by_hand, &known.scopes) {
        let missing = provider.oauth.missing(by_hand.scopes, scopes);
        if !missing.is_empty() {
            let message = format!("lacks scopes: make one with {}", missing.join(", "));
            return Err(ApiError::field(field, message));
        }
    }
    if let Some(of) = of
        && of
            .account
            .as_ref()
            .is_some_and(|id| *id != known.account.id)
    {
        let message = format!(
            "is one of {}, but the integration holds the records of {}",
            known.account.name,
            of.account_shown().unwrap_or_default()
        );
        return Err(ApiError::field(field, message));
    }
    Ok(Ok(known))
}
