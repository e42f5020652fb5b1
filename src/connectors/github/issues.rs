//! Issues and pull requests in the order in which they changed, and their comments.
//!
//! Pages by number would lose what moves to the end while they are read, so each page begins with the
//! second in which the last of the page before changed. Only what changed in one second is read page by
//! page, and from its beginning again until that shows nothing new.
//!
//! The second from which on is asked is always one that is over: what GitHub shows late, and what changes
//! twice within a second, is met by the next pass.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use super::{
    super::{Change, ConnectorError, Page},
    api::{Api, Items, List, is_not_accessible, read_all},
    cursor::{Issue, Issues, Position, Round, Task, What, last_over},
    jobs::{Job, Outcome},
    repositories,
};
use crate::domain::sync::SkipReason;

const METHOD: &str = "issues.list";

/// What of an issue is needed here.
#[derive(Deserialize)]
struct Head {
    id: u64,
    number: u64,
    updated_at: String,
    repository_url: Place,
    #[serde(default)]
    comments: u64,
    pull_request: Option<serde::de::IgnoredAny>,
}

/// Whose repository an issue is in, and which.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Place {
    owner: String,
    repository: String,
}

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        let mut names = url.rsplit('/');
        let (Some(repository), Some(owner)) = (names.next(), names.next()) else {
            return Err("no repository's address");
        };
        Ok(Self {
            owner: owner.to_owned(),
            repository: repository.to_owned(),
        })
    }
}

/// What of a comment or a review is needed here.
#[derive(Deserialize)]
struct Said {
    id: u64,
    body: Option<String>,
}

/// See [`super::super::Connector::changes`].
pub(super) async fn changes(api: Api<'_>, mut issues: Issues) -> Result<Page, ConnectorError> {
    let Some(began) = issues.began else {
        return begin(api, issues).await;
    };
    // While one second is read page by page, nothing comes between.
    if issues.round.is_none()
        && let Some(job) = issues.jobs.next()
    {
        return beside(api, issues, job).await;
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
    let round = issues.round.take();
    let link = round.as_ref().map(|round| round.link.as_str());
    let etag = issues.etag.as_deref().filter(|_| link.is_none());
    // Before the answer, which may have to be waited for.
    let over = last_over(api.access.clock.now());
    match api.list(list, link, etag).await {
        Ok(None) => {
            issues.is_read = true;
            page(issues, Vec::new())
        }
        Ok(Some(items)) => take(issues, items, began, round, over),
        Err(error) if is_not_accessible(&error) => {
            tracing::warn!(list = METHOD, error = %error, "a list is not accessible");
            let skipped = Change::Unwanted(METHOD.to_owned(), SkipReason::NotAccessible);
            issues.is_read = true;
            page(issues, vec![skipped])
        }
        Err(error) => Err(error.into()),
    }
}

/// Begins a pass. The issues of a repository that can be seen only now may have changed long ago, so
/// they are read whole; before the first pass nothing has been read, and nothing is new.
async fn begin(api: Api<'_>, mut issues: Issues) -> Result<Page, ConnectorError> {
    let before = issues.repositories.clone();
    // Where the list of repositories was refused before, each of them is new.
    let has_read = issues.since.is_some();
    let walk = repositories::walk(api, &mut issues.repositories).await?;
    for repository in walk.changed {
        if has_read && !repositories::has(&before, repository.id) {
            issues.jobs.add(Task {
                owner: repository.owner.login,
                repository: repository.name,
                what: What::Issues,
            });
        }
    }
    let now = api.access.clock.now();
    issues.jobs.resume(now);
    issues.began = Some(now);
    issues.is_read = false;
    page(issues, walk.skipped)
}

/// Takes a page of issues. What changed up to `over`, when the round began of which it is, did so in
/// seconds that are over.
fn take(
    mut issues: Issues,
    items: Items,
    began: DateTime<Utc>,
    round: Option<Round>,
    over: String,
) -> Result<Page, ConnectorError> {
    if issues.is_partial && !items.is_partial {
        // What was left out may have changed long ago.
        let all = Issues {
            began: issues.began,
            repositories: issues.repositories,
            jobs: issues.jobs,
            ..Issues::default()
        };
        return page(all, Vec::new());
    }
    issues.is_partial = items.is_partial;
    let (mut heads, mut changes) = read_all::<Head>(items.items, METHOD);
    if issues.is_partial {
        let reason = SkipReason::NotAccessible;
        changes.push(Change::Unwanted(METHOD.to_owned(), reason));
    }
    let is_first_page = round.is_none();
    let (over, was_new) = round.map_or((over, false), |round| (round.over, round.is_new));
    if is_first_page {
        issues.fresh.retain(|(_, changed)| *changed > over);
    }
    let is_of_second =
        |issues: &Issues, head: &Head| issues.since.as_ref() == Some(&head.updated_at);
    let is_known_of_second =
        |issues: &Issues, head: &Head| is_of_second(issues, head) && issues.seen.contains(&head.id);
    let newest = heads.iter().map(|(head, _)| &head.updated_at);
    let newest = newest.filter(|second| **second <= over).max().cloned();
    let moves = newest.is_some() && newest > issues.since;
    let is_new = was_new
        || heads
            .iter()
            .any(|(head, _)| is_of_second(&issues, head) && !is_known_of_second(&issues, head));
    let ends = moves || items.next.is_none();
    let again = ends && is_new && !is_first_page;
    if again {
        // The rest comes with the round that is made once more.
        heads.retain(|(head, _)| is_of_second(&issues, head));
    }
    for (head, item) in &heads {
        let fresh = (head.id, head.updated_at.clone());
        let is_fresh = head.updated_at > over;
        let is_known = is_known_of_second(&issues, head);
        if is_known || is_fresh && issues.fresh.contains(&fresh) {
            continue;
        }
        for task in threads(head) {
            issues.jobs.renew(task.clone(), |other| *other == task);
        }
        if is_fresh {
            issues.fresh.push(fresh);
        }
        changes.push(Change::Given(format!("issue:{}", head.id), item.clone()));
    }
    if moves && !again {
        issues.since = newest;
        issues.seen.clear();
    }
    for (head, _) in &heads {
        if is_of_second(&issues, head) && !issues.seen.contains(&head.id) {
            issues.seen.push(head.id);
        }
    }
    // What changes comes last: a page says that nothing did only if it would be on this one. What was
    // read in a second that was not over is to come once more.
    let tells = is_first_page && ends && !moves && !items.is_full;
    let tells = tells && issues.fresh.is_empty() && !issues.is_partial;
    issues.etag = items.etag.filter(|_| tells);
    let next = items.next.filter(|_| !ends);
    issues.round = next.map(|link| Round { link, over, is_new });
    // In a busy account the list has no end: what changes during the pass is for the next one.
    let began = began.to_rfc3339_opts(SecondsFormat::Secs, true);
    let is_caught_up = moves && issues.since.as_ref() >= Some(&began);
    issues.is_read = ends && !again && (!moves || is_caught_up);
    page(issues, changes)
}

/// The comments to be read of an issue that changed.
fn threads(head: &Head) -> Vec<Task> {
    let issue = Issue {
        id: head.id,
        number: head.number,
    };
    let mut whats = Vec::new();
    if head.comments > 0 {
        whats.push(What::Comments(issue.clone()));
    }
    // How many there are on its code, and reviews, is told nowhere in a list.
    if head.pull_request.is_some() {
        whats.push(What::CodeComments(issue.clone()));
        whats.push(What::Reviews(issue));
    }
    let task = |what| Task {
        owner: head.repository_url.owner.clone(),
        repository: head.repository_url.repository.clone(),
        what,
    };
    whats.into_iter().map(task).collect()
}

/// Reads a page of another list.
async fn beside(api: Api<'_>, mut issues: Issues, job: Job<Task>) -> Result<Page, ConnectorError> {
    let Task {
        owner,
        repository,
        what,
    } = job.of.clone();
    let number = match &what {
        What::Issues => String::new(),
        What::Comments(issue) | What::CodeComments(issue) | What::Reviews(issue) => {
            issue.number.to_string()
        }
    };
    let (method, prefix, path) = match what {
        What::Issues => ("repos.issues.list", "issue", ["issues", "", ""]),
        What::Comments(_) => ("comments.list", "comment", ["issues", &number, "comments"]),
        What::CodeComments(_) => (
            "review_comments.list",
            "review_comment",
            ["pulls", &number, "comments"],
        ),
        What::Reviews(_) => ("reviews.list", "review", ["pulls", &number, "reviews"]),
    };
    let mut segments = vec!["repos", &owner, &repository];
    segments.extend(path.into_iter().filter(|segment| !segment.is_empty()));
    // In this order nothing moves while the pages are read.
    let query: &[_] = match what {
        What::Issues => &[("state", "all"), ("sort", "created"), ("direction", "asc")],
        _ => &[],
    };
    let list = List {
        method,
        path: &segments,
        query,
    };
    let part = api.part(list, job.link.as_deref()).await?;
    let now = api.access.clock.now();
    let id = match number.is_empty() {
        true => format!("{method}:{owner}/{repository}"),
        false => format!("{method}:{owner}/{repository}#{number}"),
    };
    let items = match issues.jobs.settle(job, method, part, now)? {
        Outcome::Had(items, _) => items,
        Outcome::Skipped(reason) => return page(issues, vec![Change::Unwanted(id, reason)]),
        Outcome::Gone => {
            let change = match what {
                What::Issues => Change::Unwanted(id, SkipReason::NotAccessible),
                What::Comments(issue) | What::CodeComments(issue) | What::Reviews(issue) => {
                    Change::Gone(format!("issue:{}", issue.id))
                }
            };
            return page(issues, vec![change]);
        }
    };
    let mut changes;
    if what == What::Issues {
        let (heads, unreadable) = read_all::<Head>(items, method);
        changes = unreadable;
        for (head, item) in heads {
            for task in threads(&head) {
                // Before the next page, so that they do not pile up.
                issues.jobs.add_first(task);
            }
            changes.push(Change::Given(format!("issue:{}", head.id), item));
        }
    } else {
        let (heads, unreadable) = read_all::<Said>(items, method);
        changes = unreadable;
        for (said, item) in heads {
            // Whoever only approves, or comments on code, says nothing of the whole.
            let is_silent = said.body.is_none_or(|body| body.trim().is_empty());
            if !(is_silent && matches!(what, What::Reviews(_))) {
                changes.push(Change::Given(format!("{prefix}:{}", said.id), item));
            }
        }
    }
    page(issues, changes)
}

/// A page; the pass ends with it where nothing is left to be read.
fn page(mut issues: Issues, changes: Vec<Change>) -> Result<Page, ConnectorError> {
    let more = !issues.is_read || !issues.jobs.is_done();
    if !more {
        issues.began = None;
    }
    Ok(Page::of(changes, Position::Issues(issues).write()?, more))
}
