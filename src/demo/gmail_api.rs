//! What Gmail answers, a mailbox given: the bodies of getProfile, messages.list, messages.get,
//! attachments.get, history.list and labels.list, and the refusals of requests that make no sense
//! (<https://developers.google.com/workspace/gmail/api/reference/rest>). It knows no HTTP but status
//! codes; tokens, quota and faults are dealt with before.

use std::{
    borrow::Cow,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{
    faults::{Method, message_of},
    history_api,
    mailbox::{ListQuery, Mailbox, Message, SYSTEM_LABELS, parse_hex},
    page_token::PageToken,
    payload,
};

/// What a page holds where the request does not say, in items.
const DEFAULT_PAGE: usize = 100;
/// What a page holds at most, in items.
const LARGEST_PAGE: usize = 500;
/// Gmail's estimate of a listing that has more pages is no more than a guess; this is its usual one.
const MANY: usize = 201;

/// A request to Gmail, taken apart.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called.
    pub method: Method,
    /// The user in the path.
    pub user: String,
    /// The message in the path.
    pub id: Option<String>,
    /// The attachment in the path.
    pub attachment: Option<String>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
}

/// How answers are given.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Pages hold no more than this, whatever is asked for.
    pub page_size_cap: Option<usize>,
    /// Whether base64url is padded.
    pub padded: bool,
    /// Page tokens of an earlier generation are no longer taken.
    pub generation: u32,
}

/// Why there is no answer, as Google says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub code: u16,
    /// Google's reason.
    pub reason: &'static str,
    /// Google's words.
    pub message: Cow<'static, str>,
}

impl Refused {
    /// With Google's usual words.
    pub(super) fn of(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            message: message_of(code, reason).into(),
        }
    }

    /// 400 `invalidArgument`.
    pub(super) fn argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: 400,
            reason: "invalidArgument",
            message: message.into(),
        }
    }
}

impl Call {
    /// The first value of a parameter.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(own, _)| own == name)?;
        Some(&pair.1)
    }

    /// Every value of a parameter.
    pub(super) fn all<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c str> {
        let named = self.query.iter().filter(move |(own, _)| own == name);
        named.map(|(_, value)| value.as_str())
    }

    /// How many items a page holds.
    pub(super) fn page_size(&self, manner: &Manner) -> Result<usize, Refused> {
        let asked = match self.first("maxResults") {
            None => DEFAULT_PAGE,
            Some(text) => text.parse::<usize>().map_err(|_| {
                Refused::argument(format!(
                    "Invalid value at 'max_results' (TYPE_UINT32), {text:?}"
                ))
            })?,
        };
        let size = if asked == 0 { DEFAULT_PAGE } else { asked };
        let cap = manner.page_size_cap.unwrap_or(LARGEST_PAGE);
        Ok(size.min(cap).clamp(1, LARGEST_PAGE))
    }

    fn message_id(&self) -> Result<u64, Refused> {
        let id = self.id.as_deref().and_then(parse_hex);
        id.ok_or_else(|| Refused::argument("Invalid id value"))
    }
}

/// The body of the answer. The mailbox is locked for as long as it is read and no longer.
pub fn answer(call: &Call, mailbox: &Mutex<Mailbox>, manner: &Manner) -> Result<Vec<u8>, Refused> {
    let locked = lock(mailbox);
    if call.user != "me" && call.user != locked.email_address() {
        return Err(Refused {
            code: 403,
            reason: "forbidden",
            message: format!("Delegation denied for {}", call.user).into(),
        });
    }
    match call.method {
        Method::GetProfile => Ok(profile(&locked)),
        Method::MessagesList => list(call, &locked, manner),
        Method::MessagesGet => get(call, locked, manner),
        Method::AttachmentsGet => attachment(call, locked, manner),
        Method::HistoryList => history_api::list(call, &locked, manner),
        Method::LabelsList => Ok(labels(&locked)),
        // The OAuth endpoints are not Gmail's; they never come here.
        Method::Authorize | Method::Consent | Method::Token | Method::Revoke => {
            Err(Refused::of(404, "notFound"))
        }
    }
}

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

fn profile(mailbox: &Mailbox) -> Vec<u8> {
    let body = json!({
        "emailAddress": mailbox.email_address(),
        "messagesTotal": mailbox.len(),
        "threadsTotal": mailbox.threads(),
        "historyId": mailbox.history_id().to_string(),
    });
    body.to_string().into_bytes()
}

fn labels(mailbox: &Mailbox) -> Vec<u8> {
    let labels: Vec<Value> = mailbox
        .labels()
        .map(|(id, name)| {
            let system = SYSTEM_LABELS.contains(&id);
            json!({"id": id, "name": name, "type": if system { "system" } else { "user" }})
        })
        .collect();
    json!({"labels": labels}).to_string().into_bytes()
}

fn list(call: &Call, mailbox: &Mailbox, manner: &Manner) -> Result<Vec<u8>, Refused> {
    if call.first("q").is_some_and(|q| !q.is_empty()) {
        return Err(Refused::argument(
            "the stand-in does not search: leave q out",
        ));
    }
    let query = ListQuery {
        labels: call.all("labelIds").map(str::to_owned).collect(),
        include_spam_trash: call.first("includeSpamTrash") == Some("true"),
        after: match call.first("pageToken") {
            Some(token) => Some(PageToken::Message.read(token, manner)?),
            None => None,
        },
        limit: call.page_size(manner)?,
    };
    for label in &query.labels {
        if !mailbox.labels().any(|(id, _)| id == label) {
            return Err(Refused::argument(format!("Invalid label: {label}")));
        }
    }
    let (page, more) = mailbox.list(&query);
    let mut body = String::with_capacity(page.len() * 64 + 128);
    body.push('{');
    for (index, position) in page.iter().enumerate() {
        body.push_str(if index == 0 { "\"messages\":[" } else { "," });
        let thread = mailbox.message(position.id).map_or(0, |found| found.thread);
        write_text(
            &mut body,
            format_args!(
                "{{\"id\":\"{:x}\",\"threadId\":\"{thread:x}\"}}",
                position.id
            ),
        );
    }
    if let Some(last) = page.last() {
        body.push_str("],");
        if more {
            let token = PageToken::Message.write(*last, manner);
            write_text(&mut body, format_args!("\"nextPageToken\":\"{token}\","));
        }
    }
    let estimate = if more { MANY } else { page.len() };
    write_text(
        &mut body,
        format_args!("\"resultSizeEstimate\":{estimate}}}"),
    );
    Ok(body.into_bytes())
}

fn get(call: &Call, mailbox: MutexGuard<'_, Mailbox>, manner: &Manner) -> Result<Vec<u8>, Refused> {
    let id = call.message_id()?;
    let Some(message) = mailbox.message(id) else {
        return Err(Refused::of(404, "notFound"));
    };
    let format = call.first("format").unwrap_or("full");
    let mut body = String::new();
    if format == "raw" {
        body.reserve(message.size as usize * 4 / 3 + 1024);
    }
    write_head(&mut body, id, message);
    let raw = message.raw.clone();
    drop(mailbox);
    match format {
        "minimal" => {}
        "raw" => {
            body.push_str(",\"raw\":\"");
            encode(&mut body, &raw.bytes(), manner.padded);
            body.push('"');
        }
        "full" | "metadata" => {
            let names: Vec<&str> = call.all("metadataHeaders").collect();
            let wanted = match format {
                "full" => payload::Wanted::Everything {
                    padded: manner.padded,
                },
                _ => payload::Wanted::Headers(&names),
            };
            let payload = payload::of(&raw.bytes(), &wanted);
            write_text(&mut body, format_args!(",\"payload\":{payload}"));
        }
        other => {
            let message = format!("Invalid value at 'format' (TYPE_ENUM), {other:?}");
            return Err(Refused::argument(message));
        }
    }
    body.push('}');
    Ok(body.into_bytes())
}

/// The fields that come with every format, without the closing brace.
fn write_head(body: &mut String, id: u64, message: &Message) {
    write_text(
        body,
        format_args!("{{\"id\":\"{id:x}\",\"threadId\":\"{:x}\"", message.thread),
    );
    for (index, label) in message.labels.iter().enumerate() {
        body.push_str(if index == 0 { ",\"labelIds\":[" } else { "," });
        write_json_text(body, label);
    }
    if !message.labels.is_empty() {
        body.push(']');
    }
    body.push_str(",\"snippet\":");
    write_json_text(body, &message.snippet);
    write_text(
        body,
        format_args!(
            ",\"sizeEstimate\":{},\"historyId\":\"{}\",\"internalDate\":\"{}\"",
            message.size, message.history_id, message.internal_date_ms
        ),
    );
}

fn attachment(
    call: &Call,
    mailbox: MutexGuard<'_, Mailbox>,
    manner: &Manner,
) -> Result<Vec<u8>, Refused> {
    let message = mailbox.message(call.message_id()?);
    let raw = message.map(|message| message.raw.clone());
    drop(mailbox);
    let raw = raw.ok_or_else(|| Refused::of(404, "notFound"))?;
    let id = call.attachment.as_deref().unwrap_or_default();
    let Some(contents) = payload::attachment(&raw.bytes(), id) else {
        return Err(Refused::argument("Invalid attachment token"));
    };
    let mut body = format!("{{\"size\":{},\"data\":\"", contents.len());
    encode(&mut body, &contents, manner.padded);
    body.push_str("\"}");
    Ok(body.into_bytes())
}

fn encode(body: &mut String, bytes: &[u8], padded: bool) {
    let engine = if padded { &URL_SAFE } else { &URL_SAFE_NO_PAD };
    engine.encode_string(bytes, body);
}

/// Writing to a string cannot fail.
fn write_text(body: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = body.write_fmt(text);
}

fn write_json_text(body: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        body.push('"');
        body.push_str(text);
        body.push('"');
        return;
    }
    body.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::Position;
    use super::*;

    const MANNER: Manner = Manner {
        page_size_cap: None,
        padded: true,
        generation: 0,
    };

    fn call(method: Method, id: Option<&str>, query: &[(&str, &str)]) -> Call {
        let query = query.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        Call {
            method,
            user: "me".to_owned(),
            id: id.map(str::to_owned),
            attachment: None,
            query: query.collect(),
        }
    }

    fn asked(mailbox: &Mutex<Mailbox>, call: &Call) -> Result<Value, Refused> {
        let body = answer(call, mailbox, &MANNER)?;
        Ok(serde_json::from_slice(&body).unwrap())
    }

    fn ten() -> Mutex<Mailbox> {
        let mut mailbox = Mailbox::new("me@example.com", 1);
        for number in 0..10 {
            mailbox.deliver(
                format!("Subject: {number}\r\n\r\n\"{number}\"\r\n"),
                &["INBOX"],
            );
        }
        Mutex::new(mailbox)
    }

    fn pages(mailbox: &Mutex<Mailbox>, mut between: impl FnMut(&mut Mailbox)) -> Vec<String> {
        let mut ids = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = vec![("maxResults", "3")];
            if let Some(token) = &token {
                query.push(("pageToken", token));
            }
            let page = asked(mailbox, &call(Method::MessagesList, None, &query)).unwrap();
            for message in page["messages"].as_array().unwrap() {
                ids.push(message["id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["nextPageToken"].as_str() else {
                return ids;
            };
            token = Some(next.to_owned());
            between(&mut mailbox.lock().unwrap());
        }
    }

    #[test]
    fn pages_are_newest_first_and_complete() {
        let mailbox = ten();
        let expected = mailbox.lock().unwrap().ids();
        assert_eq!(pages(&mailbox, |_| {}), expected);
    }

    #[test]
    fn arrivals_and_deletions_make_a_listing_skip_nothing() {
        let mailbox = ten();
        let before = mailbox.lock().unwrap().ids();
        let mut gone = Vec::new();
        let listed = pages(&mailbox, |mailbox| {
            mailbox.deliver("Subject: new\r\n\r\nnew", &["INBOX"]);
            // The message that the last page ended with vanishes too.
            let victim = before[2].clone();
            mailbox.delete(&victim);
            gone.push(victim);
        });
        assert!(!gone.is_empty());
        assert_eq!(listed, before);
    }

    #[test]
    fn a_get_is_what_the_documentation_says() {
        let mailbox = ten();
        let id = mailbox.lock().unwrap().ids()[0].clone();
        let raw = asked(
            &mailbox,
            &call(Method::MessagesGet, Some(&id), &[("format", "raw")]),
        );
        let raw = raw.unwrap();
        assert_eq!(raw["id"], id.as_str());
        assert_eq!(raw["threadId"], id.as_str());
        assert_eq!(raw["labelIds"], json!(["INBOX"]));
        assert_eq!(raw["snippet"], "&quot;9&quot;");
        let bytes = URL_SAFE.decode(raw["raw"].as_str().unwrap()).unwrap();
        assert_eq!(bytes, b"Subject: 9\r\n\r\n\"9\"\r\n");
        assert_eq!(raw["sizeEstimate"], bytes.len());
        assert!(raw["historyId"].as_str().unwrap().parse::<u64>().is_ok());
        assert_eq!(raw["internalDate"], "600000");
        let minimal = call(Method::MessagesGet, Some(&id), &[("format", "minimal")]);
        let minimal = asked(&mailbox, &minimal).unwrap();
        assert!(minimal.get("raw").is_none() && minimal.get("payload").is_none());
        let full = asked(&mailbox, &call(Method::MessagesGet, Some(&id), &[])).unwrap();
        assert_eq!(full["payload"]["headers"][0]["value"], "9");
    }

    #[test]
    fn nonsense_is_refused_as_google_refuses_it() {
        let mailbox = ten();
        let token_of_another = PageToken::History.write(
            Position {
                internal_date_ms: 0,
                id: 1,
            },
            &MANNER,
        );
        for (call, code, reason) in [
            (
                call(Method::MessagesGet, Some("zz"), &[]),
                400,
                "invalidArgument",
            ),
            (call(Method::MessagesGet, Some("1f"), &[]), 404, "notFound"),
            (
                call(Method::MessagesList, None, &[("pageToken", "x")]),
                400,
                "invalidArgument",
            ),
            (
                call(
                    Method::MessagesList,
                    None,
                    &[("pageToken", &token_of_another)],
                ),
                400,
                "invalidArgument",
            ),
            (
                call(Method::MessagesList, None, &[("maxResults", "x")]),
                400,
                "invalidArgument",
            ),
            (
                call(Method::MessagesList, None, &[("labelIds", "NO")]),
                400,
                "invalidArgument",
            ),
            (
                call(Method::MessagesList, None, &[("q", "is:unread")]),
                400,
                "invalidArgument",
            ),
            (call(Method::HistoryList, None, &[]), 400, "invalidArgument"),
            (
                call(Method::HistoryList, None, &[("startHistoryId", "x")]),
                400,
                "invalidArgument",
            ),
            (
                call(Method::HistoryList, None, &[("startHistoryId", "1")]),
                404,
                "notFound",
            ),
        ] {
            let refused = asked(&mailbox, &call).unwrap_err();
            assert_eq!((refused.code, refused.reason), (code, reason), "{call:?}");
        }
        let mut other = call(Method::GetProfile, None, &[]);
        other.user = "you@example.com".to_owned();
        assert_eq!(asked(&mailbox, &other).unwrap_err().code, 403);
    }

    #[test]
    fn an_empty_mailbox_has_no_messages_key() {
        let mailbox = Mutex::new(Mailbox::new("me@example.com", 1));
        let page = asked(&mailbox, &call(Method::MessagesList, None, &[])).unwrap();
        assert_eq!(page, json!({"resultSizeEstimate": 0}));
    }
}
