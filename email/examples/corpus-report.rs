//! What becomes of every mail below a folder, as `docs/email-corpus.md`: origin by origin, nothing of a mail quoted.
//!
//! `just corpus-report FOLDER` runs it and writes that document. Times are CPU times of one thread.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a tool that prints, and cannot go on without its mails"
)]

#[path = "../peers/mails.rs"]
mod mails;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use email::{ParsedEmail, WarningCode};
use mail_parser::MessageParser;
use rustix::time::{ClockId, clock_gettime};

/// What stands above the tables.
const INTRODUCTION: &str = "\
# What becomes of real mail

Real mail and the fixtures of other mail libraries, which are not part of this repository, read by `email`; nothing of
them is quoted. `just corpus-report FOLDER` makes this document from any folder of mails and mboxes.

- *with text*: `data_content` is not empty. *lost*: it is, though the message parser alone finds a body with a letter
  or digit in it; those are mails of which nothing is shown but attachments, and HTML whose only text is hidden.
- *charsets*: the label of some text was missing, unknown or wrong and the bytes decided. *limits*: something was cut.
- *slowest*: CPU time of the slowest mail, a release build on one core. *MB/s*: raw bytes by CPU time.
";

/// What became of the mails of one origin.
#[derive(Default)]
struct Row {
    mails: usize,
    with_text: usize,
    lost: usize,
    charsets: usize,
    attachments: usize,
    limits: usize,
    bytes: usize,
    time: Duration,
    slowest: Duration,
}

impl Row {
    fn add(&mut self, raw: &[u8], email: &ParsedEmail, taken: Duration) {
        self.mails += 1;
        self.with_text += usize::from(!email.text.is_empty());
        self.lost += usize::from(email.text.is_empty() && has_text(raw));
        self.attachments += email.attachments.len();
        self.charsets += usize::from(flagged(email, |code| code == WarningCode::CharsetFallback));
        self.limits += usize::from(flagged(email, |code| name(code).starts_with("limit_")));
        self.bytes += raw.len();
        self.time += taken;
        self.slowest = self.slowest.max(taken);
    }

    fn print(&self, origin: &str) {
        println!(
            "| {origin} | {} | {} | {} | {} | {} | {} | {:.1} | {:.0} |",
            self.mails,
            self.with_text,
            self.lost,
            self.charsets,
            self.attachments,
            self.limits,
            self.slowest.as_secs_f64() * 1e3,
            self.bytes as f64 / 1e6 / self.time.as_secs_f64().max(1e-9)
        );
    }
}

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder of mails"));
    let scratch = std::env::temp_dir().join(format!("corpus-report-{}", std::process::id()));
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut total = Row::default();
    let mut warnings: BTreeMap<String, usize> = BTreeMap::new();
    for file in mails::below(&folder, &scratch) {
        let raw = std::fs::read(&file).unwrap();
        let start = cpu();
        let email = email::parse(&raw);
        let taken = cpu() - start;
        rows.entry(origin(&file))
            .or_default()
            .add(&raw, &email, taken);
        total.add(&raw, &email, taken);
        for warning in &email.warnings {
            *warnings.entry(name(warning.code)).or_default() += 1;
        }
    }
    let _ = std::fs::remove_dir_all(&scratch);
    println!("{INTRODUCTION}");
    println!(
        "| origin | mails | with text | lost | charsets | attachments | limits | slowest ms | MB/s |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (origin, row) in &rows {
        row.print(origin);
    }
    total.print("all");
    println!("\n| warning | mails |\n|---|--:|");
    for (code, mails) in &warnings {
        println!("| `{code}` | {mails} |");
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// The last folder of a mail, and the one above.
fn origin(file: &Path) -> String {
    let folder = file.parent().unwrap();
    let step = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    format!("{}/{}", step(folder.parent()), step(Some(folder)))
}

/// Whether the message parser alone finds a body that says something.
fn has_text(raw: &[u8]) -> bool {
    let Some(message) = MessageParser::default().parse(raw) else {
        return false;
    };
    let text = message.body_text(0).unwrap_or_default();
    text.chars().any(char::is_alphanumeric)
}

fn flagged(email: &ParsedEmail, wanted: impl Fn(WarningCode) -> bool) -> bool {
    email.warnings.iter().any(|warning| wanted(warning.code))
}

/// The name of a warning in the record.
fn name(code: WarningCode) -> String {
    let value = serde_json::to_value(code).unwrap();
    value.as_str().unwrap().to_owned()
}
