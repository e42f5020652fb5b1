//! What is compared, field by field, and when two readings count as the same.

use std::fmt::Write;
use std::path::Path;

use email::{ParsedEmail, WarningCode};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

/// The references, in the order of their results.
pub(crate) const REFERENCES: [&str; 2] = ["Python", "mailparser"];

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Subject,
    From,
    Date,
    Attachments,
    Text,
}

impl Field {
    pub(crate) const ALL: [Field; 5] = [
        Field::Subject,
        Field::From,
        Field::Date,
        Field::Attachments,
        Field::Text,
    ];
}

/// One mail, as three read it.
pub(crate) struct Case<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) email: &'a ParsedEmail,
    pub(crate) reference: usize,
    pub(crate) theirs: &'a Value,
    pub(crate) other: &'a Value,
}

impl Case<'_> {
    pub(crate) fn agrees(&self, field: Field) -> bool {
        self.ours(field) == read(self.theirs, field)
    }

    /// Our reading, one string a value.
    pub(crate) fn ours(&self, field: Field) -> Vec<String> {
        let email = self.email;
        match field {
            Field::Subject => email.subject.iter().map(|text| normal(text)).collect(),
            Field::Date => {
                let date = email
                    .date
                    .map(|date| date.format("%Y-%m-%dT%H:%M:%S").to_string());
                date.into_iter().collect()
            }
            Field::Text => vec![normal(&email.text)],
            Field::From => {
                let mut people = Vec::new();
                for person in &email.from {
                    people.push(pair(person.name.as_deref(), person.address.as_deref()));
                }
                people
            }
            Field::Attachments => {
                let mut names: Vec<String> = email
                    .attachments
                    .iter()
                    .filter_map(|attachment| attachment.filename.as_deref().map(normal))
                    .collect();
                names.sort();
                names
            }
        }
    }

    pub(crate) fn theirs(&self, field: Field) -> Vec<String> {
        read(self.theirs, field)
    }

    pub(crate) fn other(&self, field: Field) -> Vec<String> {
        read(self.other, field)
    }

    /// Whether our reading carries a warning of this kind.
    pub(crate) fn flagged(&self, code: WarningCode) -> bool {
        self.email
            .warnings
            .iter()
            .any(|warning| warning.code == code)
    }

    /// The raw values of the header fields `name`, unfolded; bytes that are no UTF-8 are U+FFFD.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(self.raw)
            .replace("\r\n", "\n")
            .replace('\r', "\n");
        let text = text.trim_start();
        let header = text.split("\n\n").next().unwrap_or_default();
        let mut values: Vec<String> = Vec::new();
        let mut wanted = false;
        for line in header.split('\n') {
            if line.starts_with([' ', '\t']) {
                if let Some(value) = values.last_mut().filter(|_| wanted) {
                    value.push_str(line);
                }
                continue;
            }
            let field = line.split_once(':');
            wanted = field.is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            if let Some((_, value)) = field.filter(|_| wanted) {
                values.push(value.trim().to_owned());
            }
        }
        values
    }

    pub(crate) fn show(&self, field: Field, file: &Path) -> String {
        let mut shown = String::new();
        let _ = writeln!(
            shown,
            "{field:?} {} {}",
            REFERENCES[self.reference],
            file.display()
        );
        let _ = writeln!(shown, "    ours   {:?}", self.ours(field));
        let _ = writeln!(shown, "    theirs {:?}", self.theirs(field));
        let _ = write!(shown, "    other  {:?}", self.other(field));
        shown
    }
}

/// A reference's reading, one string a value.
fn read(record: &Value, field: Field) -> Vec<String> {
    match field {
        Field::Subject => record["subject"]
            .as_str()
            .map(normal)
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect(),
        Field::Date => record["date"]
            .as_str()
            .map(str::to_owned)
            .into_iter()
            .collect(),
        Field::Text => vec![normal(record["text"].as_str().unwrap_or_default())],
        Field::From => {
            let mut people = Vec::new();
            for entry in record["from"].as_array().into_iter().flatten() {
                people.push(pair(entry[0].as_str(), entry[1].as_str()));
            }
            people
        }
        Field::Attachments => {
            let mut names = Vec::new();
            for entry in record["attachments"].as_array().into_iter().flatten() {
                names.push(normal(entry[0].as_str().unwrap_or_default()));
            }
            names.sort();
            names
        }
    }
}

fn pair(name: Option<&str>, address: Option<&str>) -> String {
    let name = name.map(normal).unwrap_or_default();
    format!("{name} <{}>", address.map(normal).unwrap_or_default())
}

/// NFC, with one blank for any run of blanks and none at the ends.
pub(crate) fn normal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.nfc());
    }
    out
}
