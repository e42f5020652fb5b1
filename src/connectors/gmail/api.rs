//! Gmail's calls, and the only file that uses the types of `google-gmail1`. What the answers mean for
//! a sync is not decided here.
//!
//! Reference: <https://developers.google.com/workspace/gmail/api/reference/rest>.

use serde::de::DeserializeOwned;

pub(super) use google_gmail1::api::{
    History, ListHistoryResponse, ListLabelsResponse, ListMessagesResponse, Message, Profile,
};

use super::{
    super::{
        Access,
        client::{ClientError, Reply, Request, Shape, Target},
    },
    classify::classify,
};
use crate::domain::QuotaTable;

/// What Gmail gives at most on one page.
const PAGE_SIZE: &str = "500";
/// For a page of history that is too large: one record may name a thousand messages.
const SMALL_PAGE_SIZE: &str = "20";
/// The largest page taken, in bytes; 500 ids with their thread ids have 25 KB.
const PAGE_CAP: usize = 16 * 1024 * 1024;
/// The largest message taken, in bytes: what Gmail itself receives at most
/// (<https://support.google.com/a/answer/1366776>).
pub(super) const MESSAGE_BYTES: usize = 50 * 1024 * 1024;
/// That as base64 in JSON, with room for labels and snippet.
const MESSAGE_CAP: usize = MESSAGE_BYTES.div_ceil(3) * 4 + 256 * 1024;
/// How often a page is asked for whose JSON cannot be read.
const PARSE_ATTEMPTS: usize = 3;

const HISTORY_FIELDS: &str = "history(messagesAdded(message(id,labelIds)),\
     messagesDeleted(message(id)),labelsAdded(labelIds,message(id)),\
     labelsRemoved(labelIds,message(id))),nextPageToken,historyId";
const MESSAGE_FIELDS: &str = "id,threadId,labelIds,snippet,historyId,internalDate,raw";

/// Which messages are listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    /// Only with this label.
    pub(super) label: Option<&'a str>,
    /// Also those in spam and trash.
    pub(super) spam_trash: bool,
    /// Where the page before ended.
    pub(super) page_token: Option<&'a str>,
}

/// The calls for one account.
#[derive(Clone, Copy)]
pub(super) struct Api<'a> {
    pub(super) access: &'a Access,
    pub(super) quota: QuotaTable,
}

impl Api<'_> {
    pub(super) async fn profile(&self) -> Result<Profile, ClientError> {
        let units = self.quota.profile;
        self.page(&["profile"], &[], units, "getProfile").await
    }

    pub(super) async fn labels(&self) -> Result<ListLabelsResponse, ClientError> {
        let query = [("fields", "labels(id,name)")];
        let units = self.quota.profile;
        self.page(&["labels"], &query, units, "labels.list").await
    }

    pub(super) async fn messages(
        &self,
        selection: Selection<'_>,
    ) -> Result<ListMessagesResponse, ClientError> {
        let mut query = vec![
            ("maxResults", PAGE_SIZE),
            ("fields", "messages(id),nextPageToken"),
        ];
        if selection.spam_trash {
            query.push(("includeSpamTrash", "true"));
        }
        if let Some(label) = selection.label {
            query.push(("labelIds", label));
        }
        if let Some(token) = selection.page_token {
            query.push(("pageToken", token));
        }
        let units = self.quota.list;
        self.page(&["messages"], &query, units, "messages.list")
            .await
    }

    pub(super) async fn history(
        &self,
        start: u64,
        page_token: Option<&str>,
    ) -> Result<ListHistoryResponse, ClientError> {
        match self.history_page(start, page_token, PAGE_SIZE).await {
            Err(ClientError::TooLarge(_)) => {
                self.history_page(start, page_token, SMALL_PAGE_SIZE).await
            }
            answer => answer,
        }
    }

    async fn history_page(
        &self,
        start: u64,
        page_token: Option<&str>,
        size: &str,
    ) -> Result<ListHistoryResponse, ClientError> {
        let start = start.to_string();
        let mut query = vec![
            ("startHistoryId", start.as_str()),
            ("maxResults", size),
            ("historyTypes", "messageAdded"),
            ("historyTypes", "messageDeleted"),
            ("historyTypes", "labelAdded"),
            ("historyTypes", "labelRemoved"),
            ("fields", HISTORY_FIELDS),
        ];
        if let Some(token) = page_token {
            query.push(("pageToken", token));
        }
        let units = self.quota.history;
        self.page(&["history"], &query, units, "history.list").await
    }

    /// A whole message as Gmail answers it, not yet read.
    pub(super) async fn message(&self, id: &str) -> Result<Reply, ClientError> {
        let query = [("format", "raw"), ("fields", MESSAGE_FIELDS)];
        let path = ["gmail", "v1", "users", "me", "messages", id];
        let request = Request {
            method: "messages.get",
            target: Target::Path {
                path: &path,
                query: &query,
            },
            headers: &[],
            shape: Shape::Object,
            units: self.quota.get,
            cap: MESSAGE_CAP,
            classify,
        };
        self.access.client.get(self.access, request).await
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        units: u32,
        method: &'static str,
    ) -> Result<T, ClientError> {
        let path = [&["gmail", "v1", "users", "me"], path].concat();
        let request = Request {
            method,
            target: Target::Path { path: &path, query },
            headers: &[],
            shape: Shape::Object,
            units,
            cap: PAGE_CAP,
            classify,
        };
        // A list that was cut may end like a whole one.
        let mut attempts = 1;
        loop {
            let reply = self.access.client.get(self.access, request).await?;
            let error = match serde_json::from_slice(&reply.body) {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            if attempts == PARSE_ATTEMPTS {
                return Err(ClientError::Unavailable(format!(
                    "{method} answered no readable JSON: {}",
                    place(&error)
                )));
            }
            attempts += 1;
        }
    }
}

/// Where and how JSON is wrong, without what stands there.
pub(super) fn place(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "it is cut",
        serde_json::error::Category::Syntax => "bad syntax",
        serde_json::error::Category::Data => "unexpected type",
        serde_json::error::Category::Io => "cannot be read",
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}
