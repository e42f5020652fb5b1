//! Every mail of `fixtures/` against the record written down beside it.
//!
//! One small mail shows one difficulty. `NAME.eml` is what a server delivered, byte for byte; `NAME.json` is what
//! must come of it, without what is absent. After a change that is meant, write the records anew and review what
//! changed: `NUCLEUS_WRITE_FIXTURES=1 cargo test -p email --test fixtures`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should stop, and a variable asks for new records"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

const WRITE: &str = "NUCLEUS_WRITE_FIXTURES";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The names of the files of the folder that end in `end`, without it.
fn names(end: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(end) {
            found.insert(stem.to_owned());
        }
    }
    found
}

/// What came of a mail: its text and every key that says something. Length and hash follow from the bytes alone.
fn record(raw: &[u8]) -> Value {
    let email = email::parse(raw);
    let mut shown = Map::new();
    shown.insert("text".into(), email.text.clone().into());
    if let Value::Object(known) = email.meta_data() {
        for (key, value) in known {
            let absent = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !absent && key != "sha256" && key != "size_bytes" {
                shown.insert(key, value);
            }
        }
    }
    Value::Object(shown)
}

#[test]
fn every_fixture_becomes_the_record_beside_it() {
    let write = std::env::var_os(WRITE).is_some();
    let mails = names(".eml");
    let mut wrong = Vec::new();
    for name in &mails {
        let raw = fs::read(folder().join(format!("{name}.eml"))).unwrap();
        let made = format!("{:#}\n", record(&raw));
        let path = folder().join(format!("{name}.json"));
        if write {
            fs::write(&path, &made).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if made != expected {
            wrong.push(format!("--- {name}, expected\n{expected}--- made\n{made}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ; where that is meant, set {WRITE}\n{}",
        wrong.len(),
        mails.len(),
        wrong.join("\n")
    );
    assert_eq!(names(".json"), mails, "a record without its mail, or none");
}
