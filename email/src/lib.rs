//! One raw RFC 5322 message in, one [`ParsedEmail`] and its warnings out.
//!
//! Pure: no I/O, no clock, no state. It never fails and never panics: what a message does not say is absent, what
//! had to be cut or guessed is a [`Warning`]. Every loop is bounded by a constant of this file, and the two parsers
//! beneath (mail-parser, html5ever) only see input that `guard` and `html` found harmless. It must not fetch, unpack
//! or execute anything a mail contains.
//!
//! Reading order: `guard` (what the parser may see) → `headers` (over `words`,
//! `addresses`, `dates`) → `structure` (which part is the text) → `body` → `charset` (bytes of a part to text) →
//! `html` (one parse for text, hidden text and sanitising) → `text` (Unicode) → `reply`. Beside the text:
//! `attachments`, `calendar`, `report`, `bounce`, `protection`.

mod addresses;
mod attachments;
mod body;
mod bounce;
mod calendar;
mod charset;
#[cfg(test)]
mod charset_tests;
#[cfg(test)]
mod corpus_tests;
mod dates;
mod enriched;
mod guard;
mod headers;
mod html;
mod parameters;
mod phrases;
#[cfg(any(test, feature = "promises"))]
pub mod promises;
mod protection;
mod reply;
mod report;
mod shifted;
mod structure;
#[cfg(test)]
mod tests;
mod text;
mod tnef;
mod transfer;
mod uuencode;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use chrono::{DateTime, SecondsFormat, Utc};
use mail_parser::{Message, MessageParser, PartType};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use calendar::{Attendee, Calendar, Event};
pub use protection::Protection;
pub use reply::reply_text;
pub use report::{Recipient, Report, ReportKind};

/// Longest raw message that is read, in bytes; what follows is left out. Gmail's own cap for one message is lower.
pub const MAX_RAW_BYTES: usize = 64 << 20;
/// Longest header block of a message that is read, in bytes.
pub const MAX_HEADER_BYTES: usize = 256 << 10;
/// Longest value of one header field or file name that is kept, in bytes.
pub const MAX_FIELD_BYTES: usize = 8 << 10;
/// Most people of one address field that are kept.
pub const MAX_MAILBOXES: usize = 1_000;
/// Most message ids of `In-Reply-To` or `References`, and most `Authentication-Results`, that are kept.
pub const MAX_IDS: usize = 500;
/// Most attachments that are described.
pub const MAX_ATTACHMENTS: usize = 1_000;
/// Most body parts that are joined to one text.
pub const MAX_BODY_PARTS: usize = 200;
/// Deepest nested multiparts that are read.
pub const MAX_DEPTH: usize = 100;
/// Deepest attached messages of which the text is read, where a mail consists of nothing else.
pub const MAX_NESTED_MESSAGES: usize = 5;
/// Most entries of a calendar that are kept.
pub const MAX_EVENTS: usize = 20;
/// Most people of a calendar entry that are kept.
pub const MAX_ATTENDEES: usize = 200;
/// Most recipients of a report that are kept.
pub const MAX_REPORT_RECIPIENTS: usize = 200;
/// Most quotes, and most signatures, of which the places are kept; what is beyond them counts as written.
pub const MAX_RANGES: usize = 2_000;
/// Longest readable text, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longest HTML that is read, in bytes; what follows is left out.
pub const MAX_HTML_BYTES: usize = 1 << 20;
/// Longest sanitised HTML, in bytes; what would follow is left out, though elements are ended.
pub const MAX_CLEAN_HTML_BYTES: usize = 2 * MAX_HTML_BYTES;
/// Deepest elements of HTML that are told apart; tags that lie deeper are left out, their text is not.
pub const MAX_HTML_DEPTH: usize = 256;
/// By how much the elements of HTML may outgrow their source, in bytes, where formatting that was left open is opened
/// again and again; then formatting is left out.
pub const MAX_HTML_GROWTH: usize = 256 << 10;
/// Longest link target that is written into the text, in bytes; longer ones are tracking codes and stay in the HTML.
pub const MAX_LINK_BYTES: usize = 300;

/// What a mail says, cleaned and bounded. No string holds a NUL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedEmail {
    /// Readable text: NFC, LF line ends, no control characters, without hidden text.
    pub text: String,
    /// Subject, decoded.
    pub subject: Option<String>,
    /// Authors.
    pub from: Vec<Mailbox>,
    /// Recipients.
    pub to: Vec<Mailbox>,
    /// Recipients of copies.
    pub cc: Vec<Mailbox>,
    /// Recipients of blind copies (only in mail one sent).
    pub bcc: Vec<Mailbox>,
    /// Where answers shall go.
    pub reply_to: Vec<Mailbox>,
    /// The Date field, as the sender wrote it; where it cannot be read, when the last server received the mail.
    pub date: Option<DateTime<Utc>>,
    /// Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// Message ids of In-Reply-To without angle brackets.
    pub in_reply_to: Vec<String>,
    /// Message ids of References, oldest first, without angle brackets.
    pub references: Vec<String>,
    /// The identifier of List-Id (RFC 2919), without its description.
    pub list_id: Option<String>,
    /// Auto-Submitted (RFC 3834).
    pub auto_submitted: Option<String>,
    /// Every Authentication-Results field, topmost first: the receiving server adds its own on top, and only those
    /// that name that server (RFC 8601, 5) may be believed.
    pub authentication_results: Vec<String>,
    /// Everything that is not the body.
    pub attachments: Vec<Attachment>,
    /// What the mail claims to be signed or encrypted with; nothing is verified.
    pub protection: Vec<Protection>,
    /// What its first calendar part says.
    pub calendar: Option<Calendar>,
    /// What it reports of other mail: a bounce, a receipt, a complaint.
    pub report: Option<Report>,
    /// Which fragment of a longer message it is.
    pub partial: Option<Partial>,
    /// Sanitised HTML, where the mail had HTML.
    pub html: Option<String>,
    /// `text` without `quotes` and `signatures`. None where there is neither: it would be `text` itself.
    pub reply_text: Option<String>,
    /// Begin and end of what is quoted (introductions included), in bytes of `text`: whole lines, in order.
    pub quotes: Vec<[usize; 2]>,
    /// Begin and end of signatures and footers (delimiters included), in bytes of `text`: whole lines, in order.
    pub signatures: Vec<[usize; 2]>,
    /// SHA-256 of the raw message, lower-case hex.
    pub sha256: String,
    /// Length of the raw message, in bytes.
    pub size_bytes: u64,
    /// Text that was left out as a reader would not have seen it; one a kind.
    pub hidden: Vec<Hidden>,
    /// What was cut, guessed or left out; one a code.
    pub warnings: Vec<Warning>,
}

/// Text of one kind that a reader of the mail would not have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hidden {
    /// How it was hidden.
    pub kind: HiddenKind,
    /// How much there was, in bytes of UTF-8.
    pub size_bytes: u64,
}

/// Ways to hide text; their snake_case names are part of the stored record and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenKind {
    /// An element that is not displayed.
    DisplayNone,
    /// Not visible, or of an opacity near nothing.
    Invisible,
    /// A font too small to read.
    TinyFont,
    /// The colour of what is behind it, or none.
    SameColour,
    /// Placed off every screen.
    OffScreen,
    /// In a box of no size.
    Clipped,
    /// A comment of HTML; those that are conditions for some mail programs do not count.
    Comment,
    /// The description of an image too small to see.
    PixelAlt,
    /// Characters that show nothing.
    ZeroWidth,
    /// Characters of Unicode's tag block.
    TagCharacters,
    /// Characters that change the direction of text.
    BidiControls,
    /// Within an element that no mail program shows.
    Other,
}

impl HiddenKind {
    /// Whether it is text of HTML that somebody hid from readers.
    fn is_hidden_html(self) -> bool {
        match self {
            Self::DisplayNone
            | Self::Invisible
            | Self::TinyFont
            | Self::SameColour
            | Self::OffScreen
            | Self::Clipped
            | Self::PixelAlt
            | Self::Other => true,
            Self::Comment | Self::ZeroWidth | Self::TagCharacters | Self::BidiControls => false,
        }
    }
}

/// A person or list of an address field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mailbox {
    /// Display name, decoded.
    pub name: Option<String>,
    /// Address, as written.
    pub address: Option<String>,
}

/// What is known of an attachment; its content is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// File name without a path; for an unnamed attached message its subject.
    pub filename: Option<String>,
    /// Media type, lower-case, without parameters.
    pub mime_type: String,
    /// Decoded length, in bytes.
    pub size_bytes: u64,
    /// Content-ID without angle brackets, by which HTML refers to it.
    pub content_id: Option<String>,
    /// The name of what holds it: of a `winmail.dat`, or of an attached message whose text was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Where it lies, if the mail only says so (`message/external-body`). It is not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// Which fragment of a message a `message/partial` is (RFC 2046, 5.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partial {
    /// Names the whole message, the same in all fragments.
    pub id: Option<String>,
    /// Which fragment this is, from 1.
    pub number: Option<u32>,
    /// How many there are; only the last fragment has to say it.
    pub total: Option<u32>,
}

/// Something a reader of the record should know about how it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What happened.
    pub code: WarningCode,
    /// The particulars, for people.
    pub detail: String,
}

/// Kinds of warnings; their snake_case names are part of the stored record and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// No header was found; the text is the raw input.
    NotAMessage,
    /// A parser beneath gave up on this input.
    ParserFailed,
    /// Longer than [`MAX_RAW_BYTES`].
    LimitRawBytes,
    /// A header block longer than [`MAX_HEADER_BYTES`].
    LimitHeaderBytes,
    /// A field longer than [`MAX_FIELD_BYTES`].
    LimitFieldBytes,
    /// More than [`MAX_MAILBOXES`] people in a field.
    LimitMailboxes,
    /// More than [`MAX_IDS`] ids or results.
    LimitIds,
    /// More nested or parallel parts than can be read in bounded time.
    LimitParts,
    /// More than [`MAX_EVENTS`] entries of a calendar, or [`MAX_ATTENDEES`] people of one.
    LimitCalendar,
    /// More than [`MAX_REPORT_RECIPIENTS`] recipients of a report.
    LimitReport,
    /// More than [`MAX_RANGES`] quotes or signatures.
    LimitRanges,
    /// More than [`MAX_ATTACHMENTS`] attachments.
    LimitAttachments,
    /// More text than [`MAX_TEXT_BYTES`].
    LimitTextBytes,
    /// More HTML than [`MAX_HTML_BYTES`].
    LimitHtmlBytes,
    /// HTML nested, malformed or styled beyond what is kept; it was simplified.
    LimitHtmlDepth,
    /// HTML that changes each time it is put together; it was kept without its blocks.
    HtmlUnstable,
    /// Text of HTML that a reader would not have seen was left out; comments alone do not count.
    HiddenText,
    /// Zero-width, tag or direction-changing characters were left out.
    InvisibleCharacters,
    /// NUL bytes were left out.
    NulBytes,
    /// Text was not in the charset it claims, or claims none that is known.
    CharsetFallback,
    /// A part was not in the transfer encoding it claims, or ended early.
    TransferEncoding,
    /// The Date field is none.
    DateUnparsable,
    /// No Date field could be read; the date is that of the topmost Received field.
    DateFromReceived,
}

/// Collects warnings, one a code, so that a hostile mail cannot make the list long.
#[derive(Debug, Default)]
struct Warnings {
    list: Vec<Warning>,
    hidden: Vec<Hidden>,
}

impl Warnings {
    fn add(&mut self, code: WarningCode, detail: impl Into<String>) {
        if self.list.iter().any(|known| known.code == code) {
            return;
        }
        let detail = detail.into();
        self.list.push(Warning { code, detail });
    }

    /// Warns of hidden text in HTML, if there was any.
    fn flag_hidden(&mut self) {
        let mut bytes = 0;
        for hidden in &self.hidden {
            if hidden.kind.is_hidden_html() {
                bytes += hidden.size_bytes;
            }
        }
        if bytes > 0 {
            self.add(
                WarningCode::HiddenText,
                format!("{bytes} bytes of text that a reader would not see were left out"),
            );
        }
    }

    /// Counts text that was left out as nobody sees it.
    fn hide(&mut self, kind: HiddenKind, bytes: usize) {
        if bytes == 0 {
            return;
        }
        match self.hidden.iter_mut().find(|known| known.kind == kind) {
            Some(known) => known.size_bytes += bytes as u64,
            None => self.hidden.push(Hidden {
                kind,
                size_bytes: bytes as u64,
            }),
        }
    }
}

/// The parser reads the fields of MIME alone; what people wrote is read by `headers`.
static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .with_mime_headers()
        .default_header_ignore()
});

/// Reads a raw message. Never fails: what cannot be read is absent and named in the warnings.
pub fn parse(raw: &[u8]) -> ParsedEmail {
    let mut warnings = Warnings::default();
    let mut email = ParsedEmail {
        sha256: hex(&Sha256::digest(raw)),
        size_bytes: raw.len() as u64,
        ..ParsedEmail::default()
    };
    let input = guard::prepare(raw, &mut warnings);
    let parsed = with_message(&input, &mut warnings, |message, warnings| {
        if !is_message(message) {
            return false;
        }
        headers::read(message, &mut email, warnings);
        body::read(message, &mut email, warnings);
        true
    });
    if parsed != Ok(true) {
        unparsed(&input, parsed.is_err(), &mut email, &mut warnings);
    }
    let cut = reply::split(&email.text, &mut warnings);
    email.quotes = cut.quotes;
    email.signatures = cut.signatures;
    let mut taken = [email.quotes.as_slice(), &email.signatures].concat();
    if !taken.is_empty() {
        taken.sort_unstable();
        email.reply_text = Some(reply::reply_text(&email.text, &taken));
    }
    warnings.flag_hidden();
    email.hidden = warnings.hidden;
    email.warnings = warnings.list;
    email
}

/// Parses `input`, which `guard` has prepared, and shows it to `read`. False where it is no message, an error where
/// a parser gave up.
fn with_message(
    input: &[u8],
    warnings: &mut Warnings,
    read: impl FnOnce(&Message<'_>, &mut Warnings) -> bool,
) -> Result<bool, ()> {
    // The parser promises not to panic; a worker's life should not hang on that promise.
    match catch_unwind(AssertUnwindSafe(|| PARSER.parse(input))) {
        Ok(Some(message)) => {
            let found = read(&message, warnings);
            dismantle(message);
            Ok(found)
        }
        Ok(None) => Ok(false),
        Err(_) => Err(()),
    }
}

/// What can be known of bytes that the parser could make nothing of: the fields of a header, if there is one, and the
/// rest as it stands.
fn unparsed(input: &[u8], failed: bool, email: &mut ParsedEmail, warnings: &mut Warnings) {
    let body = if failed {
        headers::read_block(input, None, email, warnings);
        &input[guard::header_length(input)..]
    } else {
        input
    };
    email.text = text::finish(&String::from_utf8_lossy(body), warnings);
    if failed {
        warnings.add(
            WarningCode::ParserFailed,
            "the message parser gave up; the text is all that follows the header",
        );
    } else {
        warnings.add(WarningCode::NotAMessage, "no header field was found");
    }
}

/// A text that is no e-mail by the rules that the text of e-mails keeps: NFC, LF line ends, nothing that
/// hides or reorders text, at most [`MAX_TEXT_BYTES`]; and what was left out.
pub fn clean(raw: &str) -> (String, Vec<Warning>) {
    let mut warnings = Warnings::default();
    let text = text::finish(raw, &mut warnings);
    (text, warnings.list)
}

impl ParsedEmail {
    /// The keys of an e-mail's `meta_data` that come from the message itself; absent is null.
    pub fn meta_data(&self) -> Value {
        json!({
            "subject": self.subject,
            "from": self.from,
            "to": self.to,
            "cc": self.cc,
            "bcc": self.bcc,
            "reply_to": self.reply_to,
            "date": self.date.map(|date| date.to_rfc3339_opts(SecondsFormat::Micros, true)),
            "message_id": self.message_id,
            "in_reply_to": self.in_reply_to,
            "references": self.references,
            "list_id": self.list_id,
            "auto_submitted": self.auto_submitted,
            "authentication_results": self.authentication_results,
            "attachments": self.attachments,
            "protection": self.protection,
            "calendar": self.calendar,
            "report": self.report,
            "partial": self.partial,
            "html": self.html,
            "reply_text": self.reply_text,
            "quotes": self.quotes,
            "quote_offset": self.quotes.first().map(|range| range[0]),
            "signatures": self.signatures,
            "signature_offset": self.signatures.first().map(|range| range[0]),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "hidden": self.hidden,
            "warnings": self.warnings,
        })
    }
}

/// Whether the parser found more than lines it took for headers: a known field or a body.
fn is_message(message: &Message<'_>) -> bool {
    message.parts.len() > 1
        || message
            .headers()
            .iter()
            .any(|header| !header.name.is_other())
        || message.root_part().raw_body_offset() < message.root_part().raw_end_offset()
}

/// Drops a message level by level: the compiler's own drop recurses once a nested message and would overflow the
/// stack on thousands of them.
fn dismantle(message: Message<'_>) {
    let mut levels = vec![message];
    while let Some(level) = levels.pop() {
        for part in level.parts {
            if let PartType::Message(nested) = part.body {
                levels.push(nested);
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}
