//! `/services`: what can be connected, how, and with which scopes.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Serialize;

use super::{
    bodies::CredentialType,
    error::ApiError,
    extract::{Caller, Query},
    site::Site,
};
use crate::{app::App, domain::ServiceName};

/// The services there are; always all of them, so there is no next page.
#[derive(Serialize)]
pub(super) struct Services {
    items: Vec<Shown>,
    next_cursor: Option<String>,
}

/// A service as clients see it.
#[derive(Serialize)]
pub(super) struct Shown {
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
#[derive(Serialize)]
pub(super) struct OAuth {
    /// Whether the operator has set the service's client id.
    is_configured: bool,
    /// The scopes that are asked for.
    scopes: &'static [&'static str],
    /// To be registered with the service, letter by letter.
    redirect_uri: String,
}

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
