//! What handlers take out of requests beside who calls: ids, bodies and pages.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};
use uuid::Uuid;

use super::{
    deadlines::Deadlines,
    error::{ApiError, FieldError},
};
use crate::{app::App, db::Slicing, domain::ids::Id};

/// So much of a body always has room, so that a few long ones that come slowly keep nobody else from
/// being heard.
const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Items a list gives unless it is told otherwise.
const DEFAULT_LIMIT: u64 = 50;
/// Items a list gives at most.
const MAX_LIMIT: u64 = 1000;

/// The id in the path. A text that is no id names nothing.
#[derive(Debug, Clone, Copy)]
pub struct PathId<Kind>(pub Id<Kind>);

impl<Kind: Send, S: Send + Sync> FromRequestParts<S> for PathId<Kind> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::NotFound)?;
        text.parse().map(Self).map_err(|_| ApiError::NotFound)
    }
}

/// A JSON body. An absent one is `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let (parts, body) = request.into_parts();
        let body = read_body(app, &parts, body, app.body_limit_bytes).await?;
        let body = body.bytes.as_slice();
        if body.iter().all(u8::is_ascii_whitespace) {
            return parse(serde_json::json!({})).map(Self);
        }
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        let value: serde_json::Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::InvalidJson(error.to_string()))?;
        // serde would take the items of an array for fields, in their order.
        if !value.is_object() {
            return Err(ApiError::field("body", "must be an object"));
        }
        parse(value).map(Self)
    }
}

/// A body that has arrived, with the room it takes. Whoever reads it before the handler leaves it
/// with the request.
pub struct Arrived {
    /// All of it.
    pub bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body whole: within the deadline, up to `limit` bytes, and as long as there is room for
/// it beside the others that are being read.
pub async fn read_body(
    app: &App,
    parts: &Parts,
    body: axum::body::Body,
    limit: usize,
) -> Result<Arc<Arrived>, ApiError> {
    if let Some(arrived) = parts.extensions.get::<Arc<Arrived>>() {
        return Ok(Arc::clone(arrived));
    }
    let deadlines = parts.extensions.get::<Deadlines>().copied();
    let deadline = deadlines.unwrap_or_default().body;
    let declared = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::TooLarge(limit));
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    let read = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::InvalidJson("it broke off".to_owned()))?;
            if bytes.len() + chunk.len() > limit {
                return Err(ApiError::TooLarge(limit));
            }
            bytes.extend_from_slice(&chunk);
            let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let lacking = bytes.len().saturating_sub(SMALL_BODY_BYTES).div_ceil(1024) - taken;
            let more = u32::try_from(lacking).unwrap_or(u32::MAX);
            let more = Arc::clone(&app.bodies)
                .try_acquire_many_owned(more)
                .map_err(|_| ApiError::Unavailable("no room for a body".to_owned()))?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        Ok(())
    };
    timeout(deadline, read)
        .await
        .map_err(|_| ApiError::Timeout)??;
    Ok(Arc::new(Arrived { bytes, _room: room }))
}

/// A body that says nothing: `{}`, or none at all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "body".to_owned(),
            path => path,
        };
        ApiError::field(field, without_value(&error.inner().to_string()))
    })
}

/// serde's message without the value it met, which may be a credential: what is right is enough.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((met, expected))
            if met.starts_with("invalid ") || met.starts_with("unknown variant ") =>
        {
            format!("must be {expected}")
        }
        _ => message.to_owned(),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The query of a request. Each parameter is taken once; what is left over is a mistake.
#[derive(Debug)]
pub struct Query {
    values: HashMap<String, String>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut query = Self {
            values: HashMap::new(),
            errors: Vec::new(),
        };
        let text = parts.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let name = name.into_owned();
            if query
                .values
                .insert(name.clone(), value.into_owned())
                .is_some()
            {
                query.errors.push(FieldError::new(name, "is given twice"));
            }
        }
        Ok(query)
    }
}

impl Query {
    /// Takes a parameter.
    pub fn take<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.values.remove(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(FieldError::new(name, error.to_string()));
                None
            }
        }
    }

    /// Takes a parameter that has one value beside being absent.
    pub fn flag(&mut self, name: &str, set: &str) -> bool {
        match self.values.remove(name) {
            None => false,
            Some(value) if value == set => true,
            Some(_) => {
                self.errors
                    .push(FieldError::new(name, format!("must be {set:?} or absent")));
                false
            }
        }
    }

    /// Takes a parameter that is one of these words; the first is meant where it is absent.
    pub fn one_of(&mut self, name: &str, words: &[&'static str]) -> &'static str {
        let first = words.first().copied().unwrap_or_default();
        let Some(value) = self.values.remove(name) else {
            return first;
        };
        match words.iter().find(|word| **word == value) {
            Some(word) => word,
            None => {
                self.errors.push(FieldError::new(
                    name,
                    format!("must be {}", words.join(" or ")),
                ));
                first
            }
        }
    }

    /// Takes `limit`.
    pub fn limit(&mut self) -> u64 {
        let limit = self.take::<u64>("limit").unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            self.errors.push(FieldError::new(
                "limit",
                format!("must be 1 to {MAX_LIMIT}"),
            ));
        }
        limit
    }

    /// Takes the text of `cursor`.
    pub fn cursor(&mut self) -> Option<String> {
        self.values.remove("cursor")
    }

    /// Takes `limit` and `cursor` of a list that is read by id.
    pub fn slicing(&mut self) -> Result<Slicing, ApiError> {
        let after = match self.cursor() {
            Some(text) => Some(decode_id(&text).ok_or(ApiError::InvalidCursor)?),
            None => None,
        };
        Ok(Slicing {
            after,
            limit: self.limit(),
        })
    }

    /// Nothing may be left, and nothing may have been wrong.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in self.values.into_keys() {
            self.errors
                .push(FieldError::new(name, "is not a parameter here"));
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.errors))
        }
    }
}

/// `limit` and `cursor`, as the document describes them.
#[derive(Debug)]
pub struct Paging;

impl IntoParams for Paging {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_LIMIT))
            .default(Some(DEFAULT_LIMIT.into()));
        let cursor = ObjectBuilder::new().schema_type(Type::String);
        vec![
            parameter("limit", "How many items a page holds at most.", limit),
            parameter(
                "cursor",
                "Where the page starts: a cursor of the page before. Opaque.",
                cursor,
            ),
        ]
    }
}

/// `deleted`, as the document describes it.
#[derive(Debug)]
pub struct Deleted;

impl IntoParams for Deleted {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["include"]));
        vec![parameter(
            "deleted",
            "Shows erased records too: their ids and hashes, without content.",
            schema,
        )]
    }
}

/// `data`, as the document describes it.
#[derive(Debug)]
pub struct DataParameter;

impl IntoParams for DataParameter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["keep", "delete"]))
            .default(Some("keep".into()));
        vec![parameter(
            "data",
            "What becomes of the records: kept, and adopted when the same entity connects the same \
             account again, or deleted.",
            schema,
        )]
    }
}

fn parameter(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// A cursor of a list that is read by id.
pub fn encode_id(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

fn decode_id(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_what_is_right_and_not_what_was_sent() {
        let told = |value| parse::<HashMap<String, u8>>(value).unwrap_err();
        for (value, field, message) in [
            (
                serde_json::json!("1//token, expected x"),
                "body",
                "must be a map",
            ),
            (serde_json::json!({"a": "1//token"}), "a", "must be u8"),
        ] {
            let ApiError::Invalid(errors) = told(value) else {
                panic!("another error")
            };
            assert_eq!(errors, [FieldError::new(field, message)]);
        }
        assert_eq!(
            without_value("unknown variant `ya29.x`, expected `active` or `inactive`"),
            "must be `active` or `inactive`"
        );
        assert_eq!(
            without_value("missing field `name`"),
            "missing field `name`"
        );
    }

    #[test]
    fn cursors_read_back_and_others_do_not() {
        let id = Uuid::now_v7();
        assert_eq!(decode_id(&encode_id(id)), Some(id));
        for text in ["", "x", "!!!"] {
            assert_eq!(decode_id(text), None, "{text:?}");
        }
    }
}
