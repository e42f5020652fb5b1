//! Commits that the account's owner wrote, in the repositories that were pushed to.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;

use super::{
    super::{Change, ConnectorError, Page},
    User,
    api::{Api, List, Part, read, read_all},
    cursor::{Commits, History, Position, Push, is_over},
    jobs::{Job, Outcome},
    repositories,
};
use crate::domain::sync::SkipReason;

const METHOD: &str = "commits.list";
/// A commit reaches the main branch long after it was made, where it was made on another. Those made
/// more than this before the push up to which they were read are not looked for.
const OVERLAP: TimeDelta = TimeDelta::days(90);

#[derive(Deserialize)]
struct Head {
    sha: String,
}

/// See [`super::super::Connector::changes`].
pub(super) async fn changes(api: Api<'_>, mut commits: Commits) -> Result<Page, ConnectorError> {
    if !commits.is_under_way {
        return begin(api, commits).await;
    }
    match commits.histories.next() {
        Some(job) => authored(api, commits, job).await,
        None => page(commits, Vec::new()),
    }
}

/// Begins a pass: asks where somebody pushed.
async fn begin(api: Api<'_>, mut commits: Commits) -> Result<Page, ConnectorError> {
    let walk = repositories::walk(api, &mut commits.repositories).await?;
    let listed = &commits.repositories;
    if !listed.is_empty() {
        let is_listed = |id: u64| repositories::has(listed, id);
        // What is seen again may have been pushed to meanwhile, in whatever time.
        commits
            .pushes
            .retain(|id, _| id.parse().is_ok_and(is_listed));
        // It is asked for by a name, which another repository may have by now.
        commits.histories.retain(|of| is_listed(of.id));
    }
    for repository in walk.changed {
        let Some(pushed_at) = repository.pushed_at else {
            continue;
        };
        let id = repository.id;
        let push = commits.pushes.get(&id.to_string());
        let is_asked_for = |of: &History| of.id == id && of.pushed_at == pushed_at;
        if push.is_some_and(|push| push.asked == Some(pushed_at.timestamp()))
            || commits.histories.any(is_asked_for)
        {
            continue;
        }
        let history = History {
            id,
            owner: repository.owner.login,
            repository: repository.name,
            pushed_at,
            read: push.and_then(|push| push.read),
        };
        commits.histories.renew(history, |of| of.id == id);
    }
    commits.histories.resume(api.access.clock.now());
    page(commits, walk.skipped)
}

/// Reads a page of the commits of one repository.
async fn authored(
    api: Api<'_>,
    mut commits: Commits,
    job: Job<History>,
) -> Result<Page, ConnectorError> {
    let is_first_page = job.link.is_none();
    if is_first_page {
        learn_login(api, &mut commits).await?;
    }
    let asked_at = api.access.clock.now();
    let of = &job.of;
    let path = ["repos", &of.owner, &of.repository, "commits"];
    let since = of.read.and_then(overlapped);
    let mut query = vec![("author", commits.login.as_str())];
    if let Some(since) = &since {
        query.push(("since", since));
    }
    let list = List {
        method: METHOD,
        path: &path,
        query: &query,
    };
    let part = api.part(list, job.link.as_deref()).await?;
    let id = of.id;
    let is_last_page = matches!(&part, Part::Had(items) if items.next.is_none());
    if is_last_page && learn_login(api, &mut commits).await? {
        // The commits of nobody were had, or of whoever has taken the former name.
        commits.histories.add_first(job.of);
        return page(commits, Vec::new());
    }
    let now = api.access.clock.now();
    let changes = match commits.histories.settle(job, METHOD, part, now)? {
        Outcome::Had(items, done) => {
            if let Some(of) = done {
                let pushed_at = of.pushed_at.timestamp();
                let asked = is_over(of.pushed_at, asked_at).then_some(pushed_at);
                if asked.is_none() {
                    repositories::look_again(&mut commits.repositories, id);
                }
                let has_any = !is_first_page || !items.is_empty();
                let read = if has_any { Some(pushed_at) } else { of.read };
                commits.pushes.insert(id.to_string(), Push { asked, read });
            }
            let (heads, mut changes) = read_all(items, METHOD);
            let given =
                |(head, item): (Head, _)| Change::Given(format!("commit:{id}:{}", head.sha), item);
            changes.extend(heads.into_iter().map(given));
            changes
        }
        Outcome::Skipped(reason) => vec![Change::Unwanted(format!("{METHOD}:{id}"), reason)],
        Outcome::Gone => {
            let reason = SkipReason::NotAccessible;
            vec![Change::Unwanted(format!("{METHOD}:{id}"), reason)]
        }
    };
    page(commits, changes)
}

/// Asks whose commits are wanted, for people rename themselves; says whether that is news.
async fn learn_login(api: Api<'_>, commits: &mut Commits) -> Result<bool, ConnectorError> {
    let Some((body, etag)) = api.user(commits.etag.as_deref()).await? else {
        return Ok(false);
    };
    let user: User = read(&body, "user.get")?;
    commits.etag = etag;
    let is_news = user.login != commits.login;
    commits.login = user.login;
    Ok(is_news)
}

/// A page; the pass ends with it where nothing is left to be read.
fn page(mut commits: Commits, changes: Vec<Change>) -> Result<Page, ConnectorError> {
    let more = !commits.histories.is_done();
    commits.is_under_way = more;
    Ok(Page::of(changes, Position::Commits(commits).write()?, more))
}

/// From when on to look for commits that were read up to a push at `read`.
fn overlapped(read: i64) -> Option<String> {
    let time: DateTime<Utc> = DateTime::from_timestamp(read, 0)? - OVERLAP;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
