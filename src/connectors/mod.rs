//! What a connector is: the code for one service, and nothing of the house around it.
//!
//! A connector is given an [`Access`] and answers with changes and raw items. It knows no table, no
//! topic and no secret store; the runner asks the store between [`Connector::changes`] and
//! [`Connector::fetch`].

mod client;
mod fetching;
mod github;
mod gmail;
mod quota;
#[cfg(test)]
mod testing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    domain::{
        Clock, IntegrationId, QuotaTable, ServiceName,
        record::{LabelDelta, Record},
        sync::SkipReason,
    },
    metrics::Metrics,
};

pub use client::{ApiClient, ClientSetupError, Reached};
pub use github::Github;
pub use gmail::Gmail;
pub use quota::{Governor, Spending, Ticket};

/// So many items in a row that cannot be had mean that nothing can be had: [`Connector::fetch`] then
/// ends with [`ConnectorError::Unavailable`]. Of fewer items each is answered for itself.
pub const OUTAGE: usize = 5;

/// Everything a connector may touch while it works for one integration.
#[derive(Clone)]
pub struct Access {
    /// Whose calls these are.
    pub service: ServiceName,
    /// What stands before the service's own paths, for instance `https://gmail.googleapis.com`.
    pub base_url: Url,
    /// Makes the calls.
    pub client: ApiClient,
    /// Gives access tokens.
    pub tokens: Arc<dyn TokenProvider>,
    /// Keeps the account's quota.
    pub governor: Arc<Governor>,
    /// The one source of time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Waits that the service asks for are kept as long as they end by then.
    pub patient_until: DateTime<Utc>,
    /// Whether spam and trash are wanted (`sync_settings.include_spam_trash`).
    pub include_spam_trash: bool,
    /// Once it is cancelled, [`Connector::fetch`] begins no further call. Those under way are answered:
    /// they are paid for.
    pub leaving: CancellationToken,
}

/// Gives the access token of one integration.
#[async_trait]
pub trait TokenProvider: Send + Sync {
    /// A token that is valid now, as far as is known.
    async fn access_token(&self) -> Result<SecretString, ConnectorError>;

    /// The service answered 401 to `rejected`: gives another token, from the store or by a refresh.
    async fn replace(&self, rejected: &SecretString) -> Result<SecretString, ConnectorError>;

    /// The service answered 401 to a token that was replaced just now: says what that means.
    async fn refused(&self) -> ConnectorError;
}

/// The account behind the credentials, and where its changes start.
#[derive(Debug, Clone)]
pub struct Account {
    /// What names the account for good, as [`crate::providers::Who`] of its service reads it.
    pub id: String,
    /// What people know it by.
    pub name: String,
    /// From where changes can be followed that happen after this answer, in the connector's terms.
    pub anchor: Value,
}

/// A label of an account.
#[derive(Debug, Clone)]
pub struct Label {
    /// The service's id of it, as records have it.
    pub id: String,
    /// What the person called it.
    pub name: String,
}

/// Where the next fetch of a stream starts. Opaque outside its connector.
pub type Cursor = Value;

/// Items of an account that are followed with a cursor of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Names its cursor; stays as it is.
    pub name: &'static str,
    /// The `data_type` of the records of which its listing can show that they are gone.
    pub data_type: &'static str,
}

/// What a listing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Nothing is stored yet.
    Full,
    /// Rows are stored and the cursor is lost: everything that exists is shown with its labels, so
    /// that rows not shown can be erased and labels repaired.
    Resync,
    /// The service tells in no other way what is gone: the stream is listed whole whenever anything in
    /// it changed. Its pages may shift while they are read, so a row that one such listing lacks is
    /// erased only when the next one lacks it too.
    Inventory,
}

impl Listing {
    /// Whether rows that the listing does not show no longer exist.
    pub fn shows_everything(self) -> bool {
        matches!(self, Self::Resync | Self::Inventory)
    }
}

/// One thing that a page says.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The item exists; fetch it unless it is stored.
    Seen(String),
    /// The item changed; fetch it although it is stored.
    Changed(String),
    /// The item came with the page, whole: its id, and what the service says of it.
    Given(String, Bytes),
    /// Labels changed. Applied where the item is stored; where it is not, it is fetched if
    /// `or_fetch`, and otherwise not wanted.
    Patch {
        /// The item.
        id: String,
        /// What changed.
        delta: LabelDelta,
        /// Whether an item that is not stored is wanted now.
        or_fetch: bool,
    },
    /// The item no longer exists.
    Gone(String),
    /// The item exists and is deliberately not wanted, for instance new spam.
    Unwanted(String, SkipReason),
    /// Only in a resync: the item exists and has this label. It is not to be fetched for that.
    Labelled(String, String),
}

/// What one call of [`Connector::changes`] found.
#[derive(Debug)]
pub struct Page {
    /// In order; at most one change of each kind an id.
    pub changes: Vec<Change>,
    /// Where to go on, once every change of this page is stored.
    pub next: Cursor,
    /// Whether there is more to be had from `next` now.
    pub more: bool,
    /// This page is the first of an inventory.
    pub inventory_begins: bool,
    /// This page ends a listing that shows everything: stored rows that it did not show no longer
    /// exist, and after a resync the labels it showed are all there are.
    pub listing_complete: bool,
    /// With the page that ends a listing: where to go on if another one has to confirm what is gone, to
    /// list all of it again. From the stream's start if absent.
    pub again: Option<Cursor>,
}

impl Page {
    /// A page that neither begins nor ends a listing.
    pub fn of(changes: Vec<Change>, next: Cursor, more: bool) -> Self {
        Self {
            changes,
            next,
            more,
            inventory_begins: false,
            listing_complete: false,
            again: None,
        }
    }
}

/// The answer of the service about one item, not yet understood.
pub struct RawItem {
    /// The service's id of the item, opaque.
    pub id: String,
    /// The answer's body.
    pub body: Bytes,
    /// Held while the item is in memory, if it is a large one.
    pub large: Option<OwnedSemaphorePermit>,
}

/// What became of one fetch.
pub enum Fetched {
    /// Here it is.
    Raw(RawItem),
    /// The service no longer has it.
    Missing,
    /// The service answers, and does not give this item, though it may still be there; the text says why
    /// and holds no secret.
    Withheld(String),
    /// Deliberately not taken.
    Skipped(SkipReason),
    /// This item failed, others may do well; the text says why and holds no secret.
    Failed(String),
}

/// What a raw item turned out to be.
pub enum Normalized {
    /// To be stored.
    Record(Box<Record>),
    /// Deliberately not stored.
    Skipped(SkipReason),
}

/// An answer that does not hold what the service promises.
#[derive(Debug, thiserror::Error)]
#[error("malformed item: {0}")]
pub struct Malformed(pub String);

/// Why a connector could not go on. Each variant is a decision for the runner.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ConnectorError {
    /// The consent ran out; the person has to connect again.
    #[error("the consent has expired: {0}")]
    Expired(String),
    /// The consent was withdrawn; the person has to connect again.
    #[error("access was revoked: {0}")]
    Revoked(String),
    /// Too much was asked for.
    #[error("rate limited, to be tried again in {} s", retry_after.as_secs())]
    RateLimited {
        /// How long to stay away.
        retry_after: Duration,
    },
    /// The network or the service failed; nothing is known to be wrong with the request.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The cursor is too old, or covers less than is wanted now; everything has to be listed again.
    #[error("the cursor is no longer accepted")]
    CursorExpired,
    /// The service will not do this, however often it is asked.
    #[error("{detail}")]
    Rejected {
        /// Stable, snake case, for instance `insufficient_permissions`.
        code: &'static str,
        /// For people, with the mend; holds no secret.
        detail: String,
    },
}

/// The code for one service.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Its name.
    fn service(&self) -> ServiceName;

    /// What is followed with a cursor of its own, in the order in which it is followed.
    fn streams(&self) -> &'static [Stream];

    /// Units an account may spend a minute; none where no budget is kept.
    fn user_minute(&self) -> Option<u32>;

    /// Units that fetching so many items costs, with the other calls that may come between two saves: a
    /// page, whose the credentials are, the labels.
    fn units_between_saves(&self, items: u32) -> u32;

    /// Asks who connected, and from where changes can be followed.
    async fn account(&self, access: &Access) -> Result<Account, ConnectorError>;

    /// Asks for all labels of the account. Asked only of a service whose exports know labels by their
    /// names.
    async fn labels(&self, _access: &Access) -> Result<Vec<Label>, ConnectorError> {
        Ok(Vec::new())
    }

    /// A cursor from which [`Connector::changes`] lists everything in `stream` and then follows what
    /// changed since `account` was asked for, which was just now.
    fn start(
        &self,
        account: &Account,
        stream: Stream,
        listing: Listing,
        now: DateTime<Utc>,
    ) -> Result<Cursor, ConnectorError>;

    /// The listing that `cursor` is in the middle of.
    fn listing(&self, cursor: &Cursor) -> Option<Listing>;

    /// From where the listing that `cursor` is in the middle of begins anew, with what is known whatever
    /// becomes of it. From the stream's start if absent.
    fn anew(&self, _cursor: &Cursor) -> Option<Cursor> {
        None
    }

    /// The page at `cursor`, which says of which stream. What is live comes before what is being
    /// filled in from the past.
    async fn changes(&self, access: &Access, cursor: &Cursor) -> Result<Page, ConnectorError>;

    /// Fetches items, several at a time, in any order; each id is answered once. An error ends the
    /// stream: it concerns all the ids that were not answered. So does [`Access::leaving`], without
    /// an error.
    fn fetch<'a>(
        &'a self,
        access: &'a Access,
        ids: Vec<String>,
    ) -> BoxStream<'a, Result<(String, Fetched), ConnectorError>>;

    /// What an item is. Pure and possibly slow: called where blocking is allowed.
    fn normalize(
        &self,
        item: &RawItem,
        integration: IntegrationId,
        include_spam_trash: bool,
    ) -> Result<Normalized, Malformed>;
}

/// Every connector, by its service's name. `gmail_quota` is what Gmail's calls cost, and
/// `fetch_concurrency` how many gets of one mailbox are in flight at a time.
pub fn registry(
    gmail_quota: QuotaTable,
    fetch_concurrency: usize,
) -> BTreeMap<ServiceName, Arc<dyn Connector>> {
    let connectors: [Arc<dyn Connector>; 2] = [
        Arc::new(Gmail {
            quota: gmail_quota,
            fetch_concurrency,
        }),
        Arc::new(Github),
    ];
    connectors
        .into_iter()
        .map(|connector| (connector.service(), connector))
        .collect()
}
