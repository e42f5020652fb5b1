//! Files as other programs export them, of what a mailbox of the stand-in holds.

use std::collections::HashMap;

use nucleus::demo::{
    Mailbox,
    mailbox::{Message, parse_hex},
};

/// What Takeout calls Gmail's own labels.
const NAMES: [(&str, &str); 14] = [
    ("INBOX", "Inbox"),
    ("SENT", "Sent"),
    ("DRAFT", "Drafts"),
    ("SPAM", "Spam"),
    ("TRASH", "Trash"),
    ("UNREAD", "Unread"),
    ("STARRED", "Starred"),
    ("IMPORTANT", "Important"),
    ("CHAT", "Chat"),
    ("CATEGORY_PERSONAL", "Category Personal"),
    ("CATEGORY_SOCIAL", "Category Social"),
    ("CATEGORY_PROMOTIONS", "Category Promotions"),
    ("CATEGORY_UPDATES", "Category Updates"),
    ("CATEGORY_FORUMS", "Category Forums"),
];

/// The mailbox as Google Takeout exports it, spam and trash included.
pub fn takeout(mailbox: &Mailbox) -> Vec<u8> {
    let mut names: HashMap<&str, &str> = mailbox.labels().collect();
    names.extend(NAMES);
    let mut file = Vec::new();
    for (id, message) in messages(mailbox) {
        let time = chrono::DateTime::from_timestamp_millis(message.internal_date_ms).unwrap();
        let mut labels: Vec<String> = message
            .labels
            .iter()
            .map(|label| quoted(names[&**label]))
            .collect();
        if !message.has_label("UNREAD") {
            labels.push("Opened".to_owned());
        }
        let head = format!(
            "From {id}@xxx {}\r\nX-GM-THRID: {}\r\nX-Gmail-Labels: {}\r\n",
            time.format("%a %b %d %H:%M:%S +0000 %Y"),
            message.thread,
            labels.join(",")
        );
        file.extend_from_slice(head.as_bytes());
        escape(&mut file, &message.raw.bytes(), "\r\n");
    }
    file
}

/// The messages as any other program exports them, without spam and trash.
pub fn plain(mailbox: &Mailbox) -> Vec<u8> {
    let mut file = Vec::new();
    for (_, message) in messages(mailbox) {
        if !message.has_label("SPAM") && !message.has_label("TRASH") {
            file.extend_from_slice(b"From someone@example.com Thu Jan  1 00:00:05 1998\n");
            escape(&mut file, &message.raw.bytes(), "\n");
        }
    }
    file
}

/// Newest first, as Takeout has them.
pub fn messages(mailbox: &Mailbox) -> impl Iterator<Item = (u64, &Message)> {
    mailbox.ids().into_iter().map(|id| {
        let id = parse_hex(&id).unwrap();
        (id, mailbox.message(id).unwrap())
    })
}

fn quoted(name: &str) -> String {
    match name.contains(',') {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

/// Appends a message as it stands in an mbox with these line ends.
fn escape(file: &mut Vec<u8>, raw: &[u8], line_end: &str) {
    let mut body = raw.to_vec();
    if line_end == "\n" {
        let mut at = 0;
        body.retain(|&byte| {
            at += 1;
            !(byte == b'\r' && raw.get(at) == Some(&b'\n'))
        });
    }
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let marks = line.iter().take_while(|&&byte| byte == b'>').count();
        if line[marks..].starts_with(b"From ") {
            file.push(b'>');
        }
        file.extend_from_slice(line);
    }
    if !body.ends_with(b"\n") {
        file.extend_from_slice(line_end.as_bytes());
    }
    file.extend_from_slice(line_end.as_bytes());
}
