//! The OpenAPI document held against the program: every answer that any test gets must be one that
//! the document names, with a body that its schema takes.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::Setting;

const COMMITTED: &str = include_str!("../../openapi.json");

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract {
    document: serde_json::from_str(nucleus::api::document()).unwrap(),
    validators: Mutex::default(),
});

/// The document, as it comes out of the program.
pub fn document() -> &'static Value {
    &CONTRACT.document
}

/// An operation that the document names.
#[derive(Debug, Clone)]
pub struct Operation {
    /// In capitals.
    pub method: String,
    /// With its parameters in braces.
    pub path: String,
    /// What the document says of it.
    pub described: &'static Value,
}

impl Operation {
    /// Whether it needs a key, if its body is not a form of ours.
    pub fn is_for_callers(&self) -> bool {
        self.described.get("security") != Some(&json!([]))
    }

    /// Whether browsers are sent here by a service.
    pub fn is_callback(&self) -> bool {
        self.method == "GET" && self.path.ends_with("/oauth/callback")
    }

    /// The path with this id.
    pub fn at(&self, id: &str) -> String {
        let path = self.path.replace("{id}", id).replace("{service}", "gmail");
        path.replace("{file}", "start.js")
    }
}

/// Every operation of the document.
pub fn operations() -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                described,
            });
        }
    }
    found
}

/// The operation that a request asks for.
pub fn operation(method: &str, target: &str) -> Option<Operation> {
    let path = CONTRACT.path(target)?;
    let mut operations = operations().into_iter();
    operations.find(|operation| operation.method == method && operation.path == path)
}

/// What a client got, as far as the document speaks of it.
#[derive(Debug, Clone, Copy)]
pub struct Got<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// Reads an answer to the end, and fails unless the document says that the request may be answered
/// so. An error where the server goes away meanwhile.
pub async fn read(
    method: &str,
    target: &str,
    response: reqwest::Response,
) -> reqwest::Result<(u16, Bytes)> {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").cloned();
    let body = response.bytes().await?;
    let got = Got {
        status,
        content_type: content_type.as_ref().map(|value| value.to_str().unwrap()),
        body: &body,
    };
    assert_described(method, target, got);
    Ok((status, body))
}

/// Fails unless the document says that this request may be answered so.
pub fn assert_described(method: &str, target: &str, got: Got<'_>) {
    if let Err(error) = CONTRACT.check(method, target, got) {
        let body = String::from_utf8_lossy(got.body);
        let body: String = body.chars().take(2_000).collect();
        panic!(
            "{method} {target} was answered with {} {}, which the OpenAPI document does not say: \
             {error}\nthe body: {body}",
            got.status,
            got.content_type.unwrap_or("without a content type"),
        );
    }
}

struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    fn check(&self, method: &str, target: &str, got: Got<'_>) -> Result<(), String> {
        let Some(path) = self.path(target) else {
            return self.check_nowhere("not_found", 404, got);
        };
        // A HEAD is answered like a GET, without the body, or refused where a GET uses something up.
        let is_head = method == "HEAD";
        let name = if is_head {
            "get".to_owned()
        } else {
            method.to_lowercase()
        };
        let Some(operation) = self.document["paths"][path].get(&name) else {
            return self.check_nowhere("method_not_allowed", 405, got);
        };
        let responses = operation["responses"].as_object().unwrap();
        if is_head && got.status == 405 {
            return Ok(());
        }
        let Some(response) = responses.get(&got.status.to_string()) else {
            let named: Vec<&str> = responses.keys().map(String::as_str).collect();
            return Err(format!("{path} names {}", named.join(", ")));
        };
        if is_head {
            return Ok(());
        }
        self.check_response(response, got)
    }

    /// Of a request that no route takes: who asks too much is refused before it is seen where to.
    fn check_nowhere(&self, code: &str, status: u16, got: Got<'_>) -> Result<(), String> {
        match got.status {
            429 => self.check_problem("rate_limited", 429, got),
            _ => self.check_problem(code, status, got),
        }
    }

    fn check_problem(&self, code: &str, status: u16, got: Got<'_>) -> Result<(), String> {
        if got.status != status {
            return Err(format!("such a request is {status}"));
        }
        self.check_response(&self.document["components"]["responses"][code], got)
    }

    fn check_response(&self, response: &Value, got: Got<'_>) -> Result<(), String> {
        let response = match response["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => response,
        };
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            let is_empty = got.body.is_empty() && got.content_type.is_none();
            return is_empty.then_some(()).ok_or("no body is named".to_owned());
        };
        let kind = got.content_type.unwrap_or_default();
        let Some(media) = content.get(kind) else {
            let named: Vec<&str> = content.keys().map(String::as_str).collect();
            return Err(format!("the content is {}", named.join(" or ")));
        };
        if !kind.ends_with("json") {
            return Ok(());
        }
        let body: Value =
            serde_json::from_slice(got.body).map_err(|error| format!("no JSON: {error}"))?;
        let errors: Vec<String> = self
            .validator(&media["schema"])
            .iter_errors(&body)
            .map(|error| format!("at {:?} {error}", error.instance_path.to_string()))
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("; "))
        }
    }

    /// The path of the document that a target has; where several fit, the one with most words of
    /// its own.
    fn path(&self, target: &str) -> Option<&str> {
        let target = target.split('?').next().unwrap().trim_end_matches('/');
        let words: Vec<&str> = target.split('/').collect();
        let paths = self.document["paths"].as_object().unwrap().keys();
        let fitting = paths.filter(|path| {
            let path: Vec<&str> = path.trim_end_matches('/').split('/').collect();
            path.len() == words.len()
                && std::iter::zip(&path, &words).all(|(known, word)| {
                    known == word || known.starts_with('{') && !word.is_empty()
                })
        });
        fitting
            .min_by_key(|path| path.matches('{').count())
            .map(String::as_str)
    }

    /// The compiled schema. Clients are to take answers with fields that they do not know; a test is
    /// not to, or the document would fall behind.
    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = json!({"schemas": self.document["components"]["schemas"]});
            close(&mut whole);
            let compiled = jsonschema::draft202012::options()
                .should_validate_formats(true)
                .build(&whole);
            Arc::new(compiled.unwrap_or_else(|error| panic!("{schema}: {error}")))
        });
        Arc::clone(validator)
    }
}

/// Lets objects have no properties but those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_open = members.get("type") == Some(&json!("object"))
                && members.contains_key("properties")
                && !members.contains_key("additionalProperties");
            if is_open {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn the_committed_document_is_the_programs() {
    assert!(
        COMMITTED == nucleus::api::document(),
        "openapi.json is not what the code says; `just openapi` writes it anew \
         (cargo run -- openapi > openapi.json)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_as_it_is_committed() {
    let app = Setting::new(nucleus::demo::Mailbox::new("owner@example.com", 1))
        .start()
        .await;
    let served: Value = app.get("/openapi.json").await;
    assert_eq!(served, serde_json::from_str::<Value>(COMMITTED).unwrap());
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1."));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_named_parameter_is_taken_and_no_other() {
    let app = Setting::new(nucleus::demo::Mailbox::new("owner@example.com", 1))
        .start()
        .await;
    let integration = app.connect().await;
    let mut names: Vec<&str> = Vec::new();
    for operation in operations() {
        let parameters = operation.described["parameters"].as_array();
        let queries = parameters
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "query");
        names.extend(queries.map(|p| p["name"].as_str().unwrap()));
    }
    assert!(names.len() >= 10, "{names:?}");
    for operation in operations()
        .iter()
        .filter(|o| o.method == "GET" && o.is_for_callers())
    {
        let path = operation.at(&integration);
        let parameters = operation.described["parameters"].as_array();
        let is_named = |name: &str| {
            let mut named = parameters.into_iter().flatten();
            named.any(|p| p["in"] == "query" && p["name"] == name)
        };
        for name in &names {
            let (_, body) = app.send("GET", &format!("{path}?{name}=%00"), None).await;
            let refused = body.to_string().contains("is not a parameter here");
            let takes_none = !operation.described["responses"]["422"].is_object();
            assert_eq!(
                refused,
                !is_named(name) && !takes_none,
                "{path}?{name}: {body}"
            );
        }
    }
}

mod on_made_up_answers {
    use super::*;

    fn check(method: &str, target: &str, status: u16, body: Value) -> Result<(), String> {
        let kind = match status {
            200..300 => "application/json",
            _ => "application/problem+json",
        };
        CONTRACT.check(
            method,
            target,
            Got {
                status,
                content_type: Some(kind),
                body: body.to_string().as_bytes(),
            },
        )
    }

    fn problem(status: u16, code: &str) -> Value {
        json!({
            "type": "about:blank",
            "title": "x",
            "status": status,
            "code": code,
            "detail": "x",
            "request_id": "x",
        })
    }

    fn entity() -> Value {
        json!({
            "id": "01890000-0000-7000-8000-000000000000",
            "entity_id": "01890000-0000-7000-8000-000000000000",
            "name": "Somebody",
            "created_at": "2026-08-01T12:00:00.000000Z",
        })
    }

    #[test]
    fn what_the_document_says_passes() {
        let list = json!({"items": [entity()], "next_cursor": null});
        for target in [
            "/entities",
            "/entities/",
            "/entities?limit=1",
            "/entities/?limit=1",
        ] {
            assert_eq!(check("GET", target, 200, list.clone()), Ok(()));
        }
        assert_eq!(check("GET", "/livez", 200, json!({"status": "ok"})), Ok(()));
        assert_eq!(
            check("GET", "/nothing", 404, problem(404, "not_found")),
            Ok(())
        );
        let problem = problem(405, "method_not_allowed");
        assert_eq!(check("PUT", "/integrations/x", 405, problem), Ok(()));
    }

    #[test]
    fn what_it_does_not_say_does_not_pass() {
        let with = |field: &str, value: Value| {
            let mut entity = entity();
            entity[field] = value;
            json!({"items": [entity], "next_cursor": null})
        };
        let mut without = entity();
        without.as_object_mut().unwrap().remove("name");
        for body in [
            json!([]),
            json!({"items": []}),
            json!({"items": [without], "next_cursor": null}),
            with("id", json!("1")),
            with("created_at", json!("yesterday")),
            with("name", json!(null)),
            with("secret_path", json!("x")),
        ] {
            assert!(
                check("GET", "/entities", 200, body.clone()).is_err(),
                "{body}"
            );
        }
        for (method, target, status, code) in [
            ("GET", "/entities", 409, "conflict"),
            ("GET", "/entities", 404, "not_found"),
            ("GET", "/entities", 403, "not_found"),
            ("GET", "/nothing", 405, "method_not_allowed"),
            ("PUT", "/entities", 404, "not_found"),
            ("GET", "/livez", 401, "unauthorized"),
        ] {
            let answer = check(method, target, status, problem(status, code));
            assert!(answer.is_err(), "{method} {target} {status} {code}");
        }
        let got = Got {
            status: 200,
            content_type: Some("text/plain"),
            body: br#"{"status": "ok"}"#,
        };
        assert!(CONTRACT.check("GET", "/livez", got).is_err());
    }
}
