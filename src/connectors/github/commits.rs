//! Commits that the account's owner wrote, in the repositories that were pushed to.

use chrono::{DateTime, SecondsFormat, TimeDelta};
use serde::Deserialize;

use super::{
    super::{Change, ConnectorError, Page},
    api::{Api, Items, List, Part, is_not_accessible, read},
    cursor::{Commits, History, MAX_TRIES, Mark, Position},
};
use crate::domain::sync::SkipReason;

/// The repositories in an order in which a push moves none, and a new one changes the first page.
const REPOSITORIES: List<'static> = List {
    method: "repos.list",
    path: &["user", "repos"],
    query: &[
        ("affiliation", "owner,collaborator,organization_member"),
        ("sort", "created"),
        ("direction", "desc"),
    ],
};
const METHOD: &str = "commits.list";
/// A commit reaches the main branch long after it was made, where it was made on another. Those made
/// more than this before the push before are not looked for.
const OVERLAP: TimeDelta = TimeDelta::days(90);

#[derive(Deserialize)]
struct Repository {
    id: u64,
    name: String,
    owner: Owner,
    /// Absent where nobody has pushed yet.
    pushed_at: Option<String>,
}

#[derive(Deserialize)]
struct Owner {
    login: String,
}

#[derive(Deserialize)]
struct Head {
    sha: String,
}

/// See [`super::super::Connector::changes`].
pub(super) async fn changes(api: Api<'_>, mut commits: Commits) -> Result<Page, ConnectorError> {
    if commits.is_resting {
        commits.is_resting = false;
        commits.at = 0;
        commits.is_read = false;
        commits.histories.append(&mut commits.later);
    }
    if let Some(history) = commits.histories.pop_front() {
        return authored(api, commits, history).await;
    }
    let at = commits.at;
    let mark = commits.pages.get(at).cloned().unwrap_or_default();
    let before = at.checked_sub(1).and_then(|at| commits.pages.get(at));
    let link = before.and_then(|mark| mark.next.clone());
    match api
        .list(REPOSITORIES, link.as_deref(), mark.etag.as_deref())
        .await
    {
        Ok(None) => go_on(commits, mark),
        Ok(Some(items)) => take(commits, items),
        Err(error) if is_not_accessible(&error) => {
            tracing::warn!(list = METHOD, error = %error, "a list is not accessible");
            commits.pages.clear();
            commits.is_read = true;
            let skipped = Change::Unwanted(METHOD.to_owned(), SkipReason::NotAccessible);
            page(commits, vec![skipped])
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes a page of repositories.
fn take(mut commits: Commits, items: Items) -> Result<Page, ConnectorError> {
    for item in &items.items {
        let repository: Repository = read(item, REPOSITORIES.method)?;
        let Some(pushed_at) = repository.pushed_at else {
            continue;
        };
        let before = commits.pushed.get(&repository.id.to_string());
        let failed =
            |history: &History| history.id == repository.id && history.pushed_at == pushed_at;
        if before == Some(&pushed_at) || commits.later.iter().any(failed) {
            continue;
        }
        commits.histories.push_back(History {
            id: repository.id,
            owner: repository.owner.login,
            repository: repository.name,
            since: before.map(String::as_str).and_then(overlapped),
            pushed_at,
            link: None,
            tries: 0,
        });
    }
    let mark = Mark {
        etag: items.etag,
        next: items.next,
    };
    go_on(commits, mark)
}

/// Goes on after a page of repositories.
fn go_on(mut commits: Commits, mark: Mark) -> Result<Page, ConnectorError> {
    let at = commits.at;
    commits.is_read = mark.next.is_none();
    match commits.pages.get_mut(at) {
        Some(before) => *before = mark,
        None => commits.pages.push(mark),
    }
    if commits.is_read {
        commits.pages.truncate(at + 1);
    }
    commits.at = at + 1;
    page(commits, Vec::new())
}

/// Reads a page of the commits of one repository.
async fn authored(
    api: Api<'_>,
    mut commits: Commits,
    mut history: History,
) -> Result<Page, ConnectorError> {
    let path = ["repos", &history.owner, &history.repository, "commits"];
    let mut query = vec![("author", commits.login.as_str())];
    if let Some(since) = &history.since {
        query.push(("since", since));
    }
    let list = List {
        method: METHOD,
        path: &path,
        query: &query,
    };
    let id = history.id.to_string();
    let reason = match api.part(list, history.link.as_deref()).await? {
        Part::Had(items) => {
            let mut changes = Vec::with_capacity(items.items.len());
            for item in items.items {
                let head: Head = read(&item, METHOD)?;
                changes.push(Change::Given(format!("commit:{id}:{}", head.sha), item));
            }
            if items.next.is_some() {
                history.link = items.next;
                commits.histories.push_front(history);
            } else {
                commits.pushed.insert(id, history.pushed_at);
            }
            return page(commits, changes);
        }
        Part::TooLarge => SkipReason::TooLarge,
        Part::NotAccessible(detail) => {
            tracing::info!(list = METHOD, error = detail, "commits are not accessible");
            SkipReason::NotAccessible
        }
        Part::Failed(detail) => {
            tracing::warn!(list = METHOD, error = detail, "commits could not be had");
            history.tries += 1;
            match history.tries >= MAX_TRIES {
                true => SkipReason::GaveUp,
                false => SkipReason::Postponed,
            }
        }
    };
    let skipped = Change::Unwanted(format!("{METHOD}:{id}"), reason);
    if reason == SkipReason::Postponed {
        history.link = None;
        commits.later.push_back(history);
    } else {
        // Until the next push there is nothing else to be had.
        commits.pushed.insert(id, history.pushed_at);
    }
    page(commits, vec![skipped])
}

/// A page; the pass ends with it where nothing is left to be read.
fn page(mut commits: Commits, changes: Vec<Change>) -> Result<Page, ConnectorError> {
    commits.is_resting = commits.is_read && commits.histories.is_empty();
    let more = !commits.is_resting;
    Ok(Page {
        changes,
        next: Position::Commits(commits).write()?,
        more,
        inventory_begins: false,
        listing_complete: false,
    })
}

fn overlapped(before: &str) -> Option<String> {
    let time = DateTime::parse_from_rfc3339(before).ok()?.to_utc() - OVERLAP;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
