//! Issues and pull requests in the order in which they changed, and their comments.
//!
//! Pages by number would lose what moves to the end while they are read, so each page begins with the
//! second in which the last of the page before changed.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{
    super::{Change, ConnectorError, Page},
    api::{Api, Items, List, Part, is_not_accessible, read},
    cursor::{Issues, MAX_TRIES, Position, Thread, is_over},
};
use crate::domain::sync::SkipReason;

const METHOD: &str = "issues.list";
/// What of an issue is needed here.
#[derive(Deserialize)]
struct Head {
    id: u64,
    number: u64,
    updated_at: String,
    repository_url: String,
    #[serde(default)]
    comments: u64,
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct CommentHead {
    id: u64,
}

/// See [`super::super::Connector::changes`].
pub(super) async fn changes(api: Api<'_>, mut issues: Issues) -> Result<Page, ConnectorError> {
    if issues.is_resting {
        issues.is_read = false;
        issues.threads.append(&mut issues.later);
    }
    if let Some(thread) = issues.threads.pop_front() {
        return comments(api, issues, thread).await;
    }
    let mut query = vec![
        ("filter", "all"),
        ("state", "all"),
        ("sort", "updated"),
        ("direction", "asc"),
    ];
    let since = issues.since.clone();
    if let Some(since) = &since {
        query.push(("since", since));
    }
    let list = List {
        method: METHOD,
        path: &["issues"],
        query: &query,
    };
    let link = issues.link.as_deref();
    let etag = issues.etag.as_deref().filter(|_| link.is_none());
    match api.list(list, link, etag).await {
        Ok(None) => {
            issues.is_read = true;
            page(issues, Vec::new())
        }
        Ok(Some(items)) => take(issues, items, api.access.clock.now()),
        Err(error) if is_not_accessible(&error) => {
            tracing::warn!(list = METHOD, error = %error, "a list is not accessible");
            let skipped = Change::Unwanted(METHOD.to_owned(), SkipReason::NotAccessible);
            issues.is_read = true;
            page(issues, vec![skipped])
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes a page of issues.
fn take(mut issues: Issues, items: Items, now: DateTime<Utc>) -> Result<Page, ConnectorError> {
    let mut changes = Vec::with_capacity(items.items.len());
    let mut heads = Vec::with_capacity(items.items.len());
    for item in items.items {
        let head: Head = read(&item, METHOD)?;
        let is_known =
            issues.since.as_ref() == Some(&head.updated_at) && issues.seen.contains(&head.id);
        if !is_known {
            issues.threads.extend(threads(&head)?);
            changes.push(Change::Given(format!("issue:{}", head.id), item));
        }
        heads.push(head);
    }
    let newest = heads.iter().map(|head| &head.updated_at).max().cloned();
    let moves = newest.is_some() && newest > issues.since;
    if moves {
        issues.since = newest;
        issues.seen.clear();
        issues.etag = None;
        issues.link = None;
    } else {
        // What changes comes last: a page says that nothing did only if it would be on this one.
        let is_last = issues.link.is_none() && items.next.is_none() && !items.is_full;
        issues.etag = items.etag.filter(|_| is_last);
        issues.link = items.next;
    }
    if issues
        .since
        .as_ref()
        .is_some_and(|since| is_over(since, now))
    {
        for head in heads {
            let is_last = issues.since.as_ref() == Some(&head.updated_at);
            if is_last && !issues.seen.contains(&head.id) {
                issues.seen.push(head.id);
            }
        }
    }
    // Those of a second that is not over come once more, and that once is enough.
    issues.is_read = !moves && issues.link.is_none();
    page(issues, changes)
}

/// The comments to be read of an issue that changed.
fn threads(head: &Head) -> Result<Vec<Thread>, ConnectorError> {
    let mut names = head.repository_url.rsplit('/');
    let (Some(repository), Some(owner)) = (names.next(), names.next()) else {
        let reason = format!("{METHOD} answered an issue of no repository");
        return Err(ConnectorError::Unavailable(reason));
    };
    let thread = |on_code| Thread {
        owner: owner.to_owned(),
        repository: repository.to_owned(),
        number: head.number,
        on_code,
        link: None,
        tries: 0,
    };
    let mut threads = Vec::new();
    if head.comments > 0 {
        threads.push(thread(false));
    }
    // How many there are on its code is told nowhere in a list.
    if head.pull_request.is_some() {
        threads.push(thread(true));
    }
    Ok(threads)
}

/// Reads a page of comments.
async fn comments(
    api: Api<'_>,
    mut issues: Issues,
    mut thread: Thread,
) -> Result<Page, ConnectorError> {
    let number = thread.number.to_string();
    let (method, prefix, kind) = match thread.on_code {
        true => ("review_comments.list", "review_comment", "pulls"),
        false => ("comments.list", "comment", "issues"),
    };
    let path = [
        "repos",
        &thread.owner,
        &thread.repository,
        kind,
        &number,
        "comments",
    ];
    let list = List {
        method,
        path: &path,
        query: &[],
    };
    let (items, skipped) = match api.part(list, thread.link.as_deref()).await? {
        Part::Had(items) => (Some(items), None),
        Part::TooLarge => (None, Some(SkipReason::TooLarge)),
        Part::NotAccessible(detail) => {
            tracing::info!(list = method, error = detail, "comments are not accessible");
            (None, Some(SkipReason::NotAccessible))
        }
        Part::Failed(detail) => {
            tracing::warn!(list = method, error = detail, "comments could not be had");
            thread.tries += 1;
            match thread.tries >= MAX_TRIES {
                true => (None, Some(SkipReason::GaveUp)),
                false => (None, Some(SkipReason::Postponed)),
            }
        }
    };
    let mut changes = Vec::new();
    if let Some(reason) = skipped {
        let Thread {
            owner, repository, ..
        } = &thread;
        let id = format!("{method}:{owner}/{repository}#{number}");
        changes.push(Change::Unwanted(id, reason));
        if reason == SkipReason::Postponed {
            thread.link = None;
            issues.later.push_back(thread);
            return page(issues, changes);
        }
    }
    if let Some(items) = items {
        for item in items.items {
            let head: CommentHead = read(&item, method)?;
            changes.push(Change::Given(format!("{prefix}:{}", head.id), item));
        }
        if items.next.is_some() {
            thread.link = items.next;
            issues.threads.push_front(thread);
        }
    }
    page(issues, changes)
}

/// A page; the pass ends with it where nothing is left to be read.
fn page(mut issues: Issues, changes: Vec<Change>) -> Result<Page, ConnectorError> {
    issues.is_resting = issues.is_read && issues.threads.is_empty();
    let more = !issues.is_resting;
    Ok(Page {
        changes,
        next: Position::Issues(issues).write()?,
        more,
        inventory_begins: false,
        listing_complete: false,
    })
}
