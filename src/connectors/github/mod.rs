//! GitHub: what a person keeps, asks, answers and writes there, each followed by a cursor of its own.
//!
//! What GitHub lists by time is followed by time; what it only lists whole is read whole whenever it
//! changed, and shows what is gone. Items come with their lists, gists apart. Calls are made one after
//! the other, as GitHub asks
//! (<https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>).
//! Nothing here knows what is stored.

mod api;
mod classify;
mod commits;
mod cursor;
mod inventory;
mod issues;
mod jobs;
mod markdown;
mod record;
mod repositories;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde_json::json;

use super::{
    Access, Account, Change, Connector, ConnectorError, Cursor, Fetched, Listing, Malformed,
    Normalized, Page, RawItem, Stream, client::ClientError, fetching,
};
use crate::domain::{IntegrationId, ServiceName, sync::SkipReason};
use api::{Api, is_not_accessible, read};
use classify::DELETED;
use cursor::{Commits, Inventory, Issues, Position};

/// Requests a minute of one account, below the 900 points that GitHub grants before it refuses.
///
/// Source: <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>
const USER_MINUTE: u32 = 850;

/// Gists that are got at a time.
const FETCH_CONCURRENCY: usize = 1;
/// Before the id of a gist in the id of its record.
const GIST: &str = "gist:";

const STREAMS: [Stream; 6] = [
    Stream {
        name: "profile",
        data_type: "github_profile",
    },
    Stream {
        name: "repositories",
        data_type: "github_repository",
    },
    Stream {
        name: "issues",
        data_type: "github_issue",
    },
    Stream {
        name: "commits",
        data_type: "github_commit",
    },
    Stream {
        name: "starred",
        data_type: "github_star",
    },
    Stream {
        name: "gists",
        data_type: "github_gist",
    },
];

/// The connector for GitHub.
#[derive(Debug, Clone)]
pub struct Github;

#[derive(Deserialize)]
struct User {
    login: String,
    id: u64,
}

#[async_trait]
impl Connector for Github {
    fn service(&self) -> ServiceName {
        ServiceName::Github
    }

    fn streams(&self) -> &'static [Stream] {
        &STREAMS
    }

    fn user_minute(&self) -> Option<u32> {
        Some(USER_MINUTE)
    }

    fn units_between_saves(&self, items: u32) -> u32 {
        // Whose the credentials are, the way through the repositories and a page of one of them; what
        // has not changed since costs nothing.
        items + 3
    }

    async fn account(&self, access: &Access) -> Result<Account, ConnectorError> {
        let Some((body, _)) = Api { access }.user(None).await? else {
            return Err(ConnectorError::Unavailable(
                "user.get answered nothing".into(),
            ));
        };
        let user: User = read(&body, "user.get")?;
        Ok(Account {
            id: user.id.to_string(),
            anchor: json!(user.login),
            name: user.login,
        })
    }

    fn start(
        &self,
        _account: &Account,
        stream: Stream,
        _listing: Listing,
        _now: DateTime<Utc>,
    ) -> Result<Cursor, ConnectorError> {
        let position = match stream.name {
            "profile" => Position::Profile { etag: None },
            "repositories" => Position::Repositories(Inventory::default()),
            "issues" => Position::Issues(Issues::default()),
            "commits" => Position::Commits(Commits::default()),
            "starred" => Position::Starred(Inventory::default()),
            _ => Position::Gists(Inventory::default()),
        };
        position.write()
    }

    fn listing(&self, cursor: &Cursor) -> Option<Listing> {
        match Position::read(cursor).ok()? {
            Position::Repositories(inventory)
            | Position::Starred(inventory)
            | Position::Gists(inventory) => inventory.listing.map(|_| Listing::Inventory),
            Position::Profile { .. } | Position::Issues(_) | Position::Commits(_) => None,
        }
    }

    fn anew(&self, cursor: &Cursor) -> Option<Cursor> {
        let position = match Position::read(cursor).ok()? {
            Position::Repositories(inventory) => Position::Repositories(inventory.anew()),
            Position::Starred(inventory) => Position::Starred(inventory.anew()),
            Position::Gists(inventory) => Position::Gists(inventory.anew()),
            Position::Profile { .. } | Position::Issues(_) | Position::Commits(_) => return None,
        };
        position.write().ok()
    }

    async fn changes(&self, access: &Access, cursor: &Cursor) -> Result<Page, ConnectorError> {
        let api = Api { access };
        match Position::read(cursor)? {
            Position::Profile { etag } => profile(api, etag).await,
            Position::Repositories(of) => {
                inventory::changes(api, &inventory::REPOSITORIES, of).await
            }
            Position::Starred(of) => inventory::changes(api, &inventory::STARRED, of).await,
            Position::Gists(of) => inventory::changes(api, &inventory::GISTS, of).await,
            Position::Issues(issues) => issues::changes(api, issues).await,
            Position::Commits(commits) => commits::changes(api, commits).await,
        }
    }

    fn fetch<'a>(
        &'a self,
        access: &'a Access,
        ids: Vec<String>,
    ) -> BoxStream<'a, Result<(String, Fetched), ConnectorError>> {
        let api = Api { access };
        fetching::each(access, ids, FETCH_CONCURRENCY, move |id| fetch(api, id))
    }

    fn normalize(
        &self,
        item: &RawItem,
        integration: IntegrationId,
        _include_spam_trash: bool,
    ) -> Result<Normalized, Malformed> {
        record::normalize(item, integration)
    }
}

/// Whether the person says something else of themselves.
async fn profile(api: Api<'_>, etag: Option<String>) -> Result<Page, ConnectorError> {
    let answer = api.user(etag.as_deref()).await?;
    let (changes, etag) = match answer {
        None => (Vec::new(), etag),
        Some((body, etag)) => {
            let user: User = read(&body, "user.get")?;
            (
                vec![Change::Given(format!("profile:{}", user.id), body)],
                etag,
            )
        }
    };
    let next = Position::Profile { etag }.write()?;
    Ok(Page::of(changes, next, false))
}

/// One gist. Whatever else there is came with its list and cannot be asked for by its id; who asks for
/// it only learns whether the service answers.
async fn fetch(api: Api<'_>, id: String) -> (String, Result<Fetched, ClientError>) {
    let Some(gist) = id.strip_prefix(GIST) else {
        let answer = api.user(None).await;
        return (id, answer.map(|_| Fetched::Skipped(SkipReason::Malformed)));
    };
    let fetched = match api.gist(gist).await {
        Ok(body) => Ok(Fetched::Raw(RawItem {
            id: id.clone(),
            body,
            large: None,
        })),
        Err(ClientError::Rejected { code: DELETED, .. }) => Ok(Fetched::Missing),
        // The list shows what is gone; what it shows may be had later.
        Err(error @ ClientError::NotFound) => Ok(Fetched::Withheld(error.to_string())),
        Err(ClientError::TooLarge(_)) => Ok(Fetched::Skipped(SkipReason::TooLarge)),
        Err(error) if is_not_accessible(&error) => Ok(Fetched::Skipped(SkipReason::NotAccessible)),
        Err(error) => Err(error),
    };
    (id, fetched)
}
