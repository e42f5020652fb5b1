//! `/openapi.json`: what stands above handlers and types, completed by what holds for every
//! operation, so that no annotation repeats it.
//!
//! An annotation names an operation's good answers, and of its problems those that do not follow
//! from its shape: their codes are the description of that status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{
    admission::PROBES,
    audit::AUDITED,
    codes::CODES,
    error::{PROBLEM_JSON, Problem},
    every_route,
    idempotency::MAX_KEY_CHARS,
};

/// The document in JSON, as it is served, printed and committed.
static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| format!("{:#}\n", finished(json!(every_route().into_openapi()))));

/// Answers that the program gave, by operation: what was sent, and what came back with which status.
const EXAMPLES: &str = include_str!("examples.json");

/// What a reader needs to know before anything else.
const ABOUT: &str = "\
nucleus keeps a person's connections to outside services, holds their credentials, pulls their items \
in, and tells what is new.

- **Keys.** `Authorization: Bearer KEY`. A key is the operator's, who sees everything, or one \
entity's, for which the objects of others do not exist. One of scope `read` changes nothing.
- **Limits.** An entity's key has so many requests a minute, as has an address without a valid key. \
`RateLimit-Policy` and `RateLimit` tell how many, and what is left of them \
(draft-ietf-httpapi-ratelimit-headers). Beyond that requests are 429 with `Retry-After`.
- **Values.** Ids are UUIDs, times are RFC 3339 in UTC with six decimals. What is absent is null.
- **Lists** are pages. `next_cursor` starts the next page and is null on the last one.
- **Paths** work with and without the last slash. An unknown path is 404, a known one with another \
method 405.
- **Bodies** are JSON; an empty one is `{}`. Unknown fields are refused.
- **Errors** are problem details (RFC 9457) with a stable `code`.
- **Repeats.** A POST with an `Idempotency-Key` has one effect and one answer, however often it is \
sent: for 24 hours its repeats are given the first answer, with `Idempotent-Replayed: true`. After 401, \
408, 413, 415, 429 and 5xx a repeat is carried out. A key that comes back with another body, byte for \
byte, is 422.
- **Request ids.** Every answer names its request in the header `X-Request-Id`, errors in their body \
too. A request may bring its own: 1 to 64 letters, digits, `.`, `_` and `-`.";

/// Marks an operation that tells people at a browser on a page what is wrong.
const PAGES: &str = "x-pages";

/// The media type of pages.
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// What is said once for the whole document.
#[derive(OpenApi)]
#[openapi(
    info(title = "nucleus", description = ABOUT, license(name = "Apache-2.0", identifier = "Apache-2.0")),
    servers((url = "/", description = "This server.")),
    security(("key" = [])),
    components(schemas(Problem)),
    tags(
        (name = "Entities", description = "Whose footprints these are. The operator's."),
        (name = "Integrations", description = "Connected accounts."),
        (name = "OAuth", description = "Connecting an account with a person's consent."),
        (name = "Services", description = "What can be connected."),
        (name = "Runs", description = "Syncs, asked for and carried out."),
        (name = "Records", description = "What was ingested."),
        (name = "Events", description = "What syncs changed, for whoever works on it."),
        (name = "Audit", description = "What was done with credentials and by administration."),
        (name = "Health", description = "Whether the program is well."),
        (name = "About", description = "This document."),
    )
)]
pub(super) struct Outline;

/// The OpenAPI document of the API: JSON with sorted keys.
pub fn document() -> &'static str {
    &DOCUMENT
}

/// This document
///
/// OpenAPI 3.1. `nucleus openapi` prints the same.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "About", security(()),
    responses((status = 200, description = "The document.", body = Object)))]
pub(super) async fn read() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// The document with what follows from what the annotations say.
fn finished(mut document: Value) -> Value {
    document["components"]["securitySchemes"] = json!({"key": {
        "type": "http",
        "scheme": "bearer",
        "description": "The operator's key, or an entity's.",
    }});
    let shared = CODES.iter().map(|(_, code, _)| (*code, problem(&[code])));
    document["components"]["responses"] = shared.collect();
    let schemas = document["components"]["schemas"].clone();
    if let Some(paths) = document["paths"].as_object_mut() {
        // The router knows paths without their last slash; this one is known with it.
        if let Some(item) = paths.remove("/integrations") {
            paths.insert("/integrations/".to_owned(), item);
        }
        for (path, item) in paths.iter_mut() {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                if method == "post" {
                    take_idempotency_key(operation);
                }
                let codes = problems(method, path, operation);
                finish(operation, codes, &schemas);
                tell_audit(operation);
                if !PROBES.contains(&path.as_str()) {
                    tell_limits(operation);
                }
            }
        }
    }
    let bodies = parts(&document["paths"], "requestBody", &schemas);
    let answers = parts(&document["paths"], "responses", &schemas);
    for name in answers.difference(&bodies) {
        require_nulls(&mut document["components"]["schemas"][name]);
    }
    exemplify(&mut document);
    document
}

/// Shows what each operation was asked and answered once.
#[expect(
    clippy::expect_used,
    reason = "the file is part of the binary, and a test reads it"
)]
fn exemplify(document: &mut Value) {
    let examples: Value = serde_json::from_str(EXAMPLES).expect("examples.json is JSON");
    let shared = document["components"]["responses"].clone();
    for item in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in item.1.as_object_mut().into_iter().flatten() {
            let name = operation["operationId"].as_str().unwrap_or_default();
            for (part, value) in examples[name].as_object().into_iter().flatten() {
                let example = json!({"recorded": {"value": value}});
                if part == "request" {
                    operation["requestBody"]["content"]["application/json"]["examples"] = example;
                    continue;
                }
                let response = &mut operation["responses"][part];
                let code = response["$ref"].as_str().unwrap_or_default();
                if let Some(code) = code.strip_prefix("#/components/responses/") {
                    *response = shared[code].clone();
                }
                for kind in ["application/json", "text/event-stream", PROBLEM_JSON] {
                    if let Some(media) = response["content"].get_mut(kind) {
                        media["examples"] = example.clone();
                    }
                }
            }
        }
    }
}

/// Says that an operation takes an `Idempotency-Key`, and how its good answers look when they are given
/// again.
fn take_idempotency_key(operation: &mut Value) {
    let parameter = json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "Names this request of this caller, so that it may be repeated.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_KEY_CHARS,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter),
        None => operation["parameters"] = json!([parameter]),
    }
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if status.starts_with('2') {
            response["headers"]["Idempotent-Replayed"] = json!({
                "description": "Where the answer was kept from an earlier request.",
                "schema": {"type": "string", "enum": ["true"]},
            });
        }
    }
}

/// Says as what an operation is written down in the audit log.
fn tell_audit(operation: &mut Value) {
    let name = operation["operationId"].as_str().unwrap_or_default();
    let mut audited = AUDITED.iter().filter(|(audited, _)| *audited == name);
    if let Some((_, actions)) = audited.next() {
        let words: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
        operation["x-audit"] = json!(words);
    }
}

/// Says how the good answers of an operation tell what is left of a limit.
fn tell_limits(operation: &mut Value) {
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if !status.starts_with('2') {
            continue;
        }
        for (name, description) in [
            (
                "RateLimit-Policy",
                "Requests in which time; absent without a limit.",
            ),
            (
                "RateLimit",
                "What is left, and in how many seconds all of it is back.",
            ),
        ] {
            response["headers"][name] =
                json!({"description": description, "schema": {"type": "string"}});
        }
    }
}

/// The codes of the problems that an operation may be answered with: those that follow from its
/// shape, and those that its annotation names.
fn problems(method: &str, path: &str, operation: &Value) -> BTreeSet<&'static str> {
    let mut codes: BTreeSet<&str> = ["headers_too_large", "internal", "unavailable"].into();
    // utoipa writes "without a key" as an empty requirement.
    if operation.get("security") != Some(&json!([{}])) {
        codes.insert("unauthorized");
        if method != "get" {
            codes.insert("read_only_key");
        }
    }
    if !PROBES.contains(&path) {
        codes.insert("rate_limited");
    }
    if path.contains('{') {
        codes.insert("not_found");
    }
    if operation.get("requestBody").is_some() {
        codes.extend(["invalid_json", "timeout", "body_too_large"]);
        codes.extend(["unsupported_media_type", "invalid_fields"]);
    }
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" {
            codes.insert("invalid_fields");
        }
        if parameter["name"] == "cursor" {
            codes.insert("invalid_cursor");
        }
        if parameter["name"] == "Idempotency-Key" {
            codes.extend(["idempotency_in_flight", "invalid_fields"]);
        }
    }
    for response in operation["responses"].as_object().into_iter().flatten() {
        codes.extend(named_codes(response));
    }
    codes
}

/// The codes in the description of a response that has no content of its own.
fn named_codes<'a>(
    (status, response): (&'a String, &'a Value),
) -> impl Iterator<Item = &'static str> + 'a {
    let words = match response.get("content") {
        Some(_) => "",
        None => response["description"].as_str().unwrap_or_default(),
    };
    let named = move |code: &str| words.split(", ").any(|word| word == code);
    CODES
        .iter()
        .filter(move |(of, code, _)| of.to_string() == *status && named(code))
        .map(|(_, code, _)| *code)
}

/// Writes an operation's problems out, and what its body and its key have to be.
fn finish(operation: &mut Value, codes: BTreeSet<&'static str>, schemas: &Value) {
    if operation.get("security") == Some(&json!([{}])) {
        operation["security"] = json!([]);
    }
    if let Some(body) = operation.get_mut("requestBody") {
        let schema = &body["content"]["application/json"]["schema"];
        let name = reference(schema).unwrap_or_default();
        body["required"] = json!(schemas[name].get("required").is_some());
    }
    let mut by_status: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (status, code, _) in CODES.iter().filter(|(_, code, _)| codes.contains(code)) {
        by_status.entry(status.to_string()).or_default().push(code);
    }
    let pages = operation.as_object_mut().and_then(|o| o.remove(PAGES));
    for (status, codes) in by_status {
        let response = &mut operation["responses"][&status];
        if response.get("content").is_some() {
            // An answer of its own kind stands beside the problem.
            response["content"][PROBLEM_JSON] = problem(&codes)["content"][PROBLEM_JSON].take();
        } else if let [code] = codes.as_slice() {
            *response = json!({"$ref": format!("#/components/responses/{code}")});
        } else {
            *response = problem(&codes);
        }
        // Who has no key, or sends what is no form of ours, is no person at a browser.
        if pages.is_some() && !matches!(status.as_str(), "401" | "415") {
            *response = problem(&codes);
            response["content"][HTML] = json!({"schema": {"type": "string"}});
        }
    }
}

/// The answer with a problem of one of these codes.
fn problem(codes: &[&str]) -> Value {
    let about = CODES.iter().filter(|(_, code, _)| codes.contains(code));
    let meanings: Vec<String> = match codes {
        [_] => about.map(|(_, _, meaning)| (*meaning).to_owned()).collect(),
        _ => about
            .map(|(_, code, meaning)| format!("- `{code}`: {meaning}"))
            .collect(),
    };
    let mut response = json!({
        "description": meanings.join("\n"),
        "content": {PROBLEM_JSON: {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"properties": {"code": {"enum": codes}}},
        ]}}},
    });
    let header = match codes.first() {
        Some(&"unauthorized") => Some(("WWW-Authenticate", "The scheme: `Bearer`.")),
        Some(&("rate_limited" | "too_many" | "unavailable")) => {
            Some(("Retry-After", "Seconds to wait."))
        }
        _ => None,
    };
    if let Some((name, description)) = header {
        let schema = json!({"type": "string"});
        response["headers"] = json!({name: {"description": description, "schema": schema}});
    }
    response
}

/// The name of the schema that is meant.
fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"]
        .as_str()?
        .strip_prefix("#/components/schemas/")
}

/// The names of the schemas that requests, or answers, are made of.
fn parts(paths: &Value, part: &str, schemas: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in paths.as_object().into_iter().flatten() {
        for operation in item.1.as_object().into_iter().flatten() {
            gather(&operation.1[part], schemas, &mut names);
        }
    }
    names
}

/// Adds every schema that `value` names, and those that they name.
fn gather(value: &Value, schemas: &Value, names: &mut BTreeSet<String>) {
    if let Some(name) = reference(value)
        && names.insert(name.to_owned())
    {
        gather(&schemas[name], schemas, names);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, schemas, names)),
        Value::Object(members) => members
            .values()
            .for_each(|member| gather(member, schemas, names)),
        _ => {}
    }
}

/// In an answer a field that may be null is always there; one that cannot be null and is not
/// required may be absent.
fn require_nulls(schema: &mut Value) {
    let mut required: BTreeSet<String> = BTreeSet::new();
    for name in schema["required"].as_array().into_iter().flatten() {
        required.extend(name.as_str().map(str::to_owned));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if may_be_null(property) {
            required.insert(name.clone());
        }
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
}

fn may_be_null(schema: &Value) -> bool {
    let kinds = [&schema["type"], &schema["oneOf"]];
    let mut kinds = kinds.into_iter().filter_map(Value::as_array).flatten();
    kinds.any(|kind| *kind == "null" || kind["type"] == "null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{bodies, entities};

    fn described() -> Value {
        json!(every_route().into_openapi())
    }

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                found.push((format!("{method} {path}"), operation.clone()));
            }
        }
        found
    }

    #[test]
    fn every_problem_that_an_annotation_names_is_one() {
        for (name, operation) in operations(&described()) {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.as_str() < "400" || response.get("content").is_some() {
                    continue;
                }
                let words = response["description"].as_str().unwrap();
                let codes = named_codes((status, response)).count();
                assert_eq!(codes, words.split(", ").count(), "{name} {status}: {words}");
            }
        }
    }

    #[test]
    fn every_operation_says_what_it_is_for_strangers() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let tags = document["tags"].as_array().unwrap();
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            assert!(ids.insert(operation["operationId"].to_string()), "{name}");
            assert!(operation["summary"].is_string(), "{name}");
            let tag = &operation["tags"][0];
            assert!(tags.iter().any(|known| known["name"] == *tag), "{name}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {parameter}");
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let is_described = property.to_string().contains("\"description\"");
                assert!(is_described, "{name}.{field}");
            }
        }
        // Links between the pages of the code lead nowhere here.
        assert!(!self::document().contains("[`"));
    }

    #[test]
    fn the_limits_of_texts_are_those_that_are_kept() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let limit = |schema: &str, field: &str, limit: &str| {
            document["components"]["schemas"][schema]["properties"][field][limit].as_u64()
        };
        let chars = |schema, field| limit(schema, field, "maxLength").unwrap() as usize;
        assert_eq!(chars("NewEntity", "name"), entities::MAX_NAME_CHARS);
        for schema in ["NewIntegration", "ChangedIntegration"] {
            assert_eq!(chars(schema, "display_name"), bodies::MAX_NAME_CHARS);
            assert_eq!(chars(schema, "description"), bodies::MAX_DESCRIPTION_CHARS);
        }
        let service_type = chars("NewIntegration", "service_type");
        assert_eq!(service_type, bodies::MAX_SERVICE_TYPE_CHARS);
        let seconds = limit("NewIntegration", "token_expires_in", "maximum");
        assert_eq!(seconds, Some(bodies::MAX_EXPIRES_IN as u64));
        let scopes = limit("NewIntegration", "scopes", "maxItems");
        assert_eq!(scopes, Some(bodies::MAX_SCOPES as u64));
    }
}
