//! What Gmail answers to history.list
//! (<https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.history/list>): typed
//! changes after an id, 404 for an id that is too old, and no `history` key where nothing changed.

use serde_json::{Map, Value, json};

use super::{
    gmail_api::{Call, Manner, Refused},
    mailbox::{HistoryKind, HistoryRecord, Mailbox, Position, hex},
    page_token::PageToken,
};

/// The body of history.list.
pub(super) fn list(call: &Call, mailbox: &Mailbox, manner: &Manner) -> Result<Vec<u8>, Refused> {
    let start = call
        .first("startHistoryId")
        .ok_or_else(|| Refused::argument("Missing required parameter: startHistoryId"))?
        .parse::<u64>()
        .map_err(|_| Refused::argument("Invalid value for startHistoryId"))?;
    let mut kinds = Vec::new();
    for name in call.all("historyTypes") {
        kinds.push(match name {
            "messageAdded" => HistoryKind::MessageAdded,
            "messageDeleted" => HistoryKind::MessageDeleted,
            "labelAdded" => HistoryKind::LabelAdded,
            "labelRemoved" => HistoryKind::LabelRemoved,
            other => {
                let message = format!("Invalid value at 'history_types' (TYPE_ENUM), {other:?}");
                return Err(Refused::argument(message));
            }
        });
    }
    let records = mailbox
        .history_since(start)
        .map_err(|_| Refused::of(404, "notFound"))?;
    let after = match call.first("pageToken") {
        Some(token) => PageToken::History.read(token, manner)?.id,
        None => start,
    };
    let limit = call.page_size(manner)?;
    let label = call.first("labelId");
    let mut shown = Vec::new();
    let mut last = after;
    let mut more = false;
    for record in records.iter().filter(|record| record.id > after) {
        let Some(json) = history_record(record, &kinds, label) else {
            continue;
        };
        if shown.len() == limit {
            more = true;
            break;
        }
        shown.push(json);
        last = record.id;
    }
    let mut body = Map::new();
    if !shown.is_empty() {
        body.insert("history".to_owned(), shown.into());
    }
    if more {
        let position = Position {
            internal_date_ms: 0,
            id: last,
        };
        let token = PageToken::History.write(position, manner);
        body.insert("nextPageToken".to_owned(), token.into());
    }
    let current = mailbox.history_id().to_string();
    body.insert("historyId".to_owned(), current.into());
    Ok(Value::from(body).to_string().into_bytes())
}

/// A record with the changes asked for; none if there are none of them.
fn history_record(
    record: &HistoryRecord,
    kinds: &[HistoryKind],
    label: Option<&str>,
) -> Option<Value> {
    let mut json = json!({"id": record.id.to_string(), "messages": []});
    let mut any = false;
    for change in &record.changes {
        if !kinds.is_empty() && !kinds.contains(&change.kind) {
            continue;
        }
        if label.is_some_and(|label| !change.labels.iter().any(|own| &**own == label)) {
            continue;
        }
        let mut message = json!({"id": hex(change.message), "threadId": hex(change.thread)});
        let short = message.clone();
        if !change.labels.is_empty() {
            let labels: Vec<&str> = change.labels.iter().map(|label| &**label).collect();
            message["labelIds"] = json!(labels);
        }
        let mut entry = json!({"message": message});
        if !change.changed.is_empty() {
            let changed: Vec<&str> = change.changed.iter().map(|label| &**label).collect();
            entry["labelIds"] = json!(changed);
        }
        let key = match change.kind {
            HistoryKind::MessageAdded => "messagesAdded",
            HistoryKind::MessageDeleted => "messagesDeleted",
            HistoryKind::LabelAdded => "labelsAdded",
            HistoryKind::LabelRemoved => "labelsRemoved",
        };
        push_to(&mut json, key, entry);
        if !any {
            push_to(&mut json, "messages", short);
        }
        any = true;
    }
    any.then_some(json)
}

fn push_to(object: &mut Value, key: &str, item: Value) {
    match &mut object[key] {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::Method;
    use super::*;

    const MANNER: Manner = Manner {
        page_size_cap: None,
        padded: true,
        generation: 0,
    };

    fn asked(mailbox: &Mailbox, query: &[(&str, &str)]) -> Value {
        let query = query.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        let call = Call {
            method: Method::HistoryList,
            user: "me".to_owned(),
            id: None,
            attachment: None,
            query: query.collect(),
        };
        serde_json::from_slice(&list(&call, mailbox, &MANNER).unwrap()).unwrap()
    }

    #[test]
    fn history_is_typed_paged_and_silent_when_nothing_changed() {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        let id = mailbox.deliver("Subject: s\r\n\r\ntext", &["INBOX"]);
        let start = mailbox.history_id();
        let text = start.to_string();
        let all = [("startHistoryId", text.as_str())];
        let nothing = asked(&mailbox, &all);
        assert_eq!(nothing, json!({"historyId": text}));

        mailbox.relabel(&id, &["STARRED"], &["INBOX"]);
        mailbox.delete(&id);
        let query = [("startHistoryId", text.as_str()), ("maxResults", "1")];
        let first = asked(&mailbox, &query);
        let message = json!({"id": id, "threadId": id, "labelIds": ["STARRED"]});
        let record = &first["history"][0];
        assert_eq!(first["history"].as_array().unwrap().len(), 1);
        assert_eq!(
            record["labelsAdded"],
            json!([{"message": message, "labelIds": ["STARRED"]}])
        );
        assert_eq!(
            record["labelsRemoved"],
            json!([{"message": message, "labelIds": ["INBOX"]}])
        );
        assert_eq!(record["messages"], json!([{"id": id, "threadId": id}]));
        let token = first["nextPageToken"].as_str().unwrap();
        let query = [query[0], query[1], ("pageToken", token)];
        let second = asked(&mailbox, &query);
        assert_eq!(
            second["history"][0]["messagesDeleted"],
            json!([{"message": message}])
        );
        assert!(second.get("nextPageToken").is_none());
        let current = mailbox.history_id().to_string();
        assert_eq!(second["historyId"], current.as_str());

        let query = [all[0], ("historyTypes", "messageAdded")];
        let added = asked(&mailbox, &query);
        assert!(added.get("history").is_none());
    }
}
