//! Machine-readable reports: delivery status (RFC 3464), dispositions such as read receipts (RFC 8098) and feedback
//! about abuse (RFC 5965); as values and as readable lines. Bounces that are plain text are `bounce`'s.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mail_parser::{Message, PartType};
use serde::Serialize;

use super::structure::kind;
use super::{
    MAX_HEADER_BYTES, MAX_REPORT_RECIPIENTS, PARSER, ParsedEmail, WarningCode, Warnings, headers,
    text,
};

/// Longest value that is kept, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1_000;
/// Most of a part that is looked at, in bytes.
const MAX_READ_BYTES: usize = 256 << 10;
/// Most recipients that the readable lines name.
const MAX_NAMED: usize = 20;

/// What a report is about; the names are part of the stored record and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// Whether mail was delivered.
    Delivery,
    /// What became of mail that was delivered: it was displayed, deleted, …
    Disposition,
    /// What somebody who got mail thinks of it: abuse, fraud, …
    Feedback,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it is about.
    pub kind: ReportKind,
    /// One entry a recipient.
    pub recipients: Vec<Recipient>,
    /// Message-ID of the mail it is about, without angle brackets, where it is named or returned.
    pub original_message_id: Option<String>,
}

/// What a report says of one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recipient {
    /// Address.
    pub address: Option<String>,
    /// `failed`, `delayed`, `delivered`, `relayed` or `expanded`; of a disposition `displayed` and the like; of
    /// feedback its type.
    pub action: Option<String>,
    /// Status code (RFC 3463): `5.1.1`.
    pub status: Option<String>,
    /// What the refusing server said.
    pub diagnostic: Option<String>,
}

/// Reads all report parts of `message`.
pub(super) fn read(message: &Message<'_>, warnings: &mut Warnings) -> Option<Report> {
    let mut report: Option<Report> = None;
    let mut returned = None;
    for part in &message.parts {
        let (ctype, subtype) = kind(part);
        let about = match (ctype, subtype) {
            ("message", "delivery-status" | "global-delivery-status") => ReportKind::Delivery,
            ("message", "disposition-notification" | "global-disposition-notification") => {
                ReportKind::Disposition
            }
            ("message", "feedback-report") => ReportKind::Feedback,
            _ => {
                returned = returned.or_else(|| returned_id(&part.body, subtype));
                continue;
            }
        };
        let raw = match &part.body {
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => {
                String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_READ_BYTES)])
            }
            PartType::Text(text) => text.as_ref().into(),
            _ => continue,
        };
        let entry = report.get_or_insert_with(|| Report {
            kind: about,
            recipients: Vec::new(),
            original_message_id: None,
        });
        read_part(text::prefix(&raw, MAX_READ_BYTES), entry, warnings);
    }
    let mut report = report?;
    if report.original_message_id.is_none() {
        report.original_message_id = returned;
    }
    Some(report)
}

/// The Message-ID of the mail, or of its header alone, that a report returns.
fn returned_id(body: &PartType<'_>, subtype: &str) -> Option<String> {
    let mut inner = ParsedEmail::default();
    match body {
        PartType::Message(nested) => headers::read(nested, &mut inner, &mut Warnings::default()),
        PartType::Text(text) if subtype == "rfc822-headers" => {
            let head = text::prefix(text, MAX_HEADER_BYTES).trim_start();
            let parsed = catch_unwind(AssertUnwindSafe(|| PARSER.parse_headers(head))).ok()??;
            headers::read(&parsed, &mut inner, &mut Warnings::default());
        }
        _ => {}
    }
    inner.message_id
}

/// Reads groups of fields; the first one of a delivery status is about the report itself and names no recipient.
fn read_part(raw: &str, report: &mut Report, warnings: &mut Warnings) {
    let mut recipient = Recipient::default();
    let mut original = None;
    let mut more = Vec::new();
    let mut fields = unfolded(raw);
    // The end of the last group.
    fields.push(String::new());
    for line in fields {
        if line.trim().is_empty() {
            recipient.address = recipient.address.or_else(|| original.take());
            original = None;
            let group = std::mem::take(&mut recipient);
            if group.action.is_some() || group.status.is_some() {
                let mut address = more.drain(..);
                push(report, group.clone(), warnings);
                for next in address.by_ref() {
                    let address = Some(next);
                    push(
                        report,
                        Recipient {
                            address,
                            ..group.clone()
                        },
                        warnings,
                    );
                }
            }
            more.clear();
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = text::prefix(value.trim(), MAX_VALUE_BYTES);
        let untyped = value.split_once(';').map_or(value, |(_, rest)| rest).trim();
        let mut read = |raw: &str| headers::field(raw, warnings);
        match name.trim().to_ascii_lowercase().as_str() {
            "final-recipient" => recipient.address = read(bare(untyped)),
            "original-recipient" => original = read(bare(untyped)),
            "action" => recipient.action = read(&value.to_ascii_lowercase()),
            "status" => recipient.status = read(status_code(value)),
            "diagnostic-code" => recipient.diagnostic = read(untyped),
            // `manual-action/MDN-sent-manually; displayed/warning`
            "disposition" => recipient.action = read(&untyped.to_ascii_lowercase()),
            "original-message-id" => {
                report.original_message_id = read(value.trim_matches(['<', '>']));
            }
            "feedback-type" => recipient.action = read(&value.to_ascii_lowercase()),
            "original-rcpt-to" | "removal-recipient" => {
                let address = read(bare(untyped));
                if recipient.address.is_none() {
                    recipient.address = address;
                } else if address != recipient.address {
                    more.extend(address);
                }
            }
            _ => {}
        }
    }
}

/// Adds a recipient, up to the limit.
pub(super) fn push(report: &mut Report, recipient: Recipient, warnings: &mut Warnings) {
    if report.recipients.len() == MAX_REPORT_RECIPIENTS {
        warnings.add(
            WarningCode::LimitReport,
            format!("more than {MAX_REPORT_RECIPIENTS} recipients in a report"),
        );
        return;
    }
    report.recipients.push(recipient);
}

/// An address without angle brackets and comments.
fn bare(address: &str) -> &str {
    let address = address.split(" (").next().unwrap_or(address).trim();
    address.trim_matches(['<', '>'])
}

/// The code of a status without the comment some servers add.
fn status_code(value: &str) -> &str {
    value.split([' ', '(']).next().unwrap_or(value)
}

/// The recipients in readable lines.
pub(super) fn describe(report: &Report) -> String {
    let mut lines = Vec::new();
    for recipient in report.recipients.iter().take(MAX_NAMED) {
        let mut line = format!(
            "Report: {} {}",
            recipient.address.as_deref().unwrap_or("message"),
            recipient.action.as_deref().unwrap_or("with status")
        );
        if let Some(status) = &recipient.status {
            line.push_str(&format!(" ({status})"));
        }
        if let Some(diagnostic) = &recipient.diagnostic {
            line.push_str(&format!(": {diagnostic}"));
        }
        lines.push(line);
    }
    let more = report.recipients.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        lines.push(format!("Report: {more} more recipients"));
    }
    lines.join("\n")
}

/// Fields with their continuations, which begin with a blank (RFC 5322).
fn unfolded(raw: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in raw.lines() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some(last)) if !last.is_empty() && !more.trim().is_empty() => {
                last.push(' ');
                last.push_str(more.trim());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(kind: ReportKind, raw: &str) -> Report {
        let mut report = Report {
            kind,
            recipients: Vec::new(),
            original_message_id: None,
        };
        read_part(raw, &mut report, &mut Warnings::default());
        report
    }

    #[test]
    fn a_bounce_names_recipient_and_reason() {
        let raw = "Reporting-MTA: dns; mx.example.com\n\nFinal-Recipient: rfc822; <a@example.com>\nAction: Failed\n\
                   Status: 5.1.1 (bad)\nDiagnostic-Code: smtp; 550 no\n such user\n\n\
                   Original-Recipient: rfc822; b@example.com\nAction: delayed\n";
        let report = report_of(ReportKind::Delivery, raw);
        assert_eq!(
            describe(&report),
            "Report: a@example.com failed (5.1.1): 550 no such user\nReport: b@example.com delayed"
        );
        assert_eq!(report.recipients.len(), 2);
    }

    #[test]
    fn receipts_and_feedback_are_reports() {
        let receipt = report_of(
            ReportKind::Disposition,
            "Final-Recipient: rfc822;a@example.com\nOriginal-Message-ID: <1@example.com>\n\
             Disposition: manual-action/MDN-sent-manually; Displayed\n",
        );
        assert_eq!(describe(&receipt), "Report: a@example.com displayed");
        assert_eq!(
            receipt.original_message_id.as_deref(),
            Some("1@example.com")
        );
        let feedback = report_of(
            ReportKind::Feedback,
            "Feedback-Type: abuse\nOriginal-Rcpt-To: <a@example.com>\nOriginal-Rcpt-To: b@example.com\n",
        );
        assert_eq!(
            describe(&feedback),
            "Report: a@example.com abuse\nReport: b@example.com abuse"
        );
    }

    #[test]
    fn recipients_are_bounded() {
        let raw = "Final-Recipient: rfc822; a@example.com\nAction: failed\n\n"
            .repeat(MAX_REPORT_RECIPIENTS + 1);
        let mut report = report_of(ReportKind::Delivery, "");
        let mut warnings = Warnings::default();
        read_part(&raw, &mut report, &mut warnings);
        assert_eq!(report.recipients.len(), MAX_REPORT_RECIPIENTS);
        assert_eq!(warnings.list[0].code, WarningCode::LimitReport);
        assert!(describe(&report).ends_with("Report: 180 more recipients"));
    }
}
