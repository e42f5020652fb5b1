//! Reads the sources and holds them to the house rules: who imports whom, which crate has one place
//! only, how long files are, what they begin with.
//!
//! Tests inside a source file may import what they like; the diagram is about the program.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A name and the paths that go with it.
type Table = &'static [(&'static str, &'static [&'static str])];

/// What lies below `app`; the commands may use it too.
const BELOW_APP: &[&str] = &[
    "domain",
    "config",
    "telemetry",
    "loops",
    "metrics",
    "db",
    "queue",
    "secrets",
    "providers",
    "oauth",
    "connectors",
    "sync",
    "keys",
    "audit",
    "integrations",
    "connect",
    "import",
];

/// Each room of `src/` and what it may import besides itself, as path prefixes.
const IMPORTS: Table = &[
    ("domain", &[]),
    ("providers", &["domain"]),
    ("config", &["domain", "providers"]),
    (
        "telemetry",
        &["config::Telemetry", "config::LogFormat", "domain", "traces"],
    ),
    ("traces", &["domain"]),
    ("loops", &[]),
    ("metrics", &["domain"]),
    ("db", &["domain", "metrics::Total"]),
    ("queue", &["domain"]),
    ("secrets", &["domain"]),
    (
        "oauth",
        &["domain", "providers", "metrics", "db", "secrets"],
    ),
    ("connectors", &["domain", "metrics"]),
    (
        "sync",
        &["domain", "traces", "metrics", "db", "oauth", "connectors"],
    ),
    ("keys", &["domain", "db"]),
    ("audit", &["domain", "db", "secrets"]),
    (
        "integrations",
        &[
            "domain",
            "traces",
            "audit::Attempt",
            "db",
            "oauth",
            "secrets",
            "metrics",
            "providers",
        ],
    ),
    (
        "connect",
        &[
            "domain",
            "db",
            "oauth",
            "secrets",
            "providers",
            "integrations",
            "sync",
        ],
    ),
    ("import", &["domain", "metrics", "db", "sync"]),
    (
        "demo",
        &[
            "domain",
            "import::labels",
            "import::mbox",
            "import::takeout",
        ],
    ),
    ("app", BELOW_APP),
    (
        "worker",
        &[
            "app",
            "sync",
            "oauth",
            "db",
            "domain",
            "connectors",
            "queue",
            "integrations",
            "connect",
            "telemetry::AUDIT_HEADS",
        ],
    ),
    (
        "api",
        &[
            "app",
            "sync",
            "oauth",
            "db",
            "domain",
            "connectors",
            "providers",
            "keys",
            "integrations",
            "connect",
            "metrics",
            "secrets::Credentials",
            "secrets::OAuth2Credentials",
            "traces",
        ],
    ),
    ("cli", BELOW_APP),
];

/// Beginnings of paths that may import more than their room: the commands that start other rooms.
const IMPORTS_OF_FILES: Table = &[
    ("cli/", &["app"]),
    ("cli/roles", &["api", "worker"]),
    ("cli/up", &["api", "worker"]),
    ("cli/serve", &["api"]),
    ("cli/work", &["worker"]),
    ("cli/tick", &["worker"]),
    ("cli/demo", &["api", "demo"]),
    ("cli/doctor", &["traces"]),
];

/// Files that only tests compile.
fn is_for_tests(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap();
    matches!(file, "tests.rs" | "testing.rs") || file.ends_with("_tests.rs")
}

/// What only one place may use, and the beginnings of the paths that are that place.
const PLACES: Table = &[
    ("sea_orm", &["db/"]),
    ("sqlx", &["db/"]),
    ("google_gmail1", &["connectors/gmail"]),
    ("google_cloud_secretmanager_v1", &["secrets/gcp/"]),
    ("google_cloud_auth", &["secrets/gcp/", "queue/pubsub"]),
    ("google_cloud_gax", &["secrets/gcp/", "queue/"]),
    ("mail_parser", &["demo/", "import/takeout"]),
    (
        "email",
        &[
            "connectors/gmail/message",
            "connectors/github/record",
            "import/",
        ],
    ),
    (
        "reqwest",
        &[
            "connectors/client",
            "oauth/",
            "oauth.rs",
            "traces",
            "cli/demo",
        ],
    ),
    ("axum", &["api/", "demo/"]),
    ("hyper", &["api/connection"]),
    ("hyper_util", &["api/connection", "api/serve"]),
    ("prometheus_client", &["metrics/"]),
    ("google_cloud_pubsub", &["queue/"]),
    ("governor", &["api/rate_limit"]),
    ("utoipa_axum", &["api/"]),
    ("utoipa_swagger_ui", &["api/docs"]),
    ("rustix", &["cli/", "config/reader"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_http", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("tracing_opentelemetry", &["traces"]),
    ("std::env", &["config/", "config.rs"]),
];

/// Longest source file, in lines.
const MAX_LINES: usize = 600;

/// Marks of unfinished work, taken apart so that this file does not hold them.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
];

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut violations = Vec::new();
    for (path, source) in sources("src") {
        violations.extend(forbidden_imports(&path, &source));
    }
    assert_none(&violations);
}

#[test]
fn crates_with_one_place_are_used_there_only() {
    let mut violations = Vec::new();
    for (path, source) in sources("src") {
        violations.extend(forbidden_crates(&path, &source));
    }
    assert_none(&violations);
}

#[test]
fn files_are_short_begin_with_their_purpose_and_are_finished() {
    let mut violations = Vec::new();
    for folder in ["src", "email/src", "migration/src", "tests", "benches"] {
        for (path, source) in sources(folder) {
            violations.extend(untidiness(&format!("{folder}/{path}"), &source));
        }
    }
    assert_none(&violations);
}

#[test]
fn the_architecture_document_names_every_file() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md"))
        .unwrap_or_else(|error| panic!("ARCHITECTURE.md: {error}"));
    let mut violations = Vec::new();
    for folder in ["src", "email/src"] {
        for (path, _) in sources(folder) {
            if is_for_tests(&path) {
                continue;
            }
            let name = name_in_document(&path);
            if !names(&document, &name) {
                violations.push(format!(
                    "{folder}/{path}: ARCHITECTURE.md does not name {name}"
                ));
            }
        }
    }
    assert_none(&violations);
}

fn forbidden_imports(path: &str, source: &str) -> Vec<String> {
    let room = room(path);
    if matches!(room, "main" | "lib") || is_for_tests(path) {
        return Vec::new();
    }
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("src/{path}: {room} has no row in the import table")];
    };
    let mut allowed = allowed.to_vec();
    allowed.push(room);
    for (file, more) in IMPORTS_OF_FILES {
        if path.starts_with(file) {
            allowed.extend(*more);
        }
    }
    let code = supers_as_crate(path, &code_only(production(source)));
    let mut violations = Vec::new();
    for import in paths_from(&code, "crate") {
        let import = import.trim_start_matches("crate::");
        if !allowed.iter().any(|prefix| begins_with(import, prefix)) {
            violations.push(format!("src/{path}: {room} must not import {import}"));
        }
    }
    violations
}

fn forbidden_crates(path: &str, source: &str) -> Vec<String> {
    if is_for_tests(path) {
        return Vec::new();
    }
    let code = code_only(production(source));
    let mut violations = Vec::new();
    for (what, places) in PLACES {
        if places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        let first = what.split("::").next().unwrap();
        if paths_from(&code, first)
            .iter()
            .any(|used| begins_with(used, what))
        {
            let places = places.join(", ");
            violations.push(format!("src/{path}: {what} is for {places} only"));
        }
    }
    violations
}

fn untidiness(path: &str, source: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_LINES {
        violations.push(format!("{path}: {lines} lines, at most {MAX_LINES}"));
    }
    if !source.starts_with("//!") {
        violations.push(format!("{path}: does not begin with //!"));
    }
    for (index, line) in source.lines().enumerate() {
        for word in UNFINISHED {
            if names(line, word) {
                violations.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    violations
}

/// What a reader of the map looks for: the file's name, or its folder where that is its story.
fn name_in_document(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., folder, "mod.rs" | "tests.rs"] => format!("{folder}/"),
        [.., file] => (*file).to_owned(),
        [] => String::new(),
    }
}

/// Whether `text` holds `name` as a word of its own.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + name.len()..].chars().next();
        let is_open = name.ends_with(['/', '!']);
        !before.is_some_and(is_word) && (is_open || !after.is_some_and(is_word))
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// `sync` for both `sync.rs` and `sync/runner.rs`.
fn room(path: &str) -> &str {
    let first = path.split('/').next().unwrap();
    first.trim_end_matches(".rs")
}

/// Whether `path` is `prefix` or lies below it.
fn begins_with(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with("::"),
        None => false,
    }
}

/// The source up to its tests, which stand last.
fn production(source: &str) -> &str {
    match source.find("#[cfg(test)]\nmod ") {
        Some(start) => &source[..start],
        None => source,
    }
}

/// Writes `use super::…` as `use crate::…` where it climbs to the crate. Only unindented lines:
/// an inline module's `super` is the file itself.
fn supers_as_crate(path: &str, code: &str) -> String {
    let parts = path.split('/').count();
    let depth = if path.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    };
    let climb = format!("use {}", "super::".repeat(depth));
    let mut result = String::new();
    for line in code.lines() {
        let plain = line.replace("pub use ", "use ");
        match plain.strip_prefix(&climb) {
            Some(rest) => result.push_str(&format!("use crate::{rest}")),
            None => result.push_str(line),
        }
        result.push('\n');
    }
    result
}

/// Every path in the code that begins with `first`, groups taken apart: `a::{b, c::d}` is `a::b`
/// and `a::c::d`.
fn paths_from(code: &str, first: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, _) in code.match_indices(first) {
        let before = code[..start].trim_end();
        let rest = &code[start + first.len()..];
        let is_inside_word = code[..start].chars().next_back().is_some_and(is_word);
        let is_inside_path = before.ends_with("::") && !begins_a_path(before);
        if is_inside_word || is_inside_path || rest.starts_with(is_word) {
            continue;
        }
        let is_used_whole = before.ends_with("use");
        if rest.trim_start().starts_with("::") || is_used_whole {
            take_tree(&mut tokens(rest).into_iter().peekable(), first, &mut paths);
        }
    }
    paths
}

/// Whether the `::` at the end of `before` stands alone, as in `::reqwest::get`.
fn begins_a_path(before: &str) -> bool {
    let before = before.trim_end_matches("::");
    !before.ends_with(|c: char| is_word(c) || c == '>')
}

/// The code's start, in words and marks, up to what cannot belong to a path.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(next) = rest.chars().next() {
        let length = if rest.starts_with("::") {
            2
        } else if is_word(next) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if "{},*".contains(next) {
            1
        } else {
            break;
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<String>>;

/// Reads what follows `prefix` and adds each whole path to `paths`.
fn take_tree(tokens: &mut Tokens, prefix: &str, paths: &mut Vec<String>) {
    if tokens.next_if(|token| token == "::").is_none() {
        paths.push(prefix.to_owned());
        // A renamed import goes on with `as other`.
        if tokens.next_if(|token| token == "as").is_some() {
            tokens.next();
        }
        return;
    }
    if tokens.next_if(|token| token == "{").is_none() {
        match tokens.next() {
            Some(name) => take_tree(tokens, &format!("{prefix}::{name}"), paths),
            // A generic argument: `a::<T>`.
            None => paths.push(prefix.to_owned()),
        }
        return;
    }
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "}" => return,
            "," => {}
            "self" => {
                take_tree(tokens, prefix, paths);
            }
            name => take_tree(tokens, &format!("{prefix}::{name}"), paths),
        }
    }
}

/// The source without comments and without what stands in strings and characters.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            1 + quoted(&rest[1..], '"')
        } else if next == 'r' && !code.ends_with(is_word) && raw_string(rest).is_some() {
            raw_string(rest).unwrap_or(rest.len())
        } else if next == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped > 0 {
            rest = &rest[skipped..];
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    code
}

/// The length up to and with the closing quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return index + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#` at the start of the text.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).unwrap_or(body.len());
    Some((2 + hashes + end + close.len()).min(text.len()))
}

/// The length of `'c'` or `'\n'` at the start of the text, 1 for a lifetime.
fn character(text: &str) -> usize {
    let inner = &text[1..];
    if inner.starts_with('\\') {
        return 1 + quoted(inner, '\'');
    }
    let mut characters = inner.char_indices();
    characters.next();
    match characters.next() {
        Some((end, '\'')) => 1 + end + 1,
        _ => 1,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, by its path inside it.
fn sources(folder: &str) -> Vec<(String, String)> {
    let top = root().join(folder);
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&top).unwrap().to_str().unwrap();
                found.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(
        !found.is_empty() || folder == "benches",
        "{folder} is empty"
    );
    found
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

mod on_made_up_sources;
