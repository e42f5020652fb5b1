//! A message as Gmail's tree of MessageParts, for `format=full` and `format=metadata`
//! (<https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.messages#messagepart>).
//! Text is given in UTF-8 whatever its charset was, while the headers keep the old charset, as Gmail
//! was seen to do; attachments are named and fetched apart.

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use serde_json::{Value, json};

/// What stands before the number of a part in an attachment's id.
const ATTACHMENT_PREFIX: &str = "ANGjdJ8part";
/// Deeper parts are left out.
const DEEPEST: usize = 100;

/// How much of the tree is wanted.
pub enum Wanted<'w> {
    /// `full`.
    Everything {
        /// Whether base64url is padded.
        padded: bool,
    },
    /// `metadata`: the message's headers; only these, if any are named.
    Headers(&'w [&'w str]),
}

/// The `payload` of a message.
pub fn of(raw: &[u8], wanted: &Wanted<'_>) -> Value {
    let Some(message) = MessageParser::default().parse(raw) else {
        return json!({"partId": "", "mimeType": "text/plain", "filename": "", "headers": [], "body": {"size": 0}});
    };
    match wanted {
        Wanted::Everything { padded } => part(&message, 0, "", *padded, 0),
        Wanted::Headers(names) => {
            let mut headers = headers(&message, 0);
            if !names.is_empty() {
                headers.retain(|header| {
                    let name = header["name"].as_str().unwrap_or_default();
                    names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
                });
            }
            json!({"mimeType": mime_type(&message, 0), "headers": headers})
        }
    }
}

/// The bytes of an attachment.
pub fn attachment(raw: &[u8], id: &str) -> Option<Vec<u8>> {
    let index: usize = id.strip_prefix(ATTACHMENT_PREFIX)?.parse().ok()?;
    let message = MessageParser::default().parse(raw)?;
    Some(message.parts.get(index)?.contents().to_vec())
}

fn part(message: &Message<'_>, index: usize, number: &str, padded: bool, depth: usize) -> Value {
    let Some(found) = message.parts.get(index) else {
        return Value::Null;
    };
    let filename = found.attachment_name().unwrap_or_default();
    let mut json = json!({
        "partId": number,
        "mimeType": mime_type(message, index),
        "filename": filename,
        "headers": headers(message, index),
    });
    let contents = match &found.body {
        PartType::Multipart(children) => {
            json["body"] = json!({"size": 0});
            if depth < DEEPEST {
                let mut parts = Vec::new();
                for (place, child) in children.iter().enumerate() {
                    let child_number = match number {
                        "" => place.to_string(),
                        parent => format!("{parent}.{place}"),
                    };
                    parts.push(part(
                        message,
                        *child as usize,
                        &child_number,
                        padded,
                        depth + 1,
                    ));
                }
                json["parts"] = parts.into();
            }
            return json;
        }
        PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
        _ => found.contents(),
    };
    let text = matches!(found.body, PartType::Text(_) | PartType::Html(_));
    json["body"] = match text && filename.is_empty() {
        true => json!({"size": contents.len(), "data": encoded(contents, padded)}),
        false => {
            let id = format!("{ATTACHMENT_PREFIX}{index}");
            json!({"size": found.contents().len(), "attachmentId": id})
        }
    };
    json
}

fn encoded(contents: &[u8], padded: bool) -> String {
    let engine = if padded { &URL_SAFE } else { &URL_SAFE_NO_PAD };
    engine.encode(contents)
}

fn mime_type(message: &Message<'_>, index: usize) -> String {
    let content_type = message
        .parts
        .get(index)
        .and_then(|part| part.content_type());
    match content_type {
        Some(found) => {
            let kind = found.ctype().to_ascii_lowercase();
            match found.subtype() {
                Some(subtype) => format!("{kind}/{}", subtype.to_ascii_lowercase()),
                None => kind,
            }
        }
        None => "text/plain".to_owned(),
    }
}

/// The headers of a part, as they stand, unfolded.
fn headers(message: &Message<'_>, index: usize) -> Vec<Value> {
    let Some(part) = message.parts.get(index) else {
        return Vec::new();
    };
    let mut headers = Vec::with_capacity(part.headers.len());
    for header in &part.headers {
        let span = header.offset_start as usize..header.offset_end as usize;
        let bytes = message.raw_message.get(span).unwrap_or_default();
        let value = String::from_utf8_lossy(bytes).replace(['\r', '\n'], "");
        headers.push(json!({"name": header.name.as_str(), "value": value.trim()}));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\nX-Other:\r\n folded\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--\r\n";

    #[test]
    fn a_message_becomes_a_tree_of_parts() {
        let payload = of(MAIL, &Wanted::Everything { padded: true });
        assert_eq!(payload["mimeType"], "multipart/mixed");
        assert_eq!(
            payload["headers"][0],
            json!({"name": "Subject", "value": "=?iso-8859-1?Q?Gr=FC=DFe?="})
        );
        assert_eq!(payload["headers"][1]["value"], "folded");
        let text = &payload["parts"][0];
        assert_eq!(text["partId"], "0");
        assert_eq!(text["body"]["data"], URL_SAFE.encode("Grüße"));
        assert_eq!(
            text["headers"][0]["value"],
            "text/plain; charset=iso-8859-1"
        );
        let file = &payload["parts"][1];
        assert_eq!(file["filename"], "a.bin");
        assert_eq!(file["body"]["size"], 3);
        let id = file["body"]["attachmentId"].as_str().unwrap();
        assert_eq!(attachment(MAIL, id).unwrap(), [0, 1, 2]);
        assert_eq!(attachment(MAIL, "ANGjdJ8part99"), None);
    }

    #[test]
    fn metadata_is_headers_only() {
        let payload = of(MAIL, &Wanted::Headers(&["subject"]));
        assert_eq!(payload["headers"].as_array().unwrap().len(), 1);
        assert!(payload.get("parts").is_none());
    }
}
