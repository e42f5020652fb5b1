//! Who calls. It is found out once a request, before anything else of it is looked at, so that nobody
//! learns without a key what is wrong with a body; and there is no identity to fall back on.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header, request::Parts},
};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::{
    app::App,
    db::{
        DbError,
        api_key::{self, ApiKey, ApiKeyId, KeyScope},
    },
    domain::{EntityId, errors, sync::Scope},
    keys,
};

/// Methods that only look (RFC 9110, section 9.2.1).
const SAFE: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose objects exist for this caller.
    pub scope: Scope,
    /// `operator`, or the id of the key.
    pub name: String,
    /// The key; none where it is the configured one of the operator.
    pub key: Option<ApiKeyId>,
    /// What the key may do.
    pub may: KeyScope,
}

impl Caller {
    /// Refuses everybody but the operator.
    pub fn require_operator(&self) -> Result<(), ApiError> {
        match self.scope {
            Scope::Operator => Ok(()),
            Scope::Entity(_) => Err(ApiError::Forbidden("this needs the operator's key")),
        }
    }

    /// Another's entity does not exist for this caller.
    pub fn require_entity(&self, entity: EntityId) -> Result<(), ApiError> {
        match self.scope {
            Scope::Entity(own) if own != entity => Err(ApiError::NotFound),
            _ => Ok(()),
        }
    }
}

/// What the headers of a request say of who sends it.
pub(super) enum Presented {
    /// Everything.
    Identity(Identity),
    /// The hash of what may be a key.
    Key(String),
}

impl Presented {
    /// What these headers bring; no database is asked.
    pub(super) fn in_headers(headers: &HeaderMap, app: &App) -> Self {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Self::Identity(Identity::Nobody);
        }
        let Some(token) = bearer_token(headers) else {
            return Self::Identity(Identity::Impostor);
        };
        if is_operator_key(token, app) {
            return Self::Identity(Identity::Known(Caller {
                scope: Scope::Operator,
                name: "operator".to_owned(),
                key: None,
                may: KeyScope::Write,
            }));
        }
        if !keys::is_well_formed(token) {
            return Self::Identity(Identity::Impostor);
        }
        Self::Key(keys::hash(token))
    }
}

/// What was found out about who sends a request. The layer that lets requests in leaves it with them.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// There is no `Authorization` header.
    Nobody,
    /// There is one, and it is no valid key.
    Impostor,
    /// There is a valid key.
    Known(Caller),
    /// It could not be looked up; the text is for the log.
    Unknown(String),
}

impl Identity {
    /// Whose key has this hash.
    pub(super) async fn of(hash: &str, app: &App) -> Self {
        match api_key::find(&app.engine.db, hash).await {
            Ok(Some(key)) => match caller(&key) {
                Ok(caller) => {
                    app.note_key_use(&key);
                    Self::Known(caller)
                }
                Err(error) => Self::Unknown(errors::chain(&error)),
            },
            Ok(None) => Self::Impostor,
            Err(error) => Self::Unknown(errors::chain(&error)),
        }
    }
}

fn is_operator_key(token: &str, app: &App) -> bool {
    let configured = app.operator_key.as_ref();
    configured.is_some_and(|key| {
        let same = token.as_bytes().ct_eq(key.expose_secret().as_bytes());
        bool::from(same)
    })
}

fn caller(key: &ApiKey) -> Result<Caller, DbError> {
    Ok(Caller {
        scope: key.entity_id.map_or(Scope::Operator, Scope::Entity),
        name: key.id.to_string(),
        key: Some(key.id),
        may: key.scope()?,
    })
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        match parts.extensions.get::<Identity>() {
            Some(Identity::Known(caller)) => {
                if caller.may == KeyScope::Read && !SAFE.contains(&parts.method) {
                    return Err(ApiError::ReadOnlyKey);
                }
                Ok(caller.clone())
            }
            Some(Identity::Unknown(cause)) => Err(ApiError::Unavailable(cause.clone())),
            Some(Identity::Nobody | Identity::Impostor) => Err(ApiError::Unauthorized),
            None => Err(ApiError::Internal(
                "a request was let in without being asked who sends it".to_owned(),
            )),
        }
    }
}

/// The token of exactly one `Authorization: Bearer` header.
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_header_is_a_token_and_nothing_else_is() {
        assert_eq!(bearer_token(&headers(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer_token(&headers(&["bearer  abc "])), Some("abc"));
        for wrong in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &["Basic abc"],
            &["abc"],
            &["Bearer abc", "Bearer abc"],
        ] {
            assert_eq!(bearer_token(&headers(wrong)), None, "{wrong:?}");
        }
    }
}
