//! A realistic mailbox out of a seed, and mail for benchmarks out of an index. The same seed gives
//! the same mailbox, to the byte. It decides what kinds of mail there are, when they came and which
//! labels they bear; [`super::letters`] writes them.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    arrival::{Arrival, Raw},
    letters::{OWNER, PEOPLE, SENTENCES, Sheet, TOPICS, Turn},
    mailbox::Mailbox,
};

/// When the mailbox ends, in seconds since 1970: 2026-10-01.
const END: i64 = 1_790_812_800;
/// How far back it goes, in seconds: a year and a half.
const SPAN: i64 = 548 * 86_400;
/// How far apart benchmark messages are, in milliseconds.
const BENCH_STEP_MS: i64 = 60_000;
/// The share of benchmark messages without an HTML alternative is one in so many.
const BENCH_PLAIN_EVERY: u64 = 5;

/// One mail before it is put into the mailbox.
struct Planned {
    date: i64,
    labels: Vec<String>,
    raw: Vec<u8>,
}

/// Writes `count` messages.
struct Writer {
    random: StdRng,
    planned: Vec<Planned>,
    count: usize,
    receipts: String,
    projects: String,
}

/// A mailbox of `count` messages of a year and a half, with conversations, newsletters, receipts,
/// notes, invitations, files, many scripts and charsets, spam, trash, and a broken mail or two.
pub fn mailbox(count: usize, seed: u64) -> Mailbox {
    let mut mailbox = Mailbox::new(OWNER.1, seed);
    let receipts = mailbox.create_label("Receipts");
    let projects = mailbox.create_label("Projects/Garden");
    let mut writer = Writer {
        random: StdRng::seed_from_u64(seed),
        planned: Vec::with_capacity(count),
        count,
        receipts,
        projects,
    };
    writer.write_broken();
    while writer.planned.len() < count {
        writer.write_next();
    }
    let mut planned = writer.planned;
    planned.sort_by_key(|mail| mail.date);
    for mail in planned {
        mailbox.place(Arrival {
            id: None,
            thread: None,
            internal_date_ms: Some(mail.date * 1000),
            labels: mail.labels,
            raw: Raw::Bytes(mail.raw.into_boxed_slice().into()),
        });
    }
    mailbox
}

/// A mailbox of `count` messages of about `size` bytes that are made when they are asked for.
pub fn bench_mailbox(count: u64, size: u32) -> Mailbox {
    let mut mailbox = Mailbox::new(OWNER.1, count);
    let newest_ms = END * 1000;
    for index in 0..count {
        let age = i64::try_from(count - index).unwrap_or(0);
        mailbox.place(Arrival {
            id: None,
            thread: None,
            internal_date_ms: Some(newest_ms - age * BENCH_STEP_MS),
            labels: vec!["INBOX".to_owned(), "CATEGORY_PERSONAL".to_owned()],
            raw: Raw::Generated { index, size },
        });
    }
    mailbox
}

/// A new mail from Alice, as one that arrives while the demo runs.
pub fn arrival(serial: u64, seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed ^ serial);
    let mut sheet = Sheet {
        random: &mut random,
        date: END + i64::try_from(serial % 86_400).unwrap_or(0),
        // Above every serial of a generated mailbox, so that no Message-ID comes twice.
        serial: serial | 1 << 31,
    };
    let text = sheet.words(PEOPLE[0].0, OWNER.0);
    let turn = Turn {
        from: PEOPLE[0],
        to: OWNER,
        subject: "News of today",
        references: &[],
        quoted: None,
    };
    sheet.turn(&turn, &text)
}

impl Writer {
    fn sheet(&mut self, date: i64) -> Sheet<'_> {
        Sheet {
            serial: self.planned.len() as u64,
            random: &mut self.random,
            date,
        }
    }

    fn some_date(&mut self) -> i64 {
        END - self.random.random_range(0..SPAN)
    }

    fn add(&mut self, date: i64, labels: &[&str], raw: Vec<u8>) {
        let mut labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        // What came in the last month is partly unread, older mail hardly ever.
        let unread_percent = if END - date < 30 * 86_400 { 40 } else { 3 };
        let sent = labels.iter().any(|label| label == "SENT");
        if !sent && self.random.random_range(0..100) < unread_percent {
            labels.push("UNREAD".to_owned());
        }
        if self.random.random_range(0..100) < 3 {
            labels.push("STARRED".to_owned());
        }
        // Some of the mail went to the trash.
        if !sent && self.random.random_range(0..100) < 2 {
            labels.retain(|label| label != "INBOX");
            labels.push("TRASH".to_owned());
        }
        self.planned.push(Planned { date, labels, raw });
    }

    /// One of each broken kind, where there is room for them beside the others.
    fn write_broken(&mut self) {
        for kind in 0..4.min(self.count / 20) {
            let date = self.some_date();
            let raw = self.sheet(date).broken(kind);
            let labels = vec!["INBOX".to_owned()];
            self.planned.push(Planned { date, labels, raw });
        }
    }

    fn write_next(&mut self) {
        let date = self.some_date();
        match self.random.random_range(0..100) {
            0..=17 => self.write_conversation(date),
            18..=47 => {
                let raw = self.sheet(date).newsletter();
                self.add(date, &["INBOX", "CATEGORY_PROMOTIONS"], raw);
            }
            48..=64 => {
                let receipts = self.receipts.clone();
                let raw = self.sheet(date).receipt();
                self.add(date, &["CATEGORY_UPDATES", &receipts], raw);
            }
            65..=74 => {
                let raw = self.sheet(date).note();
                self.add(date, &["INBOX", "SENT"], raw);
            }
            75..=79 => {
                let raw = self.sheet(date).invitation();
                self.add(date, &["INBOX", "IMPORTANT"], raw);
            }
            80..=86 => {
                let raw = self.sheet(date).with_files();
                self.add(date, &["INBOX", "CATEGORY_PERSONAL"], raw);
            }
            87..=95 => {
                let raw = self.sheet(date).foreign();
                self.add(date, &["INBOX", "CATEGORY_PERSONAL"], raw);
            }
            _ => {
                let raw = self.sheet(date).spam();
                self.planned.push(Planned {
                    date,
                    labels: vec!["SPAM".to_owned(), "UNREAD".to_owned()],
                    raw,
                });
            }
        }
    }

    /// The owner and somebody else, in turns, each quoting the turn before.
    fn write_conversation(&mut self, start: i64) {
        let other = *PEOPLE.choose(&mut self.random).unwrap_or(&PEOPLE[0]);
        let subject = *TOPICS.choose(&mut self.random).unwrap_or(&TOPICS[0]);
        let about_garden = subject.contains("Garden");
        let length = self.random.random_range(2..9);
        let projects = self.projects.clone();
        let mut references: Vec<String> = Vec::new();
        let mut before: Option<(&str, String)> = None;
        let mut date = start;
        for number in 0..length {
            if self.planned.len() == self.count || date > END {
                return;
            }
            let own = number % 2 == 1;
            let (from, to) = if own { (OWNER, other) } else { (other, OWNER) };
            let mut sheet = self.sheet(date);
            let text = sheet.words(from.0, to.0);
            let turn = Turn {
                from,
                to,
                subject,
                references: &references,
                quoted: before.as_ref().map(|(who, text)| (*who, text.as_str())),
            };
            let raw = sheet.turn(&turn, &text);
            references.push(sheet.message_id());
            before = Some((from.0, text));
            let mut labels = match own {
                true => vec!["SENT"],
                false => vec!["INBOX", "CATEGORY_PERSONAL", "IMPORTANT"],
            };
            if about_garden {
                labels.push(&projects);
            }
            self.add(date, &labels, raw);
            date += self.random.random_range(600..2 * 86_400);
        }
    }
}

/// A message of about `size` bytes out of its index, in microseconds; four in five have an HTML
/// alternative beside the text, which then takes a quarter of the bytes.
pub fn bench_message(index: u64, size: usize) -> Vec<u8> {
    let mut mail = Vec::with_capacity(size + 512);
    let mut next = index;
    let person = PEOPLE[(index % 8) as usize];
    let headers = format!(
        "From: {} <{}>\r\nTo: {} <{}>\r\nSubject: Bench message {index}\r\nDate: Thu, 1 Oct 2026 12:{:02}:{:02} +0000\r\nMessage-ID: <bench.{index}@mail.example.com>\r\nMIME-Version: 1.0\r\n",
        person.0,
        person.1,
        OWNER.0,
        OWNER.1,
        index / 60 % 60,
        index % 60
    );
    mail.extend_from_slice(headers.as_bytes());
    let plain =
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    mail.extend_from_slice(format!("X-Bench-Snippet: {}\r\n", bench_snippet(index)).as_bytes());
    if index % BENCH_PLAIN_EVERY == BENCH_PLAIN_EVERY - 1 {
        mail.extend_from_slice(plain);
        bench_text(&mut mail, size, &mut next);
        return mail;
    }
    mail.extend_from_slice(
        b"Content-Type: multipart/alternative; boundary=\"bench\"\r\n\r\n--bench\r\n",
    );
    mail.extend_from_slice(plain);
    bench_text(&mut mail, size / 4, &mut next);
    mail.extend_from_slice(b"\r\n--bench\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<html><head><style>td{font:14px Arial}</style></head><body><div style=\"display:none\">Preheader</div><table width=\"600\" align=\"center\">\r\n");
    while mail.len() + 300 < size {
        mail.extend_from_slice(b"<tr><td style=\"padding:8px 16px;color:#333\" valign=\"top\"><p><a href=\"https://click.example.com/c?u=4711\">");
        mail.extend_from_slice(bench_sentence(&mut next));
        mail.extend_from_slice(b"</a></p><p>");
        mail.extend_from_slice(bench_sentence(&mut next));
        mail.extend_from_slice(b" <b>");
        mail.extend_from_slice(bench_sentence(&mut next));
        mail.extend_from_slice(b"</b></p></td></tr>\r\n");
    }
    mail.extend_from_slice(b"</table></body></html>\r\n--bench--\r\n");
    mail
}

/// The snippet that goes with [`bench_message`], without making the message.
pub fn bench_snippet(index: u64) -> &'static str {
    // The only sentences that need no escaping are those without quotes; the first twenty have none.
    SENTENCES[(index % 20) as usize]
}

fn bench_text(mail: &mut Vec<u8>, until: usize, next: &mut u64) {
    while mail.len() < until {
        mail.extend_from_slice(bench_sentence(next));
        mail.extend_from_slice(b"\r\n");
    }
}

/// A sentence, by a step of a splitmix64 generator.
fn bench_sentence(next: &mut u64) -> &'static [u8] {
    *next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *next;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    SENTENCES[(mixed % SENTENCES.len() as u64) as usize].as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mail_parser::MessageParser;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_mailbox_to_the_byte() {
        let (once, again) = (mailbox(300, 7).ledger(), mailbox(300, 7).ledger());
        assert_eq!(once.len(), 300);
        assert_eq!(once, again);
        assert_ne!(once, mailbox(300, 8).ledger());
    }

    #[test]
    fn a_mailbox_holds_every_kind_and_no_message_twice() {
        let mailbox = mailbox(2000, 1);
        let ledger = mailbox.ledger();
        assert_eq!(mailbox.len(), 2000);
        let hashes: HashSet<_> = ledger.iter().map(|entry| &entry.sha256).collect();
        assert_eq!(hashes.len(), 2000);
        for label in [
            "SPAM", "TRASH", "UNREAD", "SENT", "STARRED", "Label_1", "Label_2",
        ] {
            let count = ledger
                .iter()
                .filter(|entry| entry.labels.iter().any(|own| own == label))
                .count();
            assert!((5..1000).contains(&count), "{label}: {count}");
        }
        assert!(mailbox.threads() < 1700, "{}", mailbox.threads());
        let mut messages_in_thread = std::collections::HashMap::new();
        for entry in &ledger {
            *messages_in_thread.entry(&entry.thread_id).or_insert(0) += 1;
        }
        assert!(messages_in_thread.values().any(|&count| count >= 8));
    }

    #[test]
    fn a_small_mailbox_has_exactly_the_messages_asked_for() {
        for count in [0, 1, 3, 50] {
            assert_eq!(mailbox(count, 3).len(), count);
        }
    }

    #[test]
    fn bench_messages_are_about_the_size_asked_for_and_mostly_html() {
        let mut html = 0;
        for index in 0..100 {
            let raw = bench_message(index, 8192);
            assert_eq!(raw, bench_message(index, 8192));
            assert!((7400..8500).contains(&raw.len()), "{}", raw.len());
            let mail = MessageParser::default().parse(&raw).unwrap();
            assert!(mail.body_text(0).unwrap().len() > 1000);
            html += usize::from(mail.body_html(0).unwrap().contains("<table"));
        }
        assert_eq!(html, 80);
    }

    #[test]
    fn a_bench_mailbox_keeps_no_bytes() {
        let mailbox = bench_mailbox(1000, 8192);
        assert_eq!(mailbox.len(), 1000);
        let ledger = mailbox.ledger();
        let hashes: HashSet<_> = ledger.into_iter().map(|entry| entry.sha256).collect();
        assert_eq!(hashes.len(), 1000);
    }
}
