//! Requests that schemathesis derives from the OpenAPI document, with each kind of key, against the
//! built binary with a worker and a synced mailbox.
//!
//! `scripts/test` installs it. `NUCLEUS_SCHEMATHESIS_EXAMPLES` says how many requests each operation
//! is tried with in each phase, `NUCLEUS_SEED` which; the seed is printed.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use nucleus::demo::generate;
use serde_json::Value;

use crate::{
    child::{self, Api, Child, Server, World},
    contract::{self, Operation},
};

/// The folder of schemathesis and of openapi-spec-validator.
const TOOLS: &str = "NUCLEUS_TEST_PYTHON_TOOLS";
/// Requests of each operation and phase.
const EXAMPLES: &str = "NUCLEUS_SCHEMATHESIS_EXAMPLES";
/// So few that each commit can wait for them.
const DEFAULT_EXAMPLES: u64 = 20;
/// A whole run, with as many examples as anybody asks for.
const HOURS: Duration = Duration::from_secs(3 * 60 * 60);
/// Of an answer: no 5xx, and nothing that the document does not say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,errors_are_problems";

/// How many requests were answered, by method, route and status.
type Answers = BTreeMap<(String, String, u16), u64>;

/// The committed document, which is the program's.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Operator,
    Entity,
    Nobody,
}

impl By {
    /// So many requests come of each example at least, up to 400 of them; with 400 the three are more than
    /// 20,000. What is refused whatever it holds is tried the most.
    fn requests_per_example(self) -> u64 {
        match self {
            Self::Operator => 12,
            Self::Entity => 11,
            Self::Nobody => 27,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_requests_are_answered_as_the_document_says() {
    let answers = run(By::Operator).await;
    // Whatever the API can do was done.
    for operation in contract::operations() {
        // Nobody consented, so there is no code to come back with; a run is over too soon.
        let needs_luck = ["/oauth/callback", "/cancel"];
        if needs_luck.iter().any(|end| operation.path.ends_with(end)) {
            continue;
        }
        let mut statuses = of(&operation, &answers);
        let name = format!("{} {}", operation.method, operation.path);
        assert!(statuses.any(|status| status < 400), "{name}: {answers:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entitys_requests_are_answered_as_the_document_says() {
    let answers = run(By::Entity).await;
    let count = |wanted: u16| -> u64 {
        let fitting = answers
            .iter()
            .filter(|((_, _, status), _)| *status == wanted);
        fitting.map(|(_, count)| count).sum()
    };
    assert!(count(200) > 0 && count(403) > 0, "{answers:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_requests_are_answered_as_the_document_says() {
    let answers = run(By::Nobody).await;
    for operation in contract::operations() {
        // Whoever comes from a page of ours has a cookie instead of a key.
        if operation.is_for_callers() && !operation.path.ends_with("/oauth/callback") {
            for status in of(&operation, &answers) {
                assert_eq!(status, 401, "{} {}", operation.method, operation.path);
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_an_openapi_document() {
    let mut command = tool("openapi-spec-validator");
    command.args(["--schema", "3.1", "--validation-errors", "all", DOCUMENT]);
    let mut child = Child::spawn(command);
    let status = child.exit(child::PATIENCE).await;
    let said = child.finished(status).ok();
    assert!(said.contains(": OK"), "{said}");
}

/// The statuses that an operation was answered with.
fn of<'a>(operation: &'a Operation, answers: &'a Answers) -> impl Iterator<Item = u16> + 'a {
    let path = operation.path.trim_end_matches('/');
    let answers = answers.keys();
    let fitting = answers.filter(move |(method, route, _)| {
        *method == operation.method && route.trim_end_matches('/') == path
    });
    fitting.map(|(_, _, status)| *status)
}

/// Runs schemathesis to its end; gives what the program answered meanwhile.
async fn run(by: By) -> Answers {
    let world = World::new(generate::mailbox(60, 7)).await;
    let server = world.listen("up").await;
    let ids = Ids::seed(&world, &server.api).await;
    let key = match by {
        By::Operator => Some(server.api.key.clone()),
        By::Entity => Some(ids.key.clone()),
        By::Nobody => None,
    };
    let mut before = answers(&server.api).await;
    // That question is counted only after its answer.
    let asked = ("GET".to_owned(), "/metrics".to_owned(), 200);
    *before.entry(asked).or_default() += 1;
    let mut child = Child::spawn(command(world.folder.path(), &server, &ids, key.as_deref()));
    let status = child.exit(HOURS).await;
    let finished = child.finished(status);
    let mut after = answers(&server.api).await;
    for (of, count) in before {
        *after.get_mut(&of).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    report(by, &after, &finished.stdout);
    assert_eq!(
        finished.code,
        Some(0),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
    let failed = after.iter().find(|((_, _, status), _)| *status >= 500);
    assert_eq!(failed, None);
    let log = server.stop().await.stderr;
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("\"severity\":\"ERROR\""), "{log}");
    after
}

/// The command, with what it has to know of this program.
fn command(folder: &Path, server: &Server, ids: &Ids, key: Option<&str>) -> Command {
    let examples = examples().unwrap_or(DEFAULT_EXAMPLES).to_string();
    let config = folder.join("schemathesis.toml");
    std::fs::write(&config, ids.bound(key)).unwrap();
    let mut command = tool("schemathesis");
    command
        .arg("--config-file")
        .arg(config)
        .args(["run", "--url", &server.api.url])
        .arg(format!("{}/openapi.json", server.api.url))
        .args(["--checks", CHECKS, "--max-examples", &examples])
        .args([
            "--seed",
            &seed().to_string(),
            "--generation-database",
            "none",
        ])
        .args([
            "--request-timeout",
            "30",
            "--no-color",
            "--continue-on-failure",
        ])
        .env("NUCLEUS_TEST_KEPT", ids.kept())
        .current_dir(folder);
    command
}

/// A Python tool.
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn tool(name: &str) -> Command {
    let tools = std::env::var_os(TOOLS)
        .unwrap_or_else(|| panic!("{TOOLS} says where {name} is: run `scripts/test`"));
    let mut command = Command::new(Path::new(&tools).join(name));
    command.env("PYTHONUTF8", "1");
    command
}

/// What there is at first, so that requests meet more than 404.
struct Ids {
    /// The entity's key.
    key: String,
    /// By what they are ids of.
    known: BTreeMap<&'static str, Vec<String>>,
}

impl Ids {
    async fn seed(world: &World, api: &Api) -> Self {
        let entity = api.entity().await;
        let key = world
            .run(&["key", "create", "--entity", &entity])
            .await
            .ok();
        let body = Api::connection(world, &entity);
        let integration = id_of(&api.post("/integrations/", body).await);
        let run = api.sync(&integration).await;
        assert_eq!(api.ended(&run).await["status"], "success");
        let records = api
            .all(&format!("/integrations/{integration}/records"))
            .await;
        let records = records.iter().take(5).map(id_of).collect();
        // What may go.
        let spare_entity = api.entity().await;
        let spare = api.connect(world).await;
        // It would go with its entity.
        let path = format!("/integrations/{spare}");
        let owner = api.get(&path).await["entity_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let known = [
            ("entity", vec![entity, owner]),
            ("integration", vec![integration]),
            ("run", vec![run]),
            ("record", records),
            ("spare_entity", vec![spare_entity]),
            ("spare_integration", vec![spare]),
        ];
        Self {
            key: key.trim().to_owned(),
            known: known.into(),
        }
    }

    /// What must not be removed.
    fn kept(&self) -> String {
        let kept = ["entity", "integration"].map(|kind| self.known[kind].join(" "));
        kept.join(" ")
    }

    /// schemathesis' configuration: half of the ids that it sends are known ones.
    fn bound(&self, key: Option<&str>) -> String {
        let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schemathesis.py");
        let mut lines = vec![format!("hooks = {hooks:?}")];
        // Requests come from the document, not from what answers to wrong ones say.
        lines.push("[phases.fuzzing.error-feedback]\nenabled = false".to_owned());
        if let Some(key) = key {
            lines.push(format!("[headers]\nAuthorization = \"Bearer {key}\""));
        }
        for (kind, ids) in &self.known {
            lines.push(format!("[dictionaries.{kind}]\nvalues = {ids:?}"));
        }
        for operation in contract::operations() {
            let (method, path) = (&operation.method, &operation.path);
            let prefix = path.split('/').nth(1).unwrap();
            let kind = match (method.as_str(), prefix) {
                ("DELETE", "entities") => "spare_entity",
                ("DELETE", "integrations") => "spare_integration",
                (_, "integrations") => "integration",
                (_, "runs") => "run",
                (_, "records") => "record",
                _ => "entity",
            };
            let bound = match method.as_str() {
                _ if path.contains("{id}") => format!("\"path.id\" = {{ dictionary = {kind:?}"),
                "POST" => "\"body.entity_id\" = { dictionary = \"entity\"".to_owned(),
                _ => continue,
            };
            lines.push(format!(
                "[[operations]]\ninclude-name = \"{method} {path}\"\n\
                 [operations.parameters]\n{bound}, probability = 0.5 }}"
            ));
        }
        lines.join("\n")
    }
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// How many requests the program has answered so far.
async fn answers(api: &Api) -> Answers {
    let text = api.text("/metrics").await;
    let before = "nucleus_http_requests_total{";
    let lines = text.lines().filter_map(|line| line.strip_prefix(before));
    let mut found = BTreeMap::new();
    for line in lines {
        let (labels, count) = line.split_once("} ").unwrap();
        let mut values = labels.split('"').skip(1).step_by(2);
        let mut value = || values.next().unwrap().to_owned();
        let (method, route, status) = (value(), value(), value());
        let of = (method, route, status.parse().unwrap());
        found.insert(of, count.parse().unwrap());
    }
    found
}

#[expect(clippy::print_stdout, reason = "the tester's own screen")]
fn report(by: By, answers: &Answers, said: &str) {
    let mut by_status: BTreeMap<u16, u64> = BTreeMap::new();
    for ((_, _, status), count) in answers {
        *by_status.entry(*status).or_default() += count;
    }
    let sum: u64 = by_status.values().sum();
    println!("{said}\n{by:?}: {sum} requests, by status: {by_status:?}");
    if let Some(examples) = examples() {
        let least = examples * by.requests_per_example();
        assert!(sum >= least, "{sum} requests, not {least}");
    }
}

/// How many requests the tester wants, if that was said.
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn examples() -> Option<u64> {
    let given = std::env::var(EXAMPLES).ok()?;
    Some(given.parse().unwrap())
}

/// From `NUCLEUS_SEED`, or another each time; printed, so that a failure can be had again.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the tester's own variable, not the program's, and the tester's own screen"
)]
fn seed() -> u32 {
    let given = std::env::var("NUCLEUS_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("NUCLEUS_SEED={seed}");
    seed
}
