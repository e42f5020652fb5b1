//! `/services`: what can be connected, how, and with which scopes.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    bodies::CredentialType,
    error::ApiError,
    extract::{Caller, Query},
    site::Site,
};
use crate::{app::App, domain::ServiceName};

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
    /// How a person connects it in a browser, where that is possible.
    oauth: Option<OAuth>,
}

/// What an OAuth flow needs.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceOAuth)]
pub(super) struct OAuth {
    /// Whether the operator has set the service's client id.
    is_configured: bool,
    /// The scopes that are asked for.
    #[schema(value_type = Vec<String>)]
    scopes: &'static [&'static str],
    /// To be registered with the service, letter by letter.
    redirect_uri: String,
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
    let service = app.engine.services.get(&name);
    let client = app.clients.get(&name);
    Shown {
        service_name: name,
        title: name.title(),
        can_sync: service.is_some(),
        credential_types: CredentialType::of(service.is_some()).to_vec(),
        oauth: service.map(|service| OAuth {
            is_configured: client.is_some_and(|client| client.client_id.is_some()),
            scopes: service.connector.consent().scopes,
            redirect_uri: site.redirect_uri(name),
        }),
    }
}
