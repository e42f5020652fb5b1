//! Local stand-in, replaced when merged.
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Stand-in.
#[derive(Debug, Clone, Copy)]
pub enum Warning {}

/// Stand-in.
#[derive(Debug)]
pub struct ParsedEmail {
    /// Text.
    pub text: String,
    /// Date.
    pub date: Option<DateTime<Utc>>,
    /// Warnings.
    pub warnings: Vec<Warning>,
    subject: Option<String>,
    sha256: String,
    size: usize,
}

impl ParsedEmail {
    /// Stand-in.
    pub fn meta_data(&self) -> Value {
        json!({"subject": self.subject, "date": self.date.map(crate::domain::time::rfc3339),
            "sha256": self.sha256, "size_bytes": self.size, "warnings": []})
    }
}

/// Stand-in.
pub fn parse(raw: &[u8]) -> ParsedEmail {
    let message = mail_parser::MessageParser::default().parse(raw);
    let message = message.as_ref();
    ParsedEmail {
        text: message
            .and_then(|m| m.body_text(0))
            .map(|t| t.into_owned())
            .unwrap_or_default(),
        date: message
            .and_then(|m| m.date())
            .and_then(|d| DateTime::from_timestamp(d.to_timestamp(), 0)),
        warnings: vec![],
        subject: message.and_then(|m| m.subject()).map(str::to_owned),
        sha256: format!("{:x}", Sha256::digest(raw)),
        size: raw.len(),
    }
}
