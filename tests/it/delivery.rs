//! What brings nucleus to where it runs: the image, the compose file, the workflows, Terraform. Each is held
//! against a tool that knows its form, and against what the program is.

use std::{path::Path, process::Command};

mod image;
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
