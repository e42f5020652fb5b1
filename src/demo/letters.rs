//! The kinds of mail in a generated mailbox, one function a kind: conversations, newsletters,
//! receipts, invitations, notes, files and spam; other scripts and broken mail are in `odd_letters`.
//! Everything in a letter follows from its [`Sheet`], so the same seed writes the same bytes. Nobody
//! in it exists.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use mail_builder::{
    MessageBuilder,
    headers::{content_type::ContentType, raw::Raw},
    mime::MimePart,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// The owner of the mailbox: name and address.
pub const OWNER: (&str, &str) = ("Alex", "alex@example.com");

/// Who writes to the owner.
pub const PEOPLE: [(&str, &str); 12] = [
    ("Alice", "alice@example.com"),
    ("Bob", "bob@example.org"),
    ("Carol", "carol@example.com"),
    ("Dave", "dave@example.org"),
    ("Eve", "eve@example.com"),
    ("Frank", "frank@example.org"),
    ("Grace", "grace@example.com"),
    ("Heidi", "heidi@example.org"),
    ("Zoë", "zoe@example.com"),
    ("José", "jose@example.org"),
    ("Иван", "ivan@example.org"),
    ("花子", "hanako@example.com"),
];

/// What conversations are about.
pub const TOPICS: [&str; 14] = [
    "Plans for Saturday",
    "Garden fence",
    "Budget for the second quarter",
    "Train tickets to the coast",
    "Reading group: next book",
    "Offer for the kitchen",
    "Minutes of Tuesday",
    "Café or office?",
    "School play",
    "Photos of the hike 🏔",
    "Bicycle repair",
    "Draft of the report",
    "Moving boxes",
    "Choir rehearsal",
];

const OPENINGS: [&str; 6] = ["Hi", "Hello", "Good morning", "Hey", "Dear all", "Servus"];
const CLOSINGS: [&str; 5] = ["Best", "See you", "Cheers", "Kind regards", "Talk soon 🙂"];

/// What people write, sentence by sentence.
pub const SENTENCES: [&str; 24] = [
    "I looked at the numbers again and they add up now.",
    "Could we move it to Thursday at half past four?",
    "The weather should hold until the evening.",
    "I attached what I have so far, it is still a draft.",
    "Nobody has answered my last message about the keys.",
    "The estimate came to 1,240.50 €, which is less than we feared.",
    "Let me know if that works for you, otherwise we find another day.",
    "I would rather take the early train, the late one is always full.",
    "My sister is bringing two friends, so we need a bigger table.",
    "The second chapter drags a little, but the third is worth it.",
    "Please do not forward this list, some of the addresses are private.",
    "We agreed to skip the printed version this year.",
    "The plumber comes between eight and ten, somebody has to be at home.",
    "I have put the pictures into the shared folder.",
    "That sounds good to me.",
    "There is one open question left: who pays the deposit?",
    "Here is the address again: 12 Example Street, second floor, left bell.",
    "From the old list I crossed out everything that is done.",
    "The new version is much easier to read – thank you for that.",
    "If it rains we meet in the library instead.",
    "Sorry for the late answer, it was a full week.",
    "Two of the boxes are still in the cellar.",
    "I can call you tomorrow after lunch.",
    "It’s a “maybe” from me, as always…",
];

const SHOPS: [(&str, &str); 5] = [
    ("Example Books", "orders@books.example.com"),
    ("Example Rail", "tickets@rail.example.org"),
    ("The Example Store", "no-reply@store.example.com"),
    ("Example Energy", "billing@energy.example.org"),
    ("Example Hosting", "invoices@hosting.example.com"),
];

const PAPERS: [(&str, &str); 5] = [
    ("Example Weekly", "news@weekly.example.com"),
    ("Deals by Example", "deals@offers.example.com"),
    ("The Example Gardener", "letter@garden.example.org"),
    ("Example City Library", "newsletter@library.example.org"),
    ("Example Dev Digest", "digest@dev.example.com"),
];

/// A grey pixel: the smallest picture there is.
const PIXEL_PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

/// What a letter is written from.
pub struct Sheet<'r> {
    /// Decides every word.
    pub random: &'r mut StdRng,
    /// The Date header, in seconds since 1970.
    pub date: i64,
    /// Distinct for every letter of a mailbox.
    pub serial: u64,
}

/// A place in a conversation.
pub struct Turn<'t> {
    /// Who writes.
    pub from: (&'t str, &'t str),
    /// To whom.
    pub to: (&'t str, &'t str),
    /// Without `Re: `.
    pub subject: &'t str,
    /// The Message-IDs before this one, oldest first.
    pub references: &'t [String],
    /// What is answered: who wrote it, and the text.
    pub quoted: Option<(&'t str, &'t str)>,
}

impl Sheet<'_> {
    /// The letter's Message-ID, without brackets.
    pub fn message_id(&self) -> String {
        format!("{:08x}.{:x}@mail.example.com", self.serial, self.date)
    }

    fn boundary(&self, level: u32) -> String {
        format!("=_{:08x}_{level}_{:x}", self.serial, self.date)
    }

    fn multipart<'x>(&self, subtype: &str, level: u32, parts: Vec<MimePart<'x>>) -> MimePart<'x> {
        let content_type = ContentType::new(format!("multipart/{subtype}"))
            .attribute("boundary", self.boundary(level));
        MimePart::new(content_type, parts)
    }

    /// A message with date, id, sender and recipient.
    pub(super) fn start<'x>(
        &self,
        from: (&'x str, &'x str),
        to: (&'x str, &'x str),
    ) -> MessageBuilder<'x> {
        MessageBuilder::new()
            .date(self.date)
            .message_id(self.message_id())
            .from(from)
            .to(to)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.choose(self.random).copied()
    }

    fn paragraph(&mut self, sentences: usize) -> String {
        let chosen: Vec<&str> = (0..sentences)
            .filter_map(|_| self.pick(&SENTENCES))
            .collect();
        chosen.join(" ")
    }

    /// What somebody writes: a greeting, a few paragraphs, a name.
    pub fn words(&mut self, from: &str, to: &str) -> String {
        let mut text = format!("{} {to},\n\n", self.pick(&OPENINGS).unwrap_or("Hi"));
        for _ in 0..self.random.random_range(1..=3) {
            let sentences = self.random.random_range(1..=4);
            text.push_str(&self.paragraph(sentences));
            text.push_str("\n\n");
        }
        text.push_str(self.pick(&CLOSINGS).unwrap_or("Best"));
        text.push('\n');
        text.push_str(from);
        text
    }

    /// One message of a conversation: text, and most times an HTML alternative, both quoting.
    pub fn turn(&mut self, turn: &Turn<'_>, text: &str) -> Vec<u8> {
        let mut plain = text.to_owned();
        let mut html = format!("<div dir=\"ltr\">{}</div>", paragraphs(text));
        if let Some((author, quoted)) = turn.quoted {
            let line = format!("On {} {author} wrote:", day(self.date - 86_400));
            plain = format!("{plain}\n\n{line}\n{}", quote(quoted));
            html = format!(
                "{html}<br><div class=\"gmail_quote\"><div>{line}<br></div><blockquote class=\"gmail_quote\" style=\"margin:0 0 0 .8ex;border-left:1px solid #ccc;padding-left:1ex\">{}</blockquote></div>",
                paragraphs(quoted)
            );
        }
        let mut message = self.start(turn.from, turn.to);
        message = match turn.references.last() {
            None => message.subject(turn.subject.to_owned()),
            Some(parent) => message
                .subject(format!("Re: {}", turn.subject))
                .in_reply_to(parent.clone())
                .references(turn.references),
        };
        let plain = MimePart::new("text/plain", plain);
        let body = match self.random.random_range(0..4) {
            0 => plain,
            _ => self.multipart(
                "alternative",
                0,
                vec![plain, MimePart::new("text/html", html)],
            ),
        };
        written(message.body(body))
    }

    /// A note to oneself: plain text, a list.
    pub fn note(&mut self) -> Vec<u8> {
        let mut text = String::from("Not to forget:\n");
        for _ in 0..self.random.random_range(2..6) {
            text.push_str("- ");
            text.push_str(&self.paragraph(1));
            text.push('\n');
        }
        let message = self.start(OWNER, OWNER).subject("Note");
        written(message.body(MimePart::new("text/plain", text)))
    }

    /// A newsletter as they are: tables in tables, a hidden preheader, a tracking pixel.
    pub fn newsletter(&mut self) -> Vec<u8> {
        let paper = self.pick(&PAPERS).unwrap_or(PAPERS[0]);
        let number = self.serial % 400 + 1;
        let preheader = self.paragraph(1);
        let mut rows = String::new();
        let mut plain = format!("{} no. {number}\n\n", paper.0);
        for article in 1..=self.random.random_range(3..9) {
            let (title, sentences) = (self.paragraph(1), self.random.random_range(2..6));
            let text = self.paragraph(sentences);
            rows.push_str(&format!(
                "<tr><td style=\"padding:16px 24px\"><table width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr><td width=\"120\" valign=\"top\"><img src=\"https://img.example.com/{number}/{article}.jpg\" width=\"120\" height=\"90\" alt=\"\"></td><td valign=\"top\" style=\"font:14px/20px Arial,sans-serif;color:#333333;padding-left:16px\"><h2 style=\"margin:0 0 8px;font-size:18px\">{title}</h2>{text} <a href=\"https://click.example.com/c/{number}/{article}?u=4711\" style=\"color:#0b57d0\">Read&nbsp;more&nbsp;»</a></td></tr></table></td></tr>\r\n"
            ));
            plain.push_str(&format!("* {title}\n{text}\n\n"));
        }
        let html = format!(
            "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{name}</title><style>@media only screen and (max-width:600px){{.wrap{{width:100%!important}}}}</style></head><body style=\"margin:0;background:#f4f4f4\"><div style=\"display:none;max-height:0;overflow:hidden;font-size:1px;color:#f4f4f4\">{preheader}&zwnj;&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;</div><table role=\"presentation\" width=\"100%\" bgcolor=\"#f4f4f4\"><tr><td align=\"center\"><table class=\"wrap\" role=\"presentation\" width=\"600\" bgcolor=\"#ffffff\"><tr><td style=\"padding:24px;font:bold 24px Georgia,serif\">{name} <span style=\"color:#999\">no. {number}</span></td></tr>\r\n{rows}<tr><td style=\"padding:24px;font:11px Arial;color:#999\">You get this because you signed up. <a href=\"https://click.example.com/unsubscribe?u=4711\">Unsubscribe</a> · Example Press, 1 Example Square</td></tr></table></td></tr></table><img src=\"https://track.example.com/o/{number}.gif\" width=\"1\" height=\"1\" alt=\"\"></body></html>",
            name = paper.0
        );
        let message = self
            .start(paper, OWNER)
            .subject(format!("{} no. {number}: {preheader}", paper.0))
            .header(
                "List-Unsubscribe",
                Raw::new("<https://click.example.com/u/4711>"),
            )
            .header("Precedence", Raw::new("bulk"));
        let html = MimePart::new("text/html", html);
        let body = match self.random.random_range(0..3) {
            0 => html,
            _ => {
                let plain = MimePart::new("text/plain", plain);
                self.multipart("alternative", 0, vec![plain, html])
            }
        };
        written(message.body(body))
    }

    /// A shop's receipt, HTML with amounts, now and then with the invoice as a PDF.
    pub fn receipt(&mut self) -> Vec<u8> {
        let shop = self.pick(&SHOPS).unwrap_or(SHOPS[0]);
        let order = format!("{}-{:07}", day(self.date).replace('-', ""), self.serial);
        let mut rows = String::new();
        let mut cents = 0;
        for item in ["Paperback", "Day ticket", "Delivery", "Notebook A5"] {
            let price: u32 = self.random.random_range(199..4999);
            cents += price;
            rows.push_str(&format!(
                "<tr><td>{item}</td><td align=\"right\">{}.{:02}&nbsp;€</td></tr>",
                price / 100,
                price % 100
            ));
        }
        let total = format!("{}.{:02} €", cents / 100, cents % 100);
        let html = format!(
            "<html><body><p>Thank you for your order <b>{order}</b>.</p><table>{rows}<tr><td><b>Total</b></td><td align=\"right\"><b>{total}</b></td></tr></table><p>This message was sent by a machine.</p></body></html>"
        );
        let message = self
            .start(shop, OWNER)
            .subject(format!("Your receipt {order} ({total})"));
        let html = MimePart::new("text/html", html);
        let body = match self.random.random_range(0..3) {
            0 => {
                let pdf = MimePart::new("application/pdf", pdf(&format!("{order} {total}")))
                    .attachment(format!("invoice-{order}.pdf"));
                self.multipart("mixed", 0, vec![html, pdf])
            }
            _ => html,
        };
        written(message.body(body))
    }

    /// An invitation: text, HTML and a text/calendar part that asks for an answer.
    pub fn invitation(&mut self) -> Vec<u8> {
        let host = self.pick(&PEOPLE).unwrap_or(PEOPLE[0]);
        let topic = self.pick(&TOPICS).unwrap_or(TOPICS[0]);
        let start = stamp(self.date + 3 * 86_400);
        let end = stamp(self.date + 3 * 86_400 + 3600);
        let calendar = format!(
            "BEGIN:VCALENDAR\r\nPRODID:-//Example//Calendar//EN\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:{:08x}@calendar.example.com\r\nDTSTAMP:{}\r\nDTSTART:{start}\r\nDTEND:{end}\r\nSUMMARY:{topic}\r\nLOCATION:Room 1\\, Example House\r\nORGANIZER;CN={}:mailto:{}\r\nATTENDEE;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:{}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
            self.serial,
            stamp(self.date),
            host.0,
            host.1,
            OWNER.1
        );
        let text = format!(
            "{} invites you: {topic}\nWhen: {start}\nWhere: Room 1",
            host.0
        );
        let html = paragraphs(&text);
        let invite = ContentType::new("text/calendar")
            .attribute("charset", "utf-8")
            .attribute("method", "REQUEST");
        let parts = vec![
            MimePart::new("text/plain", text),
            MimePart::new("text/html", html),
            MimePart::new(invite, calendar),
        ];
        let body = self.multipart("alternative", 0, parts);
        let message = self.start(host, OWNER);
        written(message.subject(format!("Invitation: {topic}")).body(body))
    }

    /// A mail with files: a PDF, a picture shown in the text, a table.
    pub fn with_files(&mut self) -> Vec<u8> {
        let from = self.pick(&PEOPLE).unwrap_or(PEOPLE[0]);
        let text = self.words(from.0, OWNER.0);
        let html = format!(
            "{}<p><img src=\"cid:logo\" alt=\"logo\"></p>",
            paragraphs(&text)
        );
        let picture = STANDARD.decode(PIXEL_PNG).unwrap_or_default();
        let alternative = vec![
            MimePart::new("text/plain", text.clone()),
            MimePart::new("text/html", html),
        ];
        let related = vec![
            self.multipart("alternative", 2, alternative),
            MimePart::new("image/png", picture).inline().cid("logo"),
        ];
        let mut table = String::from("item,count\r\n");
        for item in 0..self.random.random_range(20..200) {
            table.push_str(&format!(
                "part {item},{}\r\n",
                self.random.random_range(1..99)
            ));
        }
        let parts = vec![
            self.multipart("related", 1, related),
            MimePart::new("application/pdf", pdf(&text)).attachment("Übersicht März.pdf"),
            MimePart::new("text/csv", table).attachment("parts.csv"),
        ];
        let body = self.multipart("mixed", 0, parts);
        written(
            self.start(from, OWNER)
                .subject("The files, as promised")
                .body(body),
        )
    }

    /// Unwanted mail, as it comes.
    pub fn spam(&mut self) -> Vec<u8> {
        let hidden = self.paragraph(5);
        let html = format!(
            "<html><body><center><font size=7 color=red>You have WON {} €</font><p>Click <a href=\"http://win.example.org/?{:x}\">here</a><div style=\"font-size:0\">{}</div></center>",
            self.random.random_range(1000..9_999_999),
            self.serial,
            hidden
        );
        let message = self
            .start(("Prize Office", "winner@win.example.org"), OWNER)
            .subject("Congratulation!!! You are chosen");
        written(message.body(MimePart::new("text/html", html)))
    }
}

/// The bytes of a message.
pub(super) fn written(message: MessageBuilder<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.serialize(&mut bytes);
    bytes
}

fn quote(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("> {line}")).collect();
    lines.join("\n")
}

fn paragraphs(text: &str) -> String {
    let mut html = String::new();
    for paragraph in text.split("\n\n") {
        let escaped = paragraph.replace('&', "&amp;").replace('<', "&lt;");
        html.push_str(&format!("<p>{}</p>", escaped.replace('\n', "<br>")));
    }
    html
}

fn day(seconds: i64) -> String {
    let time = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y-%m-%d").to_string()
}

/// A time as calendars write it.
fn stamp(seconds: i64) -> String {
    let time = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y%m%dT%H%M%SZ").to_string()
}

/// One page with one line on it.
fn pdf(line: &str) -> Vec<u8> {
    let line: String = line
        .chars()
        .filter(|character| character.is_ascii_graphic() || *character == ' ')
        .filter(|character| !matches!(character, '(' | ')' | '\\'))
        .collect();
    let page = format!("BT /F1 12 Tf 72 720 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut table = String::from("0000000000 65535 f \n");
    for (index, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", index + 1));
    }
    let table_at = file.len();
    file.push_str(&format!(
        "xref\n0 {}\n{table}trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table_at}\n%%EOF\n",
        objects.len() + 1,
        objects.len() + 1
    ));
    file.into_bytes()
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders};
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn attachments_and_invitations_are_found_by_a_parser() {
        let mut random = StdRng::seed_from_u64(1);
        let mut sheet = Sheet {
            random: &mut random,
            date: 1_780_000_000,
            serial: 7,
        };
        let raw = sheet.with_files();
        let mail = MessageParser::default().parse(&raw).unwrap();
        let names: Vec<_> = mail
            .attachments()
            .filter_map(|part| part.attachment_name())
            .collect();
        assert_eq!(names, ["Übersicht März.pdf", "parts.csv"]);
        let raw = sheet.invitation();
        let mail = MessageParser::default().parse(&raw).unwrap();
        let calendar = mail.parts.iter().find(|part| {
            part.content_type()
                .is_some_and(|ct| ct.subtype() == Some("calendar"))
        });
        assert!(calendar.is_some());
    }
}
