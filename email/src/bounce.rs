//! Bounces that are plain words (RFC 3464 is not spoken everywhere): whose mail came back, and with which code. It
//! reads what the text states plainly, an address and an SMTP reply, and knows no mail server by name.

use super::report::{self, MAX_VALUE_BYTES, Recipient, Report, ReportKind};
use super::{Mailbox, ParsedEmail, Warnings, headers, text};

/// Most lines of a bounce that are read: what it has to say stands before the returned mail.
const MAX_LINES: usize = 400;
/// Local parts of senders that return mail.
const SENDERS: [&str; 6] = [
    "mailer-daemon",
    "mailerdaemon",
    "postmaster",
    "mail-daemon",
    "mmdf",
    "bounce-notice",
];
/// What subjects of bounces say, in lower case.
const SUBJECTS: [&str; 27] = [
    "undeliver",
    "delivery status",
    "delivery failure",
    "delivery failed",
    "delivery has failed",
    "delivery error",
    "delivery notification",
    "delivery problem",
    "delivery to ",
    "delivery warning",
    "failure delivery",
    "failure notice",
    "not be delivered",
    "not delivered",
    "non-delivery",
    "message delayed",
    "error sending your mail",
    "mail failed",
    "mail failure",
    "mail error",
    "mail system error",
    "message status",
    "returned mail",
    "returned to sender",
    "returned message",
    "could not deliver",
    "warning: could not send",
];
/// Beginnings of lines from which on a bounce quotes the mail it returns, in lower case, without dashes and blanks.
const RETURNED: [&str; 20] = [
    "original message",
    "original mail",
    "this is a copy of",
    "below this line is a copy",
    "below is a copy",
    "included is a copy",
    "a copy of the message",
    "message header",
    "message text follows",
    "the original message follows",
    "the header of the original",
    "the message headers",
    "the body of the message",
    "unsent message",
    "returned message",
    "headers of the original",
    "start of returned message",
    "begin original",
    "received: from",
    "received: by",
];
/// Words of lines whose addresses are there to be asked, or are none, in lower case.
const OTHERS: [&str; 8] = [
    "message-id",
    "envelope-from",
    "contact",
    "mailto:",
    "for help",
    "assistance",
    "questions",
    "please send mail",
];

/// Reads a bounce of words; none where the mail is no bounce or names nobody.
pub(super) fn read(email: &ParsedEmail, warnings: &mut Warnings) -> Option<Report> {
    if !is_bounce(email) {
        return None;
    }
    let mut report = Report {
        kind: ReportKind::Delivery,
        recipients: Vec::new(),
        original_message_id: None,
    };
    let mut open: Vec<Recipient> = Vec::new();
    let mut said = false;
    for line in email.text.lines().take(MAX_LINES) {
        let line = text::prefix(line.trim(), MAX_VALUE_BYTES);
        let lower = line
            .trim_start_matches(['-', '*', '=', '_', '|', '>', ' '])
            .to_lowercase();
        if RETURNED.iter().any(|start| lower.starts_with(start)) {
            break;
        }
        if let Some(address) = address_in(line, email, &lower)
            && !open
                .iter()
                .any(|known| known.address.as_deref() == Some(address))
        {
            // An address after a reply begins what is said of the next recipient.
            if said {
                flush(&mut open, &mut report, warnings);
                said = false;
            }
            let known = report
                .recipients
                .iter()
                .any(|known| known.address.as_deref() == Some(address));
            if !known {
                open.push(Recipient {
                    address: Some(address.to_owned()),
                    diagnostic: after(line, address)
                        .and_then(|words| headers::field(words, warnings)),
                    ..Recipient::default()
                });
            }
        }
        let status = enhanced(line);
        if status.is_none() && !has_reply(line) {
            continue;
        }
        for recipient in &mut open {
            if recipient.status.is_none() {
                recipient.status = status.map(str::to_owned);
            }
            if recipient.diagnostic.is_none() {
                recipient.diagnostic = headers::field(line, warnings);
            }
        }
        said = !open.is_empty();
    }
    flush(&mut open, &mut report, warnings);
    let delayed = email.subject.as_deref().is_some_and(|subject| {
        let lower = subject.to_lowercase();
        lower.contains("delay") || lower.contains("warning")
    });
    for recipient in &mut report.recipients {
        let temporary = recipient
            .status
            .as_deref()
            .map(|status| status.starts_with('4'));
        let action = if temporary.unwrap_or(delayed) {
            "delayed"
        } else {
            "failed"
        };
        recipient.action = Some(action.to_owned());
    }
    (!report.recipients.is_empty()).then_some(report)
}

fn flush(open: &mut Vec<Recipient>, report: &mut Report, warnings: &mut Warnings) {
    for recipient in open.drain(..) {
        report::push(report, recipient, warnings);
    }
}

/// A bounce comes from a server's own address, and says so in its subject where people may use that address too.
fn is_bounce(email: &ParsedEmail) -> bool {
    let mut from_server = false;
    for from in email.from.iter().take(1) {
        let address = from.address.as_deref().unwrap_or_default().to_lowercase();
        let local = address.split('@').next().unwrap_or_default();
        let name = from.name.as_deref().unwrap_or_default().to_lowercase();
        if local == "mailer-daemon" || name == "mailer-daemon" {
            return true;
        }
        from_server = SENDERS.contains(&local)
            || ["mail delivery", "mailer daemon", "postmaster"]
                .iter()
                .any(|words| name.contains(words));
    }
    let subject = email.subject.as_deref().unwrap_or_default().to_lowercase();
    from_server && SUBJECTS.iter().any(|words| subject.contains(words))
}

/// The first address of a line that is not the sender's or the server's own, or one to write to for help.
fn address_in<'a>(line: &'a str, email: &ParsedEmail, lower: &str) -> Option<&'a str> {
    if !line.contains('@') || OTHERS.iter().any(|word| lower.contains(word)) {
        return None;
    }
    for word in line.split(|ch: char| ch.is_whitespace() || "<>()[]{},;:\"'=".contains(ch)) {
        let word = word.trim_end_matches('.');
        let Some((local, domain)) = word.split_once('@') else {
            continue;
        };
        let whole = !local.is_empty()
            && !domain.contains('@')
            && domain.contains('.')
            && domain
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        let own = |people: &[Mailbox]| {
            people.iter().any(|person| {
                person
                    .address
                    .as_deref()
                    .is_some_and(|known| known.eq_ignore_ascii_case(word))
            })
        };
        let server = SENDERS.contains(&local.to_lowercase().as_str());
        if whole && !server && !own(&email.to) && !own(&email.from) {
            return Some(word);
        }
    }
    None
}

/// What a line says after an address and a colon, where it is more than a word.
fn after<'a>(line: &'a str, address: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(address)?;
    let words = rest
        .trim_start_matches(['>', '"', ' '])
        .strip_prefix(':')?
        .trim();
    words.contains(' ').then_some(words)
}

/// A status code (RFC 3463) of a failure: `4.2.2`, `5.1.1`.
fn enhanced(line: &str) -> Option<&str> {
    for word in line.split(|ch: char| !ch.is_ascii_digit() && ch != '.') {
        let mut numbers = word.trim_matches('.').split('.');
        let class = numbers.next().unwrap_or_default();
        let (Some(subject), Some(detail), None) = (numbers.next(), numbers.next(), numbers.next())
        else {
            continue;
        };
        let short = |number: &str| (1..=3).contains(&number.len());
        if matches!(class, "4" | "5") && short(subject) && short(detail) {
            return Some(word.trim_matches('.'));
        }
    }
    None
}

/// Whether a line quotes the reply of an SMTP server: a code of a failure before words.
fn has_reply(line: &str) -> bool {
    let mut words = line
        .split([' ', '\t', '-', ':', '(', '<', '>'])
        .filter(|word| !word.is_empty());
    let code = words.any(|word| {
        word.len() == 3
            && word.starts_with(['4', '5'])
            && word.bytes().all(|byte| byte.is_ascii_digit())
    });
    code && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounce(subject: &str, text: &str) -> Option<Report> {
        let person = |address: &str| Mailbox {
            name: None,
            address: Some(address.to_owned()),
        };
        let email = ParsedEmail {
            from: vec![person("MAILER-DAEMON@mx.example.com")],
            to: vec![person("me@example.com")],
            subject: Some(subject.to_owned()),
            text: text.to_owned(),
            ..ParsedEmail::default()
        };
        read(&email, &mut Warnings::default())
    }

    #[test]
    fn addresses_and_replies_are_read_from_words() {
        let text = "Hi. This is the mail server at mx.example.com.\nI could not deliver the mail of me@example.com.\n\n\
                    <a@example.org>:\n192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 no such user\n\n\
                    <b@example.org>:\nRemote host said: 452 mailbox full\nFor help contact help@example.net.\n\n\
                    --- Below this line is a copy of the message.\n\nTo: c@example.org\n";
        let report = bounce("failure notice", text).unwrap();
        let mut lines = Vec::new();
        for recipient in &report.recipients {
            lines.push(format!(
                "{:?} {:?} {:?} {:?}",
                recipient.address.as_deref().unwrap(),
                recipient.action.as_deref().unwrap(),
                recipient.status.as_deref(),
                recipient.diagnostic.as_deref()
            ));
        }
        assert_eq!(
            lines,
            [
                r#""a@example.org" "failed" Some("5.1.1") Some("Remote host said: 550 5.1.1 no such user")"#,
                r#""b@example.org" "failed" None Some("Remote host said: 452 mailbox full")"#
            ]
        );
    }

    #[test]
    fn one_reply_may_be_about_many() {
        let text =
            "These addresses failed:\n a@example.org\n b@example.org\nReason: 4.4.7 expired\n";
        let report = bounce("Delivery delayed, warning: could not send", text).unwrap();
        assert_eq!(report.recipients.len(), 2);
        assert_eq!(report.recipients[1].action.as_deref(), Some("delayed"));
        assert_eq!(report.recipients[1].status.as_deref(), Some("4.4.7"));
    }

    #[test]
    fn words_after_an_address_are_the_reason() {
        let report = bounce(
            "failure notice",
            "<a@example.org>: Envelope expired\nMessage-ID <1@example.net>\n",
        )
        .unwrap();
        assert_eq!(report.recipients.len(), 1);
        assert_eq!(
            report.recipients[0].diagnostic.as_deref(),
            Some("Envelope expired")
        );
    }

    #[test]
    fn ordinary_mail_is_no_bounce() {
        let mut email = ParsedEmail {
            from: vec![Mailbox {
                name: Some("Postmaster".to_owned()),
                address: Some("postmaster@example.com".to_owned()),
            }],
            subject: Some("Lunch".to_owned()),
            text: "<a@example.org> 550 5.1.1 no".to_owned(),
            ..ParsedEmail::default()
        };
        assert_eq!(read(&email, &mut Warnings::default()), None);
        email.subject = Some("Undeliverable: Lunch".to_owned());
        assert!(read(&email, &mut Warnings::default()).is_some());
        assert_eq!(bounce("failure notice", "nobody is named, 550 5.1.1"), None);
    }

    #[test]
    fn numbers_that_are_no_codes_are_left() {
        assert_eq!(enhanced("version 5.1 of 10.5.1.1 and 3.1.1"), None);
        assert_eq!(enhanced("(#5.7.1)."), Some("5.7.1"));
        assert!(!has_reply("ended with 550") && has_reply("550-rejected"));
        assert!(!has_reply("in 2550 years"));
    }
}
