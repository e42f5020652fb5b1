//! `/services`: what can be connected, how, and with which scopes.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{caller::Caller, error::ApiError, extract::Query, site::Site};
use crate::{
    app::App,
    domain::{CredentialType, ServiceName},
    providers,
};

/// The services there are; always all of them, so there is no next page.
#[derive(Serialize, ToSchema)]
pub(super) struct Services {
    /// Every service, in the order in which they are shown to people.
    items: Vec<Shown>,
    /// Always null.
    next_cursor: Option<String>,
}

/// What can be connected.
#[derive(Serialize, ToSchema)]
#[schema(as = Service)]
pub(super) struct Shown {
    /// Its name in bodies and paths.
    service_name: ServiceName,
    /// The name as people write it.
    title: &'static str,
    /// Whether nucleus has a connector for it. Without one it can be connected, and not be synced yet.
    can_sync: bool,
    /// The kinds of credentials with which it can be connected.
    credential_types: Vec<CredentialType>,
    /// What the credentials other than `oauth2` are, where there are any.
    by_hand: Option<ByHand>,
    /// How a person connects it in a browser.
    oauth: OAuth,
}

/// Credentials that a person gives by hand. They are asked about at the service before they are kept.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceByHand)]
pub(super) struct ByHand {
    /// What they are at the service.
    what: &'static str,
    /// Scopes without which they are refused, where the service tells which a token has.
    #[schema(value_type = Vec<String>)]
    scopes: &'static [&'static str],
}

/// What an OAuth flow needs.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceOAuth)]
pub(super) struct OAuth {
    /// Whether the operator has set the service's client id.
    is_configured: bool,
    /// The scopes that are asked for; empty where the service has none.
    #[schema(value_type = Vec<String>)]
    scopes: &'static [&'static str],
    /// To be registered with the service, letter by letter.
    redirect_uri: String,
    /// Days after which a person has to consent again, whatever is refreshed meanwhile; null where the
    /// service sets no such limit.
    consent_days: Option<i64>,
}

/// List services
///
/// What can be connected, how, and with which scopes.
#[utoipa::path(get, path = "/services", operation_id = "list_services", tag = "Services",
    responses(
        (status = 200, description = "All services.", body = Services),
        (status = 422, description = "invalid_fields")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(site): Extension<Site>,
    _: Caller,
    query: Query,
) -> Result<Json<Services>, ApiError> {
    query.finish()?;
    let items = ServiceName::ALL
        .into_iter()
        .map(|name| show(&app, &site, name))
        .collect();
    Ok(Json(Services {
        items,
        next_cursor: None,
    }))
}

fn show(app: &App, site: &Site, name: ServiceName) -> Shown {
    let can_sync = app.engine.services.contains_key(&name);
    let client = app.clients.get(&name);
    let provider = providers::of(name);
    let oauth = &provider.oauth;
    Shown {
        service_name: name,
        title: name.title(),
        can_sync,
        credential_types: provider.credential_types(),
        by_hand: provider.by_hand.map(|by_hand| ByHand {
            what: by_hand.what,
            scopes: by_hand.scopes,
        }),
        oauth: OAuth {
            is_configured: client.is_some_and(|client| client.client_id.is_some()),
            scopes: oauth.scopes,
            redirect_uri: site.redirect_uri(name),
            consent_days: oauth.consent_days,
        },
    }
}
