//! From a message of a file to an entry of a batch. Pure, and never fails: what cannot be understood is
//! stored with what is known.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{labels, mbox::Message, takeout::Takeout};
use crate::{
    domain::{
        IntegrationId,
        message_key::KEYED,
        record::{self, EMAIL, Record},
        sync::SkipReason,
    },
    sync::batch::Entry,
};

/// Labels of what is kept out unless it is asked for.
const HIDDEN: [&str; 2] = ["SPAM", "TRASH"];
/// So many bytes tell a message that is too long to be read.
const TELLING_BYTES: usize = 1 << 20;

/// A message as it came from a file.
#[derive(Debug)]
pub(super) struct Letter {
    raw: Vec<u8>,
    cut: bool,
    gmail_id: Option<u64>,
    /// When the file says that it came.
    received: Option<DateTime<Utc>>,
}

/// What is the same for all messages of an import.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) integration: IntegrationId,
    pub(super) include_spam_trash: bool,
}

impl Letter {
    /// A message of an mbox. In a file of Takeout the separator names it; in another it may have been
    /// quoted.
    pub(super) fn of_mbox(message: Message, takeout: bool) -> Self {
        Self {
            gmail_id: message.gmail_id().filter(|_| takeout),
            received: message.separator_date(),
            raw: message.raw,
            cut: message.cut,
        }
    }

    /// A file with one message.
    pub(super) fn of_file(raw: Vec<u8>, cut: bool) -> Self {
        Self {
            raw,
            cut,
            gmail_id: None,
            received: None,
        }
    }

    /// Bytes in memory.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// What is to be done about the message.
    pub(super) fn into_entry(mut self, context: Context) -> Entry {
        let takeout = Takeout::take(&mut self.raw);
        let sorted = labels::sort(takeout.labels.unwrap_or_default());
        let hidden = sorted.ids.iter().any(|id| HIDDEN.contains(&id.as_str()));
        let unwanted = if self.cut {
            Some(SkipReason::TooLarge)
        } else {
            (hidden && !context.include_spam_trash).then_some(SkipReason::SpamTrash)
        };
        let known_id = self.gmail_id.map(|id| format!("{id:x}"));
        if let Some(reason) = unwanted {
            let id = known_id.unwrap_or_else(|| self.id_by_bytes());
            return Entry::Skip(id, reason);
        }
        // A message that makes the parser panic must not keep the others from being stored.
        let understood = catch_unwind(AssertUnwindSafe(|| email::parse(&self.raw)));
        let Ok(parsed) = understood else {
            return Entry::Refuse(known_id.unwrap_or_else(|| self.id_by_bytes()));
        };
        let mut meta_data = parsed.meta_data();
        meta_data["thread_id"] = json!(takeout.thread.map(|id| format!("{id:x}")));
        meta_data["snippet"] = json!(null);
        if parsed.date.is_none()
            && let Some(received) = self.received
        {
            let detail = "the mail has no date that can be read; this is the one of the line that \
                          separates it from others in its file";
            record::stand_in_date(&mut meta_data, received, "date_from_separator", detail);
        }
        let mut stored = Record::new(
            known_id.unwrap_or_default(),
            EMAIL,
            parsed.text,
            meta_data,
            sorted.ids,
            context.integration,
        );
        if self.gmail_id.is_none() {
            let key = stored.message_key.as_deref().unwrap_or_default();
            stored.external_id = format!("{KEYED}{key}");
        }
        Entry::Import(Box::new(stored), sorted.names)
    }

    fn id_by_bytes(&self) -> String {
        let telling = &self.raw[..self.raw.len().min(TELLING_BYTES)];
        format!("{KEYED}{:x}", Sha256::digest(telling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(raw: &str, gmail_id: Option<u64>) -> Letter {
        Letter {
            raw: raw.as_bytes().to_vec(),
            cut: false,
            gmail_id,
            received: DateTime::from_timestamp(1_800_000_000, 0),
        }
    }

    fn context(include_spam_trash: bool) -> Context {
        Context {
            integration: IntegrationId::new(),
            include_spam_trash,
        }
    }

    fn imported(letter: Letter) -> (Record, Vec<String>) {
        match letter.into_entry(context(false)) {
            Entry::Import(record, names) => (*record, names),
            other => panic!("{other:?}"),
        }
    }

    const TAKEOUT: &str =
        "X-GM-THRID: 255\r\nX-Gmail-Labels: Inbox,Mine,Opened\r\nSubject: s\r\n\r\nText\r\n";

    #[test]
    fn a_message_of_takeout_has_the_ids_of_the_api_and_its_own_bytes() {
        let (record, names) = imported(letter(TAKEOUT, Some(4096)));
        assert_eq!(record.external_id, "1000");
        assert_eq!(
            (record.labels, names),
            (vec!["INBOX".into()], vec!["Mine".into()])
        );
        assert_eq!(record.meta_data["thread_id"], "ff");
        let own = &TAKEOUT[TAKEOUT.find("Subject").unwrap()..];
        assert_eq!(record.meta_data["size_bytes"], own.len());
        let sha256 = format!("{:x}", Sha256::digest(own));
        assert_eq!(record.meta_data["sha256"], sha256);
    }

    #[test]
    fn another_message_is_named_by_what_tells_its_copies() {
        let plain = letter("Message-ID: <1@example.com>\r\n\r\nText\r\n", None);
        let (record, names) = imported(plain);
        let key = record.message_key.unwrap();
        assert_eq!(record.external_id, format!("mid:{key}"));
        assert!(names.is_empty() && record.labels.is_empty());
        let unix = letter("Message-ID: <1@example.com>\n\nText\n", None);
        assert_eq!(imported(unix).0.external_id, record.external_id);
    }

    #[test]
    fn the_separator_dates_what_has_no_date_and_the_key_is_the_same_without() {
        let (dated, _) = imported(letter("Subject: s\r\n\r\nText", None));
        assert_eq!(dated.meta_data["date"], "2027-01-15T08:00:00.000000Z");
        let warnings = dated.meta_data["warnings"].as_array().unwrap();
        let codes: Vec<_> = warnings.iter().map(|warning| &warning["code"]).collect();
        assert!(codes.contains(&&json!("date_from_separator")), "{codes:?}");
        let mut without = letter("Subject: s\r\n\r\nText", None);
        without.received = None;
        assert_eq!(imported(without).0.external_id, dated.external_id);
    }

    #[test]
    fn spam_and_trash_and_what_is_too_long_stay_out() {
        let spam = TAKEOUT.replace("Inbox", "Spam");
        let entry = letter(&spam, Some(4096)).into_entry(context(false));
        assert!(
            matches!(&entry, Entry::Skip(id, SkipReason::SpamTrash) if id == "1000"),
            "{entry:?}"
        );
        let entry = letter(&spam, Some(4096)).into_entry(context(true));
        assert!(matches!(entry, Entry::Import(..)), "{entry:?}");
        let mut long = letter("Subject: s\r\n\r\nText", None);
        long.cut = true;
        let entry = long.into_entry(context(true));
        assert!(
            matches!(entry, Entry::Skip(_, SkipReason::TooLarge)),
            "{entry:?}"
        );
    }

    #[test]
    fn what_is_no_message_is_stored_all_the_same() {
        let (record, _) = imported(letter("\u{0}nothing of a mail", None));
        assert!(record.data_content.contains("nothing of a mail"));
    }
}
