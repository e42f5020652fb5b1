//! Folds a page of Gmail's history into one change a message. Pure: the store decides later what is
//! news.

use std::collections::HashMap;

use super::{
    super::Change,
    api::{History, Message},
};
use crate::domain::{record::LabelDelta, sync::SkipReason};

/// The labels whose messages stay out unless they are asked for.
const HIDDEN: [&str; 2] = ["SPAM", "TRASH"];

/// Whether one of `labels` keeps a message out.
pub(super) fn hidden(labels: &[String]) -> bool {
    labels.iter().any(|label| HIDDEN.contains(&label.as_str()))
}

/// What a page says about one message, so far.
#[derive(Default)]
struct Folded {
    /// The labels it was added with, if it was added.
    added: Option<Vec<String>>,
    deleted: bool,
    relabelled: bool,
    delta: LabelDelta,
}

/// One change a message, in the order in which the page first names them.
pub(super) fn fold(page: Vec<History>, include_spam_trash: bool) -> Vec<Change> {
    let mut order = Vec::new();
    let mut messages = HashMap::new();
    for record in page {
        fold_record(record, &mut order, &mut messages);
    }
    let mut changes = Vec::with_capacity(order.len());
    for id in order {
        if let Some(folded) = messages.remove(&id) {
            changes.push(folded.change(id, include_spam_trash));
        }
    }
    changes
}

/// A record holds one event as a rule; where it holds several, a message is added before it is
/// labelled and labelled before it is deleted.
fn fold_record(record: History, order: &mut Vec<String>, messages: &mut HashMap<String, Folded>) {
    let mut entry = |message: Option<Message>, change: &mut dyn FnMut(&mut Folded, Message)| {
        let Some(message) = message else { return };
        let Some(id) = message.id.clone() else { return };
        if !messages.contains_key(&id) {
            order.push(id.clone());
        }
        change(messages.entry(id).or_default(), message);
    };
    for added in record.messages_added.unwrap_or_default() {
        entry(added.message, &mut |folded, message| {
            folded.deleted = false;
            folded.added = Some(message.label_ids.unwrap_or_default());
        });
    }
    for added in record.labels_added.unwrap_or_default() {
        let labels = added.label_ids.unwrap_or_default();
        entry(added.message, &mut |folded, _| folded.label(&labels, true));
    }
    for removed in record.labels_removed.unwrap_or_default() {
        let labels = removed.label_ids.unwrap_or_default();
        entry(removed.message, &mut |folded, _| {
            folded.label(&labels, false);
        });
    }
    for deleted in record.messages_deleted.unwrap_or_default() {
        entry(deleted.message, &mut |folded, _| folded.deleted = true);
    }
}

impl Folded {
    /// Notes that `labels` were put on or taken off; of one label, the last operation stands.
    fn label(&mut self, labels: &[String], put_on: bool) {
        self.relabelled = true;
        for label in labels {
            self.delta.add.retain(|other| other != label);
            self.delta.remove.retain(|other| other != label);
            if put_on {
                self.delta.add.push(label.clone());
            } else {
                self.delta.remove.push(label.clone());
            }
        }
    }

    fn change(self, id: String, include_spam_trash: bool) -> Change {
        if self.deleted {
            return Change::Gone(id);
        }
        let touches_hidden = hidden(&self.delta.add) || hidden(&self.delta.remove);
        let left_hidden = hidden(&self.delta.remove) && !hidden(&self.delta.add);
        let Some(mut labels) = self.added else {
            return Change::Patch {
                id,
                delta: self.delta,
                or_fetch: left_hidden,
            };
        };
        self.delta.apply(&mut labels);
        let wanted = include_spam_trash || !hidden(&labels);
        if !wanted && !touches_hidden {
            return Change::Unwanted(id, SkipReason::SpamTrash);
        }
        if !self.relabelled {
            return Change::Seen(id);
        }
        // Stored already, for instance by a listing, it still lacks these labels.
        Change::Patch {
            id,
            delta: self.delta,
            or_fetch: wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::connectors::gmail::api::ListHistoryResponse;

    fn added(id: &str, labels: Value) -> Value {
        json!({"id": "1", "messages": [{"id": id}],
            "messagesAdded": [{"message": {"id": id, "threadId": "t", "labelIds": labels}}]})
    }

    fn deleted(id: &str) -> Value {
        json!({"id": "2", "messagesDeleted": [{"message": {"id": id, "threadId": "t"}}]})
    }

    /// `message.labelIds` is set to nonsense throughout: it must not be read.
    fn labelled(kind: &str, id: &str, labels: Value) -> Value {
        json!({"id": "3", kind: [{"message": {"id": id, "labelIds": ["NONSENSE"]}, "labelIds": labels}]})
    }

    fn on(id: &str, labels: Value) -> Value {
        labelled("labelsAdded", id, labels)
    }

    fn off(id: &str, labels: Value) -> Value {
        labelled("labelsRemoved", id, labels)
    }

    fn folded(records: &[Value], include_spam_trash: bool) -> Vec<Change> {
        let page = json!({"history": records, "historyId": "9"});
        let page: ListHistoryResponse = serde_json::from_value(page).unwrap();
        fold(page.history.unwrap(), include_spam_trash)
    }

    fn patch(id: &str, add: &[&str], remove: &[&str], or_fetch: bool) -> Change {
        let owned = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect();
        Change::Patch {
            id: id.into(),
            delta: LabelDelta {
                add: owned(add),
                remove: owned(remove),
            },
            or_fetch,
        }
    }

    #[test]
    fn each_history_folds_into_its_one_change() {
        let seen = || Change::Seen("a".into());
        let gone = || Change::Gone("a".into());
        let unwanted = || Change::Unwanted("a".into(), SkipReason::SpamTrash);
        let cases: Vec<(&str, Vec<Value>, Change, Change)> = vec![
            ("added", vec![added("a", json!(["INBOX"]))], seen(), seen()),
            (
                "added without labels",
                vec![json!({"messagesAdded": [{"message": {"id": "a"}}]})],
                seen(),
                seen(),
            ),
            (
                "added to spam",
                vec![added("a", json!(["SPAM"]))],
                unwanted(),
                seen(),
            ),
            (
                "added and deleted",
                vec![added("a", json!(["INBOX"])), deleted("a")],
                gone(),
                gone(),
            ),
            ("deleted", vec![deleted("a")], gone(), gone()),
            (
                "labelled, then deleted",
                vec![on("a", json!(["STARRED"])), deleted("a")],
                gone(),
                gone(),
            ),
            (
                "added and read",
                vec![
                    added("a", json!(["INBOX", "UNREAD"])),
                    off("a", json!(["UNREAD"])),
                ],
                patch("a", &[], &["UNREAD"], true),
                patch("a", &[], &["UNREAD"], true),
            ),
            (
                "added and trashed: a stored row needs the label, a new one is not wanted",
                vec![
                    added("a", json!(["INBOX"])),
                    on("a", json!(["TRASH"])),
                    off("a", json!(["INBOX"])),
                ],
                patch("a", &["TRASH"], &["INBOX"], false),
                patch("a", &["TRASH"], &["INBOX"], true),
            ),
            (
                "added to spam and rescued",
                vec![
                    added("a", json!(["SPAM"])),
                    off("a", json!(["SPAM"])),
                    on("a", json!(["INBOX"])),
                ],
                patch("a", &["INBOX"], &["SPAM"], true),
                patch("a", &["INBOX"], &["SPAM"], true),
            ),
            (
                "added to spam and read there",
                vec![
                    added("a", json!(["SPAM", "UNREAD"])),
                    off("a", json!(["UNREAD"])),
                ],
                unwanted(),
                patch("a", &[], &["UNREAD"], true),
            ),
            (
                "starred",
                vec![on("a", json!(["STARRED"]))],
                patch("a", &["STARRED"], &[], false),
                patch("a", &["STARRED"], &[], false),
            ),
            (
                "the last operation a label wins",
                vec![
                    on("a", json!(["STARRED", "X"])),
                    off("a", json!(["STARRED", "UNREAD"])),
                    on("a", json!(["UNREAD"])),
                ],
                patch("a", &["X", "UNREAD"], &["STARRED"], false),
                patch("a", &["X", "UNREAD"], &["STARRED"], false),
            ),
            (
                "rescued from trash",
                vec![off("a", json!(["TRASH"]))],
                patch("a", &[], &["TRASH"], true),
                patch("a", &[], &["TRASH"], true),
            ),
            (
                "from spam to trash",
                vec![off("a", json!(["SPAM"])), on("a", json!(["TRASH"]))],
                patch("a", &["TRASH"], &["SPAM"], false),
                patch("a", &["TRASH"], &["SPAM"], false),
            ),
            (
                "out of trash and back",
                vec![off("a", json!(["TRASH"])), on("a", json!(["TRASH"]))],
                patch("a", &["TRASH"], &[], false),
                patch("a", &["TRASH"], &[], false),
            ),
        ];
        for (name, records, expected, expected_with_spam) in cases {
            assert_eq!(folded(&records, false), [expected], "{name}");
            assert_eq!(
                folded(&records, true),
                [expected_with_spam],
                "{name}, spam wanted"
            );
        }
    }

    #[test]
    fn messages_keep_the_order_of_their_first_event() {
        let records = [
            added("a", json!([])),
            on("b", json!(["X"])),
            deleted("c"),
            off("a", json!(["UNREAD"])),
            json!({"id": "7"}),
            json!({"labelsAdded": [{"labelIds": ["X"]}]}),
        ];
        assert_eq!(
            folded(&records, false),
            [
                patch("a", &[], &["UNREAD"], true),
                patch("b", &["X"], &[], false),
                Change::Gone("c".into()),
            ]
        );
    }
}
