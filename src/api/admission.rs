//! Whether a request is let in: asks once who sends it, and counts it against their limit.
//!
//! Behind a proxy that is not configured everybody has one address. So requests with a key are counted by
//! key, and those without one, or with a wrong one, by address; a key that was valid within the hour is
//! never refused for what others at its address do. Where an address has tried too many wrong keys, no
//! other is looked up for it: a guess costs no look-up, and a right one does not show.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    caller::{Caller, Identity, Presented},
    client_address::ClientAddress,
    edge::RequestId,
    error::ApiError,
    rate_limit::{RateLimits, Standing},
};
use crate::{
    app::App,
    db::api_key::ApiKeyId,
    domain::{
        audit::{Actor, Interface, Origin},
        sync::Scope,
    },
};

/// Routes that are asked by whoever runs the process, at any rate and by no key. They ask the database once a
/// second at most.
pub(super) const PROBES: [&str; 2] = ["/livez", "/readyz"];
/// How much there is, and in which time.
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How much of it is left.
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Lets a request in with the [`Identity`] of who sends it, or refuses it because of too many.
pub(super) async fn admit(
    State(app): State<Arc<App>>,
    Extension(limits): Extension<Arc<RateLimits>>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    if route.is_some_and(|route| PROBES.contains(&route.as_str())) {
        return next.run(request).await;
    }
    let (identity, standing) = match Presented::in_headers(request.headers(), &app) {
        Presented::Identity(identity) => {
            let standing = count(&limits, &identity, address);
            (identity, standing)
        }
        Presented::Key(hash) => with_key(&app, &limits, hash, address).await,
    };
    let mut response = match standing.and_then(|standing| standing.retry_after) {
        Some(seconds) => {
            limits.keep_waiting().await;
            ApiError::RateLimited(seconds).into_response()
        }
        None => {
            let origin = origin(&identity, request.extensions().get(), address);
            request.extensions_mut().insert(identity);
            origin.scope(next.run(request)).await
        }
    };
    if let Some(standing) = standing {
        tell(&mut response, &standing);
    }
    response
}

/// Who sends a request with a key, and how they stand. What is one too many is not looked up.
async fn with_key(
    app: &App,
    limits: &RateLimits,
    hash: String,
    address: Option<IpAddr>,
) -> (Identity, Option<Standing>) {
    if let Some(standing) = limits.guessed_too_often(&hash, address) {
        return (Identity::Impostor, Some(standing));
    }
    let counted = limits.with_known_key(&hash);
    if counted.is_some_and(|standing| standing.retry_after.is_some()) {
        return (Identity::Nobody, counted);
    }
    let identity = Identity::of(&hash, app).await;
    let standing = match &identity {
        // Nobody knows whether it is a guess, but that the database was asked.
        Identity::Unknown(_) if !limits.is_known_valid(&hash) => limits.with_wrong_key(address),
        Identity::Known(_) if counted.is_some() => counted,
        identity => count(limits, identity, address),
    };
    match &identity {
        Identity::Known(caller) => limits.note_valid(hash, counted_key(caller)),
        Identity::Impostor => limits.forget(&hash),
        Identity::Nobody | Identity::Unknown(_) => {}
    }
    (identity, standing)
}

/// The key by which a caller's requests are counted; those of the operator are not.
fn counted_key(caller: &Caller) -> Option<ApiKeyId> {
    match caller.scope {
        Scope::Entity(_) => caller.key,
        Scope::Operator => None,
    }
}

/// Counts a request against the limit of who sends it.
fn count(limits: &RateLimits, identity: &Identity, address: Option<IpAddr>) -> Option<Standing> {
    match identity {
        Identity::Nobody => limits.without_key(address),
        Identity::Impostor => limits.with_wrong_key(address),
        Identity::Known(caller) => limits.with_key(counted_key(caller)?),
        Identity::Unknown(_) => None,
    }
}

/// At whose word the request is carried out.
fn origin(identity: &Identity, id: Option<&RequestId>, address: Option<IpAddr>) -> Origin {
    let (actor, key) = match identity {
        Identity::Known(caller) => match caller.scope {
            Scope::Operator => (Actor::Operator, caller.key),
            Scope::Entity(_) => (Actor::Entity, caller.key),
        },
        Identity::Nobody | Identity::Impostor | Identity::Unknown(_) => (Actor::Person, None),
    };
    Origin {
        actor,
        key_id: key.map(|key| key.0),
        request_id: id.map(|id| id.0.clone()),
        interface: Interface::Api,
        address,
    }
}

fn tell(response: &mut Response, standing: &Standing) {
    let headers = response.headers_mut();
    for (name, value) in [
        (RATE_LIMIT_POLICY, standing.policy()),
        (RATE_LIMIT, standing.limit()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
