//! What brings nucleus to where it runs: the image, the compose file, the workflows, Terraform. Each is held
//! against a tool that knows its form, and against what the program is.

use std::{collections::BTreeMap, ffi::OsString, path::Path, process::Command};

use nucleus::config::Config;
use serde_json::Value;

mod compose;
mod google;
mod image;
mod plan;
mod workflows;

/// The project's folder.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The folder of the tools in `tests/python-tools.txt`.
const TOOLS: &str = "NUCLEUS_TEST_PYTHON_TOOLS";

#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variables, not the program's"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// What a tool prints that is run in the project's folder and finds nothing wrong.
fn tool(name: &str, arguments: &[&str]) -> String {
    let program = Path::new(&variable(TOOLS)).join(name);
    let done = Command::new(&program)
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let (stdout, stderr) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    assert!(done.status.success(), "{name}:\n{stdout}{stderr}");
    stdout
}

/// Fails unless the program knows each of these settings, takes its value and has nothing to warn of.
/// What others read, such as the emulator's address, is left to them.
fn assert_settings(given: BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let environment = given
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let loaded = Config::load(None, environment, Some(folder.path().to_owned()));
    let (_, warnings) = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}: {given:#?}"));
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Fails unless the program has this command with these options.
fn assert_is_command(arguments: &[String]) {
    let done = Command::new(env!("CARGO_BIN_EXE_nucleus"))
        .args(arguments)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
}

/// A list of texts.
fn words(list: &Value) -> Vec<String> {
    let words = list.as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}
