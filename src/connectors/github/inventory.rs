//! Lists that GitHub gives whole and in no other way: repositories, stars, gists.
//!
//! As long as no page changed, nothing is read: each page is asked for with its entity tag, and that it
//! is the same costs nothing. Otherwise the whole list is read, and what it lacks is gone. The newest
//! come first: an item that is new changes the first page, where at the end it could be on a page of its
//! own that nobody knows of.

use serde::Deserialize;

use super::{
    super::{Change, ConnectorError, Page, client::ClientError},
    api::{Api, Items, List, is_not_accessible, read_all},
    cursor::{Inventory, Mark, Position, Under, last_over},
    repositories,
};
use crate::domain::sync::SkipReason;

/// One of the lists.
pub(super) struct Listed {
    /// How its calls are made.
    pub(super) list: List<'static>,
    /// Before the service's id in the id of a record.
    pub(super) prefix: &'static str,
    /// Without this scope a token of the old kind is not shown all that is in it.
    pub(super) scope: &'static str,
    /// Whether an item's contents come only when it is asked for.
    pub(super) is_fetched: bool,
    /// The position in it.
    pub(super) position: fn(Inventory) -> Position,
}

pub(super) const REPOSITORIES: Listed = Listed {
    list: repositories::REPOSITORIES,
    prefix: "repository",
    scope: "repo",
    is_fetched: false,
    position: Position::Repositories,
};

pub(super) const STARRED: Listed = Listed {
    list: List {
        method: "starred.list",
        path: &["user", "starred"],
        query: &[("sort", "created"), ("direction", "desc")],
    },
    prefix: "star",
    scope: "repo",
    is_fetched: false,
    position: Position::Starred,
};

pub(super) const GISTS: Listed = Listed {
    list: List {
        method: "gists.list",
        path: &["gists"],
        query: &[],
    },
    prefix: "gist",
    scope: "gist",
    is_fetched: true,
    position: Position::Gists,
};

/// What of an item is needed here.
#[derive(Deserialize)]
#[serde(from = "Answered")]
struct Head {
    id: String,
    updated_at: Option<String>,
}

/// An item, or the repository within a star.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Star { repo: Item },
    Item(Item),
}

#[derive(Deserialize)]
struct Item {
    id: Id,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl From<Answered> for Head {
    fn from(answered: Answered) -> Self {
        let (Answered::Star { repo: item } | Answered::Item(item)) = answered;
        let id = match item.id {
            Id::Number(id) => id.to_string(),
            Id::Text(id) => id,
        };
        Self {
            id,
            updated_at: item.updated_at,
        }
    }
}

/// See [`super::super::Connector::changes`].
pub(super) async fn changes(
    api: Api<'_>,
    listed: &Listed,
    mut inventory: Inventory,
) -> Result<Page, ConnectorError> {
    let (under, begins) = match inventory.listing.take() {
        Some(under) => (under, false),
        None => {
            let over = last_over(api.access.clock.now());
            let under = Under {
                over,
                ..Under::default()
            };
            (under, true)
        }
    };
    let answer = match begins {
        true => changed(api, listed, &inventory).await,
        false => api.list(listed.list, under.link.as_deref(), None).await,
    };
    let page = match answer {
        Ok(page) => page,
        Err(error) if begins && is_not_accessible(&error) => {
            tracing::warn!(list = listed.list.method, error = %error, "a list is not accessible");
            let reason = SkipReason::NotAccessible;
            let skipped = Change::Unwanted(listed.list.method.to_owned(), reason);
            let next = (listed.position)(inventory.anew()).write()?;
            return Ok(Page::of(vec![skipped], next, false));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(items) = page else {
        let next = (listed.position)(inventory).write()?;
        return Ok(Page::of(Vec::new(), next, false));
    };
    if begins {
        inventory.pages.clear();
    }
    take(listed, inventory, under, items, begins)
}

/// The first page, if any page changed.
async fn changed(
    api: Api<'_>,
    listed: &Listed,
    inventory: &Inventory,
) -> Result<Option<Items>, ClientError> {
    let mut link = None;
    for mark in &inventory.pages {
        let Some(etag) = &mark.etag else { break };
        match api.list(listed.list, link, Some(etag)).await? {
            None if mark.next.is_none() => return Ok(None),
            None => link = mark.next.as_deref(),
            Some(first) if link.is_none() => return Ok(Some(first)),
            Some(_) => break,
        }
    }
    api.list(listed.list, None, None).await
}

/// Takes a page of the whole list.
fn take(
    listed: &Listed,
    mut inventory: Inventory,
    mut under: Under,
    items: Items,
    begins: bool,
) -> Result<Page, ConnectorError> {
    let (heads, mut changes) = read_all::<Head>(items.items, listed.list.method);
    // What could not be read is not gone.
    under.is_partial |= items.is_partial || !changes.is_empty();
    let is_narrower = is_narrower(
        listed.scope,
        inventory.scopes.as_deref(),
        items.scopes.as_deref(),
    );
    if is_narrower {
        under.is_partial = true;
        tracing::warn!(
            list = listed.list.method,
            scope = listed.scope,
            "the token lacks the scope that the one before had; nothing is taken to be gone"
        );
    }
    for (head, item) in heads {
        let id = format!("{}:{}", listed.prefix, head.id);
        if !listed.is_fetched {
            changes.push(Change::Given(id, item));
            continue;
        }
        let is_changed = head.updated_at > inventory.newest;
        let settled = head.updated_at.filter(|second| *second <= under.over);
        under.newest = under.newest.max(settled);
        changes.push(match is_changed {
            true => Change::Changed(id),
            false => Change::Seen(id),
        });
    }
    inventory.pages.push(Mark {
        etag: items.etag,
        next: items.next.clone(),
    });
    if items.next.is_some() {
        under.link = items.next;
        inventory.listing = Some(under);
        let next = (listed.position)(inventory).write()?;
        return Ok(Page {
            inventory_begins: begins,
            ..Page::of(changes, next, true)
        });
    }
    if !is_narrower {
        inventory.scopes = items.scopes.or(inventory.scopes);
    }
    // What it does not show, because it was left out or shifted, may have changed before what it shows.
    let again = inventory.anew();
    if !under.is_partial {
        inventory.newest = under.newest.max(inventory.newest);
    }
    Ok(Page {
        inventory_begins: begins,
        listing_complete: !under.is_partial,
        again: Some((listed.position)(again).write()?),
        ..Page::of(changes, (listed.position)(inventory).write()?, false)
    })
}

/// Whether a token lacks `scope`, which one before it had. Of a fine-grained token GitHub tells none.
fn is_narrower(scope: &str, before: Option<&str>, now: Option<&str>) -> bool {
    let (Some(before), Some(now)) = (before, now) else {
        return false;
    };
    let has = |scopes: &str| scopes.split(',').any(|other| other.trim() == scope);
    has(before) && !has(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_narrower_that_lacks_the_scope_of_the_list_and_no_other() {
        let narrower = |before: &str, now: &str| is_narrower("gist", Some(before), Some(now));
        assert!(narrower("repo, gist", "repo"));
        assert!(narrower("gist", ""));
        assert!(!narrower("gist, repo", "repo,gist, read:user"));
        assert!(!narrower("gist, read:user, repo", "gist, repo, user"));
        assert!(!narrower("read:user, gist", "gist"));
        assert!(!narrower("", "repo"));
        assert!(!is_narrower("repo", None, Some("repo")));
        assert!(!is_narrower("repo", Some("repo"), None));
    }
}
