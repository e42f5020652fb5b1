//! The commands. Results go to standard output, logs and errors to standard error.

use std::{io::Write, process::ExitCode};

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub mod audit;
pub mod dead_letter;
pub mod demo;
pub mod doctor;
pub mod entity;
pub mod events;
pub mod import;
pub mod key;
pub mod migrate;
pub mod revoke;
pub mod roles;
pub mod vault;

/// Prints a line of a command's result. A reader that has gone away is not an error of ours.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line beside a command's result, for people.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints why a command failed, each cause on a line of its own, and gives the exit code for that.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(out, "  because {cause}");
    }
    ExitCode::FAILURE
}

/// Keeps the kernel from writing memory, in which credentials are, to a file when the process dies.
///
/// A limit of one byte is less than any dump, and the one limit that counts for a dump that is given to
/// a program too, which 0 does not: <https://docs.kernel.org/admin-guide/sysctl/kernel.html#core-pattern>
/// Who came with a limit of 0 cannot raise it and is made undumpable, by which its own user can look at
/// less of it in `/proc`.
pub fn refuse_core_dumps() -> std::io::Result<()> {
    let before = getrlimit(Resource::Core);
    let limit = before.maximum.map_or(1, |most| most.min(1));
    #[cfg(target_os = "linux")]
    if limit == 0 {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    let limit = Some(limit);
    Ok(setrlimit(
        Resource::Core,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?)
}

/// Lets the process die where a test says so: at a crash point a panic must end everything, as a
/// kill would.
#[cfg(feature = "failpoints")]
pub fn crash_at_failpoints() -> fail::FailScenario<'static> {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        let at_failpoint = panic
            .payload()
            .downcast_ref::<String>()
            .is_some_and(|text| text.starts_with("failpoint "));
        if at_failpoint {
            std::process::abort();
        }
    }));
    fail::FailScenario::setup()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_process_that_came_with_a_limit_of_0_is_not_dumpable() {
        // With a limit of 0 a dump would still be given to a program.
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, none).unwrap();
        refuse_core_dumps().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
