//! The examples in the OpenAPI document are answers that the program gave: each operation that
//! answers in JSON is asked once as it should be and once as it should not, and what came back is
//! compared with `src/api/examples.json`. What differs each time stands there as a fixed value.
//!
//! `just examples` writes the file anew.

use std::collections::BTreeMap;

use chrono::DateTime;
use nucleus::demo::{Consent, generate};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::{
    contract::{self, Got},
    harness::{OPERATOR_KEY, Setting, TestApp},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/examples.json");
/// Set by whoever wants the file written.
const WRITE: &str = "NUCLEUS_WRITE_EXAMPLES";
/// An id that nothing has.
const NOBODY: &str = "01890000-0000-7000-8000-ffffffffffff";

/// Where browsers reach the program.
const HERE: &str = "https://nucleus.example.com";

/// By operation: `request`, and answers by their status.
type Examples = BTreeMap<String, BTreeMap<String, Value>>;

/// The program, and what it has answered so far.
struct Recording {
    app: TestApp,
    examples: Examples,
}

impl Recording {
    /// Asks, and keeps the answer under the operation's name.
    async fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.ask_as(Some(OPERATOR_KEY), method, path, body).await
    }

    async fn ask_as(
        &mut self,
        key: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Value {
        let (status, answer) = self.app.send_as(key, method, path, body.clone()).await;
        let operation = contract::operation(method, path).unwrap();
        let id = operation.described["operationId"].as_str().unwrap();
        let example = self.examples.entry(id.to_owned()).or_default();
        // What is asked for rightly is worth showing.
        if let Some(body) = body
            && status < 400
        {
            example.insert("request".to_owned(), body);
        }
        let before = example.insert(status.to_string(), answer.clone());
        assert!(before.is_none(), "{id} was answered with {status} twice");
        answer
    }

    /// Asks for each operation's success, and to cancel what is over.
    async fn ask_rightly(&mut self) {
        for path in ["/livez", "/readyz"] {
            self.ask("GET", path, None).await;
        }
        self.ask("GET", "/services", None).await;
        let body = json!({"name": "Somebody"});
        let entity = id_of(&self.ask("POST", "/entities", Some(body)).await);
        self.ask("GET", "/entities", None).await;
        self.ask("GET", "/audit", None).await;

        let refresh_token = self.app.google.refresh_token().unwrap();
        let body = json!({
            "entity_id": entity,
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": refresh_token},
        });
        let made = self.ask("POST", "/integrations/", Some(body)).await;
        let integration = format!("/integrations/{}", id_of(&made));
        let body = json!({"display_name": "Private", "sync_settings": {"interval_minutes": 30}});
        self.ask("PATCH", &integration, Some(body)).await;
        let test = format!("{integration}/test");
        self.ask("POST", &test, Some(json!({}))).await;
        let sync = format!("{integration}/sync");
        let requested = self.ask("POST", &sync, Some(json!({}))).await;
        self.app.drain().await;

        self.ask("GET", &integration, None).await;
        self.ask("GET", "/integrations/", None).await;
        self.ask("GET", "/health", None).await;
        let run = format!("/runs/{}", requested["run_id"].as_str().unwrap());
        self.ask("GET", &run, None).await;
        self.ask("GET", &format!("{integration}/runs"), None).await;
        self.follow(&run).await;
        self.ask("GET", "/events", None).await;
        let records = self
            .ask("GET", &format!("{integration}/records"), None)
            .await;
        let record = format!("/records/{}", id_of(&records["items"][0]));
        self.ask("GET", &record, None).await;
        self.ask("POST", &format!("{run}/cancel"), None).await;
        let next = self.app.request_sync(made["id"].as_str().unwrap()).await;
        let cancel = format!("/runs/{next}/cancel");
        self.ask("POST", &cancel, Some(json!({}))).await;
        self.ask("DELETE", &integration, None).await;
        self.connect_by_oauth(&entity).await;
        self.ask("DELETE", &format!("/entities/{entity}"), None)
            .await;
    }

    async fn connect_by_oauth(&mut self, entity: &str) {
        let body = json!({"entity_id": entity});
        let start = "/integrations/gmail/oauth/start";
        let begun = self.ask("POST", start, Some(body)).await;
        let url = begun["authorization_url"].as_str().unwrap();
        let answer = self.app.google.authorize(url, &Consent::default()).await;
        let parts: BTreeMap<String, String> = answer.unwrap().query_pairs().into_owned().collect();
        let body = json!({"state": parts["state"], "code": parts["code"]});
        let callback = "/integrations/gmail/oauth/callback";
        self.ask("POST", callback, Some(body)).await;
        let example = self.examples.get_mut("finish_oauth").unwrap();
        example.get_mut("request").unwrap()["code"] = json!("4/demo-code");
    }

    /// Keeps the last event of a run's stream, as OpenAPI readers see an event.
    async fn follow(&mut self, run: &str) {
        let target = format!("{run}/stream");
        let request = reqwest::Client::new().get(format!("{}{target}", self.app.url));
        let response = request.bearer_auth(OPERATOR_KEY).send().await.unwrap();
        let (status, body) = contract::read("GET", &target, response).await.unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        let field = |name: &str| {
            let mut lines = text.lines().rev();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap().to_owned()
        };
        let event = json!({"event": field("event"), "data": field("data")});
        let example = self.examples.entry("stream_run".to_owned()).or_default();
        example.insert(status.to_string(), event);
    }

    /// Asks the other operations that need a key for something that they refuse.
    async fn ask_wrongly(&mut self) {
        for (method, path) in [
            ("DELETE", "/entities/{id}"),
            ("DELETE", "/integrations/{id}"),
            ("GET", "/integrations/{id}"),
            ("POST", "/integrations/{id}/test"),
            ("GET", "/integrations/{id}/records"),
            ("GET", "/integrations/{id}/runs"),
            ("GET", "/records/{id}"),
            ("GET", "/runs/{id}"),
            ("GET", "/runs/{id}/stream"),
        ] {
            let path = path.replace("{id}", NOBODY);
            self.ask(method, &path, None).await;
        }
        for path in ["/entities", "/integrations/", "/events", "/audit"] {
            self.ask("GET", &format!("{path}?limit=0"), None).await;
        }
        // What was removed was revoked.
        self.app.google.set_refresh_token("1//demo-refresh-token");
        let integration = format!("/integrations/{}", self.app.connect().await);
        let body = json!({"status": "revoked", "sync_settings": {"interval_minutes": 0}});
        self.ask("PATCH", &integration, Some(body)).await;
        let body = json!({"status": "inactive"});
        self.app.send("PATCH", &integration, Some(body)).await;
        let sync = format!("{integration}/sync");
        self.ask("POST", &sync, None).await;
        let body = json!({"name": ""});
        self.ask("POST", "/entities", Some(body)).await;
        let body = json!({
            "entity_id": self.app.entity().await,
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"access_token": "ya29.demo"},
        });
        self.ask("POST", "/integrations/", Some(body)).await;
        let path = "/integrations/gmail/oauth/start";
        self.ask("POST", path, Some(json!({}))).await;
        let path = "/integrations/gmail/oauth/callback";
        let body = json!({"state": "unknown", "code": "unknown"});
        self.ask("POST", path, Some(body)).await;
        self.ask_as(None, "GET", "/services", None).await;
        self.ask_as(None, "GET", "/metrics", None).await;
    }

    /// The examples as the file has them.
    fn settled(&self) -> Examples {
        let mut fixed = Fixed {
            app: &self.app,
            ids: BTreeMap::new(),
        };
        let mut examples = self.examples.clone();
        for value in examples.values_mut().flat_map(BTreeMap::values_mut) {
            fixed.settle("", value);
        }
        examples
    }
}

/// What differs each time, and what stands for it.
struct Fixed<'a> {
    app: &'a TestApp,
    /// The number of each id, in the order in which they are met.
    ids: BTreeMap<String, usize>,
}

impl Fixed<'_> {
    fn settle(&mut self, name: &str, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.settle(name, member);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.settle(name, item)),
            Value::String(text) => *text = self.text(name, text),
            _ => {}
        }
    }

    fn text(&mut self, name: &str, text: &str) -> String {
        if name == "data" {
            // An event of a stream: JSON in a line.
            let mut inner = serde_json::from_str(text).unwrap();
            self.settle("", &mut inner);
            return inner.to_string();
        }
        if name == "authorization_url" {
            return self.authorization_url(text);
        }
        if let Some(fixed) = by_name(name) {
            return fixed.to_owned();
        }
        if Uuid::try_parse(text).is_ok() && text != NOBODY {
            let next = self.ids.len() + 1;
            let number = self.ids.entry(text.to_owned()).or_insert(next);
            return format!("01890000-0000-7000-8000-{number:012x}");
        }
        // The date of a message is what it is.
        if name != "date" && DateTime::parse_from_rfc3339(text).is_ok() {
            let time = match name {
                "created_at" => "12:00:00",
                "requested_at" | "time" => "12:00:20",
                "started_at" => "12:00:21",
                "finished_at" => "12:00:24",
                "next_sync_at" | "expires_at" | "token_expires_at" => "13:00:00",
                _ => "12:00:30",
            };
            return format!("2026-08-01T{time}.000000Z");
        }
        text.replace(&self.app.url, HERE)
    }

    fn authorization_url(&self, text: &str) -> String {
        let url: Url = text.parse().unwrap();
        let google = "https://accounts.google.com/o/oauth2/v2/auth";
        let mut fixed: Url = google.parse().unwrap();
        for (name, value) in url.query_pairs() {
            let here = value.replace(&self.app.url, HERE);
            let value = by_name(&name).unwrap_or(&here);
            fixed.query_pairs_mut().append_pair(&name, value);
        }
        fixed.into()
    }
}

/// What is random under this name.
fn by_name(name: &str) -> Option<&'static str> {
    match name {
        "state" => Some("bV0yZQ7rX3nK9tLw"),
        "hash" => Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        "code_challenge" => Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
async fn the_examples_are_what_the_program_answers() {
    let app = Setting::new(generate::mailbox(1, 7)).start().await;
    let mut recording = Recording {
        app,
        examples: Examples::new(),
    };
    recording.ask_rightly().await;
    recording.ask_wrongly().await;
    let examples = recording.settled();
    let text = format!("{:#}\n", json!(examples));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    for (operation, found) in &examples {
        assert_eq!(
            json!(found),
            written[operation],
            "src/api/examples.json is not what {operation} answers; `just examples` writes it anew"
        );
    }
    assert_eq!(written.as_object().unwrap().len(), examples.len());
}

#[test]
fn each_operation_has_an_example_of_a_success_and_of_a_problem() {
    for operation in contract::operations() {
        let name = operation.described["operationId"].as_str().unwrap();
        let mut successes = 0;
        let mut problems = 0;
        let mut has_json = false;
        for (status, response) in operation.described["responses"].as_object().unwrap() {
            for (kind, media) in response["content"].as_object().into_iter().flatten() {
                let is_success = status.as_str() < "400";
                has_json |=
                    is_success && matches!(kind.as_str(), "application/json" | "text/event-stream");
                for (_, example) in media["examples"].as_object().into_iter().flatten() {
                    *(if is_success {
                        &mut successes
                    } else {
                        &mut problems
                    }) += 1;
                    let body = example["value"].to_string();
                    let got = Got {
                        status: status.parse().unwrap(),
                        content_type: Some(kind),
                        body: body.as_bytes(),
                    };
                    contract::assert_described(&operation.method, &operation.at(NOBODY), got);
                }
            }
        }
        // The document is its own example.
        let expected = usize::from(has_json && name != "openapi");
        assert_eq!(successes, expected, "{name}");
        // Without a key nothing can be asked for wrongly, but the pages that people see.
        let expected = usize::from(operation.is_for_callers());
        assert_eq!(problems, expected, "{name}");
    }
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}
