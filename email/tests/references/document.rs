//! `docs/email-references.md`: the kinds it names are those of the rules, its figures those of the corpus.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::compare::Field;
use crate::kinds;

/// Begins the table of agreements.
const AGREEMENTS: &str = "| field | mails | as Python | as mailparser |";
/// Begins the table of kinds.
const KINDS: &str = "| field | kind | Python | mailparser | why ours stands |";

/// How often the readings agreed, and how often each kind occurred, for each reference.
#[derive(Default)]
pub(crate) struct Counts {
    agreed: BTreeMap<Field, [usize; 2]>,
    kinds: BTreeMap<(Field, &'static str), [usize; 2]>,
}

impl Counts {
    pub(crate) fn agreed(&mut self, field: Field, reference: usize, counts: bool) {
        self.agreed.entry(field).or_default()[reference] += usize::from(counts);
    }

    pub(crate) fn explained(
        &mut self,
        field: Field,
        kind: &'static str,
        reference: usize,
        counts: bool,
    ) {
        // An entry without a count says that a fixture has it.
        self.kinds.entry((field, kind)).or_default()[reference] += usize::from(counts);
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/email-references.md")
}

fn name(field: Field) -> String {
    format!("{field:?}").to_lowercase()
}

/// The document says of every kind what the rules say, and knows no others.
pub(crate) fn check_kinds() {
    let document = fs::read_to_string(path()).unwrap();
    let mut written = Vec::new();
    for line in table(&document, KINDS) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        written.push((
            cells[1].to_owned(),
            cells[2].to_owned(),
            cells[5].to_owned(),
        ));
    }
    let mut known = Vec::new();
    for (field, kind, why) in kinds::all() {
        known.push((name(field), kind.to_owned(), why.to_owned()));
    }
    assert_eq!(written, known, "the kinds of {:?}", path());
}

/// The figures are those of the corpus, by the versions that the document names.
pub(crate) fn check_counts(counts: &Counts, mails: usize, write: bool) {
    let mut agreements = String::new();
    for field in Field::ALL {
        let [python, mailparser] = counts.agreed.get(&field).copied().unwrap_or_default();
        agreements.push_str(&format!(
            "| {} | {mails} | {python} | {mailparser} |\n",
            name(field)
        ));
    }
    let mut kinds = String::new();
    let mut unused = Vec::new();
    for (field, kind, why) in kinds::all() {
        let known = counts.kinds.get(&(field, kind)).copied();
        if known.is_none() {
            unused.push(kind);
        }
        let [python, mailparser] = known.unwrap_or_default();
        kinds.push_str(&format!(
            "| {} | {kind} | {python} | {mailparser} | {why} |\n",
            name(field)
        ));
    }
    assert!(unused.is_empty(), "kinds that explain nothing: {unused:?}");
    let document = fs::read_to_string(path()).unwrap();
    let version = Command::new("python3").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let mut made = replaced(&document, AGREEMENTS, &agreements);
    made = replaced(&made, KINDS, &kinds);
    if write {
        fs::write(path(), &made).unwrap();
        return;
    }
    // Another Python reads otherwise; that every disagreement has a kind holds for it all the same.
    if document.contains(version.trim()) {
        assert_eq!(
            document, made,
            "NUCLEUS_WRITE_REFERENCES=1 writes the figures anew"
        );
    }
}

/// The rows of the table that `head` begins.
fn table<'a>(document: &'a str, head: &str) -> Vec<&'a str> {
    let (_, rest) = document.split_once(head).unwrap();
    let rows = rest.lines().skip(2);
    rows.take_while(|line| line.starts_with('|')).collect()
}

fn replaced(document: &str, head: &str, rows: &str) -> String {
    let (before, rest) = document.split_once(head).unwrap();
    let mut lines = rest.lines().skip(1);
    let rule = lines.next().unwrap();
    let after: Vec<&str> = lines.skip_while(|line| line.starts_with('|')).collect();
    format!("{before}{head}\n{rule}\n{rows}{}\n", after.join("\n"))
}
