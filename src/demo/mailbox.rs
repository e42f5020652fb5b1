//! Gmail's state: messages, threads, labels and the history log, as the API's documentation
//! describes them (<https://developers.google.com/workspace/gmail/api/guides/sync>). It changes only
//! by the operations below, each of which leaves its history record. It knows no HTTP.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use super::arrival::{Arrival, Raw, Read};

/// The labels every mailbox has.
pub const SYSTEM_LABELS: [&str; 14] = [
    "INBOX",
    "SENT",
    "DRAFT",
    "SPAM",
    "TRASH",
    "UNREAD",
    "STARRED",
    "IMPORTANT",
    "CHAT",
    "CATEGORY_PERSONAL",
    "CATEGORY_SOCIAL",
    "CATEGORY_PROMOTIONS",
    "CATEGORY_UPDATES",
    "CATEGORY_FORUMS",
];

/// Milliseconds have 43 bits in an id, so that ids fit 63 bits: times up to the year 2248.
const LATEST_MS: i64 = (1 << 43) - 1;
/// What arrives without a time is a minute younger than the youngest message, in milliseconds.
const ARRIVAL_GAP_MS: i64 = 60_000;

/// One message as the mailbox keeps it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The thread it belongs to.
    pub thread: u64,
    /// Its bytes.
    pub raw: Raw,
    /// Label ids.
    pub labels: Vec<Arc<str>>,
    /// When Google accepted it, in milliseconds since 1970.
    pub internal_date_ms: i64,
    /// The last history record that touched it.
    pub history_id: u64,
    /// The beginning of its text, HTML-escaped as Gmail does.
    pub snippet: Box<str>,
    /// Its length in bytes.
    pub size: u32,
}

impl Message {
    /// Whether it bears the label.
    pub fn has_label(&self, label: &str) -> bool {
        self.labels.iter().any(|own| &**own == label)
    }
}

/// What a history record says of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryKind {
    /// It arrived.
    MessageAdded,
    /// It was deleted for good; moving to the trash is a label.
    MessageDeleted,
    /// Labels were put on it.
    LabelAdded,
    /// Labels were taken off it.
    LabelRemoved,
}

/// One change of one message.
#[derive(Debug, Clone)]
pub struct HistoryChange {
    /// What happened.
    pub kind: HistoryKind,
    /// The message.
    pub message: u64,
    /// Its thread.
    pub thread: u64,
    /// Its labels after the change.
    pub labels: Vec<Arc<str>>,
    /// The labels put on or taken off.
    pub changed: Vec<Arc<str>>,
}

/// What happened in one stroke.
#[derive(Debug, Clone)]
pub struct HistoryRecord {
    /// Ids grow and leave gaps.
    pub id: u64,
    /// At least one.
    pub changes: Vec<HistoryChange>,
}

/// The history id asked for is older than what is kept, or was never given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryGone;

/// What a sync of the mailbox has to end with, for one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerEntry {
    /// As the API gives it.
    pub id: String,
    /// As the API gives it.
    pub thread_id: String,
    /// Sorted.
    pub labels: Vec<String>,
    /// Lower-case hex SHA-256 of the raw bytes.
    pub sha256: String,
}

/// A place in the list of messages, which runs from the youngest to the oldest. It names a message
/// and no offset, so arrivals and deletions move nothing past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The time of the message last shown, in milliseconds since 1970.
    pub internal_date_ms: i64,
    /// Its id.
    pub id: u64,
}

/// What a listing shows.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// A message has to bear all of them.
    pub labels: Vec<String>,
    /// Whether spam and trash are shown although no label asks for them.
    pub include_spam_trash: bool,
    /// The message last shown.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// The state behind one account.
pub struct Mailbox {
    email_address: String,
    messages: HashMap<u64, Message>,
    order: BTreeSet<Position>,
    threads: HashMap<u64, u32>,
    thread_of_message_id: HashMap<u64, u64>,
    labels: Vec<(Arc<str>, String)>,
    history: Vec<HistoryRecord>,
    history_id: u64,
    oldest_history_id: u64,
    random: StdRng,
}

impl Mailbox {
    /// An empty mailbox; `seed` decides the ids that it gives.
    pub fn new(email_address: &str, seed: u64) -> Self {
        let labels = SYSTEM_LABELS
            .iter()
            .map(|&label| (Arc::from(label), label.to_owned()))
            .collect();
        let mut random = StdRng::seed_from_u64(seed);
        let history_id = random.random_range(1_000_000..2_000_000);
        Self {
            email_address: email_address.to_owned(),
            messages: HashMap::new(),
            order: BTreeSet::new(),
            threads: HashMap::new(),
            thread_of_message_id: HashMap::new(),
            labels,
            history: Vec::new(),
            history_id,
            oldest_history_id: history_id,
            random,
        }
    }

    /// Whose mailbox it is.
    pub fn email_address(&self) -> &str {
        &self.email_address
    }

    /// How many messages there are, spam and trash included.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The id of the last history record.
    pub fn history_id(&self) -> u64 {
        self.history_id
    }

    /// Label ids with their names, system labels first.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(id, name)| (&**id, name.as_str()))
    }

    /// All ids, youngest message first.
    pub fn ids(&self) -> Vec<String> {
        let newest_first = self.order.iter().rev();
        newest_first.map(|position| hex(position.id)).collect()
    }

    /// The message, if it exists.
    pub fn message(&self, id: u64) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// Makes a label of a user's own and gives its id, `Label_` and a number.
    pub fn create_label(&mut self, name: &str) -> String {
        if let Some((id, _)) = self.labels.iter().find(|(_, own)| own == name) {
            return id.to_string();
        }
        let id = format!("Label_{}", self.labels.len() + 1 - SYSTEM_LABELS.len());
        self.labels.push((Arc::from(id.as_str()), name.to_owned()));
        id
    }

    /// A message arrives: it is the youngest, and history says so. Gives its id.
    pub fn deliver(&mut self, raw: impl Into<Bytes>, labels: &[&str]) -> String {
        self.deliver_arrival(Arrival {
            id: None,
            thread: None,
            internal_date_ms: None,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            raw: Raw::Bytes(raw.into()),
        })
    }

    /// A message arrives as described, an old one for instance, and history says so.
    pub fn deliver_arrival(&mut self, arrival: Arrival) -> String {
        let before = self.messages.len();
        let id = self.insert(arrival);
        if self.messages.len() > before {
            self.record(id, &[(HistoryKind::MessageAdded, Vec::new())]);
        }
        hex(id)
    }

    /// Puts a message there as if it had always been: history says nothing. One whose id is taken
    /// changes nothing.
    pub fn place(&mut self, arrival: Arrival) -> String {
        let id = self.insert(arrival);
        hex(id)
    }

    /// Puts labels on a message and takes labels off, in one history record. Says whether anything
    /// changed; history is silent where nothing did.
    pub fn relabel(&mut self, id: &str, add: &[&str], remove: &[&str]) -> bool {
        let Some(number) = parse_hex(id) else {
            return false;
        };
        let add: Vec<Arc<str>> = add.iter().map(|label| self.intern(label)).collect();
        let Some(message) = self.messages.get_mut(&number) else {
            return false;
        };
        let mut added = add;
        added.retain(|label| !message.labels.contains(label));
        let mut removed = message.labels.clone();
        removed.retain(|label| remove.contains(&&**label));
        message.labels.retain(|label| !removed.contains(label));
        message.labels.extend(added.iter().cloned());
        let mut changes = Vec::new();
        if !added.is_empty() {
            changes.push((HistoryKind::LabelAdded, added));
        }
        if !removed.is_empty() {
            changes.push((HistoryKind::LabelRemoved, removed));
        }
        if changes.is_empty() {
            return false;
        }
        self.record(number, &changes);
        true
    }

    /// Deletes a message for good. Says whether there was one.
    pub fn delete(&mut self, id: &str) -> bool {
        let Some(number) = parse_hex(id).filter(|number| self.messages.contains_key(number)) else {
            return false;
        };
        self.record(number, &[(HistoryKind::MessageDeleted, Vec::new())]);
        let Some(message) = self.messages.remove(&number) else {
            return false;
        };
        self.order.remove(&Position {
            internal_date_ms: message.internal_date_ms,
            id: number,
        });
        if let Some(count) = self.threads.get_mut(&message.thread) {
            *count -= 1;
            if *count == 0 {
                self.threads.remove(&message.thread);
            }
        }
        true
    }

    /// Forgets the history: every id given out so far is too old from here on.
    pub fn expire_history(&mut self) {
        self.next_history_id();
        self.history.clear();
        self.oldest_history_id = self.history_id;
    }

    /// The records after `start`, oldest first.
    pub fn history_since(&self, start: u64) -> Result<&[HistoryRecord], HistoryGone> {
        if start < self.oldest_history_id || start > self.history_id {
            return Err(HistoryGone);
        }
        let first = self.history.partition_point(|record| record.id <= start);
        Ok(&self.history[first..])
    }

    /// One page of the list, youngest first, and whether more follows.
    pub fn list(&self, query: &ListQuery) -> (Vec<Position>, bool) {
        let hidden = |label: &str| {
            !query.include_spam_trash && !query.labels.iter().any(|asked| asked == label)
        };
        let (hide_spam, hide_trash) = (hidden("SPAM"), hidden("TRASH"));
        let end = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::new();
        for &position in self.order.range((Bound::Unbounded, end)).rev() {
            let Some(message) = self.messages.get(&position.id) else {
                continue;
            };
            if hide_spam && message.has_label("SPAM") || hide_trash && message.has_label("TRASH") {
                continue;
            }
            if !query.labels.iter().all(|label| message.has_label(label)) {
                continue;
            }
            if page.len() == query.limit {
                return (page, true);
            }
            page.push(position);
        }
        (page, false)
    }

    /// What there is, youngest first, spam and trash included.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let mut ledger = Vec::with_capacity(self.messages.len());
        for position in self.order.iter().rev() {
            let Some(message) = self.messages.get(&position.id) else {
                continue;
            };
            let mut labels: Vec<String> = message.labels.iter().map(|l| l.to_string()).collect();
            labels.sort();
            ledger.push(LedgerEntry {
                id: hex(position.id),
                thread_id: hex(message.thread),
                labels,
                sha256: format!("{:x}", Sha256::digest(message.raw.bytes())),
            });
        }
        ledger
    }

    fn insert(&mut self, arrival: Arrival) -> u64 {
        if let Some(id) = arrival.id.filter(|id| self.messages.contains_key(id)) {
            return id;
        }
        let internal_date_ms = arrival
            .internal_date_ms
            .unwrap_or_else(|| self.next_arrival_ms())
            .clamp(0, LATEST_MS);
        let id = arrival
            .id
            .unwrap_or_else(|| self.unused_id(internal_date_ms));
        let read = Read::of(&arrival.raw);
        let thread = arrival
            .thread
            .or_else(|| self.thread_among(&read.refers_to))
            .unwrap_or(id);
        if let Some(message_id) = read.message_id {
            self.thread_of_message_id
                .entry(message_id)
                .or_insert(thread);
        }
        let mut labels: Vec<Arc<str>> = Vec::with_capacity(arrival.labels.len());
        for label in &arrival.labels {
            let label = self.intern(label);
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        *self.threads.entry(thread).or_default() += 1;
        self.order.insert(Position {
            internal_date_ms,
            id,
        });
        let message = Message {
            thread,
            raw: arrival.raw,
            labels,
            internal_date_ms,
            history_id: self.history_id,
            snippet: read.snippet,
            size: read.size,
        };
        self.messages.insert(id, message);
        id
    }

    fn thread_among(&self, refers_to: &[u64]) -> Option<u64> {
        // The last reference is the parent; earlier ones are its ancestors.
        let parents = refers_to.iter().rev();
        let mut known = parents.filter_map(|id| self.thread_of_message_id.get(id));
        known.next().copied()
    }

    fn next_arrival_ms(&self) -> i64 {
        self.order
            .last()
            .map_or(0, |youngest| youngest.internal_date_ms)
            + ARRIVAL_GAP_MS
    }

    /// Gmail's ids begin with the time, in milliseconds, above 20 other bits (observed).
    fn unused_id(&mut self, internal_date_ms: i64) -> u64 {
        loop {
            let id = internal_date_ms.unsigned_abs() << 20 | self.random.random_range(1..1 << 20);
            if !self.messages.contains_key(&id) && !self.threads.contains_key(&id) {
                return id;
            }
        }
    }

    /// The one copy of a label's id; an id nobody made becomes a label of that name.
    fn intern(&mut self, label: &str) -> Arc<str> {
        if let Some((id, _)) = self.labels.iter().find(|(id, _)| &**id == label) {
            return id.clone();
        }
        let id: Arc<str> = Arc::from(label);
        self.labels.push((id.clone(), label.to_owned()));
        id
    }

    fn next_history_id(&mut self) -> u64 {
        self.history_id += self.random.random_range(1..40);
        self.history_id
    }

    fn record(&mut self, id: u64, changes: &[(HistoryKind, Vec<Arc<str>>)]) {
        let history_id = self.next_history_id();
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        message.history_id = history_id;
        let changes = changes
            .iter()
            .map(|(kind, changed)| HistoryChange {
                kind: *kind,
                message: id,
                thread: message.thread,
                labels: message.labels.clone(),
                changed: changed.clone(),
            })
            .collect();
        self.history.push(HistoryRecord {
            id: history_id,
            changes,
        });
    }
}

/// An id as the API writes it: lower-case hex.
pub fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// The number behind an id; none where the text is no id.
pub fn parse_hex(id: &str) -> Option<u64> {
    if id.is_empty() || id.bytes().any(|byte| !byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(id, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(message_id: &str, in_reply_to: &str) -> Vec<u8> {
        let reply = match in_reply_to {
            "" => String::new(),
            id => format!("In-Reply-To: <{id}>\r\n"),
        };
        format!("Message-ID: <{message_id}>\r\n{reply}Subject: s\r\n\r\nTom & \"Jerry\"\r\n  <b>")
            .into_bytes()
    }

    #[test]
    fn replies_join_the_thread_of_what_they_answer() {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        let first = mailbox.deliver(mail("a@x", ""), &["INBOX"]);
        let other = mailbox.deliver(mail("b@x", ""), &["INBOX"]);
        let reply = mailbox.deliver(mail("c@x", "a@x"), &["SENT"]);
        let thread = |id: &str| mailbox.message(parse_hex(id).unwrap()).unwrap().thread;
        assert_eq!(thread(&first), thread(&reply));
        assert_ne!(thread(&first), thread(&other));
        assert_eq!(hex(thread(&first)), first);
        assert_eq!((mailbox.len(), mailbox.threads()), (3, 2));
        assert_eq!(mailbox.ids(), [reply, other, first]);
    }

    #[test]
    fn history_tells_what_changed_and_nothing_else() {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        let start = mailbox.history_id();
        let id = mailbox.deliver(mail("a@x", ""), &["INBOX", "UNREAD"]);
        let arrived = mailbox.history_id();
        assert!(!mailbox.relabel(&id, &["INBOX"], &["STARRED"]));
        assert_eq!(mailbox.history_id(), arrived);
        assert!(mailbox.relabel(&id, &["STARRED", "INBOX"], &["UNREAD", "SENT"]));
        assert!(mailbox.delete(&id));
        assert!(!mailbox.delete(&id));
        let records = mailbox.history_since(start).unwrap();
        assert!(records.is_sorted_by(|left, right| left.id < right.id));
        let kinds: Vec<_> = records
            .iter()
            .flat_map(|record| record.changes.iter().map(|change| change.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                HistoryKind::MessageAdded,
                HistoryKind::LabelAdded,
                HistoryKind::LabelRemoved,
                HistoryKind::MessageDeleted
            ]
        );
        let relabelled = &records[1].changes;
        assert_eq!(relabelled[0].changed, [Arc::from("STARRED")]);
        assert_eq!(relabelled[1].changed, [Arc::from("UNREAD")]);
        assert_eq!(mailbox.history_since(arrived).unwrap().len(), 2);
        assert_eq!((mailbox.len(), mailbox.threads()), (0, 0));
    }

    #[test]
    fn an_expired_or_unheard_of_history_id_is_gone() {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        let start = mailbox.history_id();
        assert!(mailbox.history_since(start).unwrap().is_empty());
        assert!(mailbox.history_since(start + 1).is_err());
        mailbox.expire_history();
        assert!(mailbox.history_since(start).is_err());
        assert!(mailbox.history_since(mailbox.history_id()).is_ok());
    }

    #[test]
    fn spam_and_trash_are_listed_only_when_asked_for() {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        let inbox = mailbox.deliver(mail("a@x", ""), &["INBOX"]);
        let spam = mailbox.deliver(mail("b@x", ""), &["SPAM", "UNREAD"]);
        let trash = mailbox.deliver(mail("c@x", ""), &["TRASH"]);
        let list = |labels: &[&str], include_spam_trash| {
            let query = ListQuery {
                labels: labels.iter().map(|&label| label.to_owned()).collect(),
                include_spam_trash,
                after: None,
                limit: 10,
            };
            let page = mailbox.list(&query).0;
            page.into_iter().map(|p| hex(p.id)).collect::<Vec<_>>()
        };
        assert_eq!(list(&[], false), std::slice::from_ref(&inbox));
        assert_eq!(list(&[], true), [trash, spam.clone(), inbox]);
        assert_eq!(list(&["SPAM"], false), std::slice::from_ref(&spam));
        assert_eq!(list(&["SPAM", "UNREAD"], true), [spam]);
        assert!(list(&["UNREAD"], false).is_empty());
    }

    #[test]
    fn text_that_is_no_id_is_none() {
        for text in ["", "+1", "xyz", "12345678901234567", "0x1f"] {
            assert_eq!(parse_hex(text), None, "{text:?}");
        }
        assert_eq!(parse_hex("1f"), Some(31));
    }
}
