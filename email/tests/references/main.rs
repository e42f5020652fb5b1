//! The same mails through Python's `email` and npm's `mailparser`: every disagreement has a kind and a reason.
//!
//! The mails are the fixtures, and those of `NUCLEUS_CORPUS` where that names a folder. `docs/email-references.md`
//! has the kinds, and how often each occurs in the corpus; `NUCLEUS_WRITE_REFERENCES=1` writes that table anew.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should stop, and variables say where things are"
)]

mod attachments;
mod compare;
mod document;
mod kinds;
#[path = "../../peers/mails.rs"]
mod mails;
mod texts;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use compare::{Case, Field};
use document::Counts;

/// The folder in which mailparser is installed.
const PEERS: &str = "NUCLEUS_TEST_PEERS";
const WRITE: &str = "NUCLEUS_WRITE_REFERENCES";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a reference prints for each file.
fn records(mut command: Command, files: &[PathBuf]) -> Vec<Value> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut list = String::new();
    for file in files {
        list.push_str(file.to_str().unwrap());
        list.push('\n');
    }
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(list.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    let mut found = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        found.push(serde_json::from_str(line).unwrap());
    }
    assert_eq!(found.len(), files.len(), "{command:?}");
    found
}

/// What both references make of `files`, in the order of [`compare::REFERENCES`].
fn references(files: &[PathBuf]) -> [Vec<Value>; 2] {
    let peers = std::env::var_os(PEERS)
        .unwrap_or_else(|| panic!("{PEERS} says where mailparser is: run `scripts/test`"));
    let mut python = Command::new("python3");
    python.arg(root().join("peers/reference.py"));
    python.env("PYTHONUTF8", "1");
    let mut node = Command::new("node");
    node.arg(root().join("peers/reference.mjs")).arg(peers);
    [records(python, files), records(node, files)]
}

#[test]
fn every_disagreement_with_the_references_is_explained() {
    let corpus = std::env::var_os("NUCLEUS_CORPUS").map(PathBuf::from);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("references");
    let mut files = mails::below(&root().join("fixtures"), &scratch);
    let fixtures = files.len();
    if let Some(folder) = &corpus {
        files.extend(mails::below(folder, &scratch));
    }
    let theirs = references(&files);
    let mut counts = Counts::default();
    let mut unexplained = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let raw = fs::read(file).unwrap();
        let email = email::parse(&raw);
        for reference in 0..2 {
            let case = Case {
                raw: &raw,
                email: &email,
                reference,
                theirs: &theirs[reference][at],
                other: &theirs[1 - reference][at],
            };
            for field in Field::ALL {
                if case.agrees(field) {
                    // Counts are of the corpus: fixtures come and go.
                    counts.agreed(field, reference, at >= fixtures);
                    continue;
                }
                match kinds::explain(field, &case) {
                    Some(kind) => counts.explained(field, kind, reference, at >= fixtures),
                    None => unexplained.push(case.show(field, file)),
                }
            }
        }
    }
    println!("compared {} mails", files.len());
    assert!(
        unexplained.is_empty(),
        "{} disagreements without a kind\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
    document::check_kinds();
    if corpus.is_some() {
        let write = std::env::var_os(WRITE).is_some();
        document::check_counts(&counts, files.len() - fixtures, write);
    }
}
