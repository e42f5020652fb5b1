//! The repositories that the account can see, walked through whenever a pass begins: which are new, which
//! are no longer there, and which were pushed to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::{Change, client::ClientError},
    api::{Api, List, is_not_accessible, read_all},
};
use crate::domain::sync::SkipReason;

/// In an order in which a push moves none, and a new one changes the first page.
pub(super) const REPOSITORIES: List<'static> = List {
    method: "repos.list",
    path: &["user", "repos"],
    query: &[
        ("affiliation", "owner,collaborator,organization_member"),
        ("sort", "created"),
        ("direction", "desc"),
    ],
};

/// One of them.
#[derive(Deserialize)]
pub(super) struct Repository {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) owner: Owner,
    /// Absent where nobody has pushed yet.
    pub(super) pushed_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
pub(super) struct Owner {
    pub(super) login: String,
}

/// A page of them, as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    etag: Option<String>,
    next: Option<String>,
    ids: Vec<u64>,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Walk {
    /// Those on pages that changed.
    pub(super) changed: Vec<Repository>,
    /// What could not be read.
    pub(super) skipped: Vec<Change>,
}

/// Whether a repository stands on one of the pages.
pub(super) fn has(pages: &[Seen], id: u64) -> bool {
    pages.iter().any(|page| page.ids.contains(&id))
}

/// Has the page with this repository read at the next walk, changed or not.
pub(super) fn look_again(pages: &mut [Seen], id: u64) {
    for page in pages.iter_mut().filter(|page| page.ids.contains(&id)) {
        page.etag = None;
    }
}

/// Walks through the list whose pages were `pages`, and leaves there what they are. The list is
/// empty where these credentials may not read it.
pub(super) async fn walk(api: Api<'_>, pages: &mut Vec<Seen>) -> Result<Walk, ClientError> {
    let mut walk = Walk::default();
    let mut seen: Vec<Seen> = Vec::with_capacity(pages.len());
    loop {
        let before = pages.get(seen.len());
        let etag = before.and_then(|page| page.etag.as_deref());
        let link = seen.last().and_then(|page| page.next.as_deref());
        let page = match api.list(REPOSITORIES, link, etag).await {
            Ok(None) => before.cloned(),
            Ok(Some(items)) => {
                let (heads, skipped) = read_all(items.items, REPOSITORIES.method);
                walk.skipped.extend(skipped);
                let (repositories, _): (Vec<Repository>, Vec<_>) = heads.into_iter().unzip();
                let ids = repositories
                    .iter()
                    .map(|repository| repository.id)
                    .collect();
                walk.changed.extend(repositories);
                Some(Seen {
                    etag: items.etag,
                    next: items.next,
                    ids,
                })
            }
            Err(error) if is_not_accessible(&error) => {
                let list = REPOSITORIES.method;
                tracing::warn!(list, error = %error, "a list is not accessible");
                let skipped = Change::Unwanted(list.to_owned(), SkipReason::NotAccessible);
                pages.clear();
                return Ok(Walk {
                    changed: Vec::new(),
                    skipped: vec![skipped],
                });
            }
            Err(error) => return Err(error),
        };
        let is_last = page.as_ref().is_none_or(|page| page.next.is_none());
        seen.extend(page);
        if is_last {
            *pages = seen;
            return Ok(walk);
        }
    }
}
