//! Gmail: history before listing, one change a message, whole messages in their original form.
//!
//! A sync starts with everything listed and a history id taken before it; what changes meanwhile
//! stands in the history, which is read every few minutes while a listing is under way and at its
//! end. A resync lists the same, then each label, so that what is gone and what was relabelled shows
//! without getting a message. Nothing here knows what is stored.

mod api;
mod classify;
mod cursor;
mod fetch;
mod history;
mod message;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use serde_json::Value;

use super::{
    Access, Account, Change, Connector, ConnectorError, Cursor, Fetched, Label, Listing, Malformed,
    Normalized, Page, RawItem, Stream, client::ClientError,
};
use crate::domain::{IntegrationId, QuotaTable, ServiceName, record::EMAIL};
use api::{Api, ListMessagesResponse, Selection};
use cursor::{Kind, ListingState, Next, Position, Stage};

/// The connector for Gmail.
#[derive(Debug, Clone)]
pub struct Gmail {
    /// What its calls cost.
    pub quota: QuotaTable,
    /// How many gets of one mailbox are in flight at a time. Google refuses too many; up to ten are
    /// known to do well.
    pub fetch_concurrency: usize,
}

#[async_trait]
impl Connector for Gmail {
    fn service(&self) -> ServiceName {
        ServiceName::Gmail
    }

    fn streams(&self) -> &'static [Stream] {
        &[Stream {
            name: "main",
            data_type: EMAIL,
        }]
    }

    fn user_minute(&self) -> Option<u32> {
        self.quota.user_minute
    }

    fn units_between_saves(&self, items: u32) -> u32 {
        let quota = &self.quota;
        // The labels cost what the profile does.
        quota.get * items + quota.list + quota.history + 2 * quota.profile
    }

    async fn account(&self, access: &Access) -> Result<Account, ConnectorError> {
        let profile = self.api(access).profile().await?;
        let (Some(name), Some(history_id)) = (profile.email_address, profile.history_id) else {
            return Err(ConnectorError::Unavailable(
                "getProfile named no address or no history id".into(),
            ));
        };
        // As text: Gmail's numbers have 64 bits, and JSON's are read as doubles by some.
        Ok(Account {
            id: name.clone(),
            name,
            anchor: Value::String(history_id.to_string()),
        })
    }

    async fn labels(&self, access: &Access) -> Result<Vec<Label>, ConnectorError> {
        let answer = self.api(access).labels().await?;
        let labels = answer.labels.unwrap_or_default().into_iter();
        Ok(labels
            .filter_map(|label| {
                Some(Label {
                    id: label.id?,
                    name: label.name?,
                })
            })
            .collect())
    }

    fn start(
        &self,
        account: &Account,
        _stream: Stream,
        listing: Listing,
        now: DateTime<Utc>,
    ) -> Result<Cursor, ConnectorError> {
        let history_id = account.anchor.as_str().and_then(|text| text.parse().ok());
        let history_id = history_id.ok_or(ConnectorError::CursorExpired)?;
        Position::start(history_id, listing, now).write()
    }

    fn listing(&self, cursor: &Cursor) -> Option<Listing> {
        Position::read(cursor)
            .ok()?
            .listing
            .map(|listing| match listing.kind {
                Kind::Full => Listing::Full,
                Kind::Resync => Listing::Resync,
            })
    }

    async fn changes(&self, access: &Access, cursor: &Cursor) -> Result<Page, ConnectorError> {
        let mut position = Position::read(cursor)?;
        if access.include_spam_trash && !position.covers_spam_trash {
            return Err(ConnectorError::CursorExpired);
        }
        position.covers_spam_trash = access.include_spam_trash;
        let due = position.next(access.clock.now());
        match (due, position.listing.take()) {
            (Next::Listing, Some(listing)) => self.list(access, position, listing).await,
            (_, listing) => {
                position.listing = listing;
                self.follow(access, position).await
            }
        }
    }

    fn fetch<'a>(
        &'a self,
        access: &'a Access,
        ids: Vec<String>,
    ) -> BoxStream<'a, Result<(String, Fetched), ConnectorError>> {
        fetch::fetch(self.api(access), ids, self.fetch_concurrency)
    }

    fn normalize(
        &self,
        item: &RawItem,
        integration: IntegrationId,
        include_spam_trash: bool,
    ) -> Result<Normalized, Malformed> {
        message::normalize(item, integration, include_spam_trash)
    }
}

impl Gmail {
    fn api<'a>(&self, access: &'a Access) -> Api<'a> {
        Api {
            access,
            quota: self.quota,
        }
    }

    /// Reads a page of the history.
    async fn follow(
        &self,
        access: &Access,
        mut position: Position,
    ) -> Result<Page, ConnectorError> {
        let mut pass = position.pass.take().unwrap_or_default();
        let token = pass.page_token.as_deref();
        let answer = match self.api(access).history(position.history_id, token).await {
            Ok(answer) => answer,
            Err(ClientError::NotFound) => return Err(ConnectorError::CursorExpired),
            Err(error) if refuses_token(&error, token) => {
                pass.restart()?;
                position.pass = Some(pass);
                return page(Vec::new(), &position, true);
            }
            Err(error) => return Err(error.into()),
        };
        let changes = history::fold(
            answer.history.unwrap_or_default(),
            access.include_spam_trash,
        );
        let then = pass.then.or(answer.history_id);
        match answer.next_page_token {
            Some(token) => {
                pass.page_token = Some(token);
                pass.then = then;
                position.pass = Some(pass);
                page(changes, &position, true)
            }
            None => {
                let then = then.unwrap_or(position.history_id);
                position.end_pass(then, access.clock.now());
                let more = position.listing.is_some();
                page(changes, &position, more)
            }
        }
    }

    /// Reads a page of the listing.
    async fn list(
        &self,
        access: &Access,
        position: Position,
        mut listing: ListingState,
    ) -> Result<Page, ConnectorError> {
        match listing.stage.clone() {
            Stage::Messages => self.list_messages(access, position, listing).await,
            Stage::LabelNames => {
                let labels = self.label_ids(access).await?;
                listing.enter(Stage::Labels(labels.clone()));
                self.list_label(access, position, listing, labels).await
            }
            Stage::Labels(labels) => self.list_label(access, position, listing, labels).await,
        }
    }

    async fn list_messages(
        &self,
        access: &Access,
        mut position: Position,
        mut listing: ListingState,
    ) -> Result<Page, ConnectorError> {
        let selection = Selection {
            label: None,
            spam_trash: access.include_spam_trash,
            page_token: listing.page_token.as_deref(),
        };
        let answer = match self.api(access).messages(selection).await {
            Ok(answer) => answer,
            Err(error) if refuses_token(&error, selection.page_token) => {
                listing.restart()?;
                position.listing = Some(listing);
                return page(Vec::new(), &position, true);
            }
            Err(error) => return Err(error.into()),
        };
        let (ids, next) = read_list(answer);
        position.listing = match (next, listing.kind) {
            (Some(token), _) => {
                listing.page_token = Some(token);
                Some(listing)
            }
            (None, Kind::Resync) => {
                listing.enter(Stage::LabelNames);
                Some(listing)
            }
            (None, Kind::Full) => None,
        };
        let changes = ids.into_iter().map(Change::Seen).collect();
        page(changes, &position, true)
    }

    /// Reads a page of the messages with the first of `labels`.
    async fn list_label(
        &self,
        access: &Access,
        mut position: Position,
        mut listing: ListingState,
        mut labels: Vec<String>,
    ) -> Result<Page, ConnectorError> {
        let Some(label) = labels.first().cloned() else {
            return last_page(Vec::new(), &position);
        };
        let selection = Selection {
            label: Some(&label),
            spam_trash: true,
            page_token: listing.page_token.as_deref(),
        };
        let (ids, next) = match self.api(access).messages(selection).await {
            Ok(answer) => read_list(answer),
            Err(error) if refuses_token(&error, selection.page_token) => {
                listing.restart()?;
                position.listing = Some(listing);
                return page(Vec::new(), &position, true);
            }
            // A label that was removed meanwhile is on no message.
            Err(error) if denies_label(&error) => {
                if self.label_ids(access).await?.contains(&label) {
                    return Err(error.into());
                }
                (Vec::new(), None)
            }
            Err(error) => return Err(error.into()),
        };
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            changes.push(Change::Labelled(id, label.clone()));
        }
        match next {
            Some(token) => listing.page_token = Some(token),
            None => {
                labels.remove(0);
                if labels.is_empty() {
                    return last_page(changes, &position);
                }
                listing.enter(Stage::Labels(labels));
            }
        }
        position.listing = Some(listing);
        page(changes, &position, true)
    }

    async fn label_ids(&self, access: &Access) -> Result<Vec<String>, ConnectorError> {
        let answer = self.api(access).labels().await?;
        let labels = answer.labels.unwrap_or_default().into_iter();
        Ok(labels.filter_map(|label| label.id).collect())
    }
}

/// The ids of a page, each once, and the token of the next.
fn read_list(answer: ListMessagesResponse) -> (Vec<String>, Option<String>) {
    let mut known = HashSet::new();
    let mut ids = Vec::new();
    for message in answer.messages.unwrap_or_default() {
        let Some(id) = message.id else { continue };
        if known.insert(id.clone()) {
            ids.push(id);
        }
    }
    (ids, answer.next_page_token)
}

fn page(changes: Vec<Change>, position: &Position, more: bool) -> Result<Page, ConnectorError> {
    Ok(Page::of(changes, position.write()?, more))
}

/// The page that ends a resync's listing; the history follows.
fn last_page(changes: Vec<Change>, position: &Position) -> Result<Page, ConnectorError> {
    let mut last = page(changes, position, true)?;
    last.listing_complete = true;
    Ok(last)
}

/// Whether the service no longer takes the page token. It does not say so in words, but without the
/// token the same request was answered.
fn refuses_token(error: &ClientError, page_token: Option<&str>) -> bool {
    page_token.is_some() && is_bad_request(error)
}

fn denies_label(error: &ClientError) -> bool {
    matches!(error, ClientError::NotFound) || is_bad_request(error)
}

fn is_bad_request(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Rejected {
            status: 400,
            code: "rejected",
            ..
        }
    )
}
