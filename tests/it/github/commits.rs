//! Commits: which pushes bring them, whose they are, and in which repository.

use chrono::TimeDelta;
use serde_json::json;

use super::{assert_stored, skipped};
use crate::{
    connector_contract::{connect_github, with_github},
    doubles::github::Fault,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_was_empty_comes_with_its_whole_history() {
    for is_refused in [true, false] {
        let (app, github) = with_github(|account| {
            account.add_repository("one", 0);
            account.push_of_another("one");
        })
        .await;
        let id = connect_github(&app).await;
        if is_refused {
            let empty = Fault::Status(409, Vec::new(), "Git Repository is empty.");
            github.inject("/repos/ada/one/commits", 0, usize::MAX, empty);
        }
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], skipped(&run)),
            (&json!("success"), &json!({})),
            "{run}"
        );
        // It is not asked again without a push.
        assert_eq!(app.sync(&id).await["quota_units"], 0);
        github.calm();
        github.with(|account| account.push_of_before("one", 3, TimeDelta::days(400)));
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_stored(&app, &github, &id).await;
        assert_eq!(app.sync(&id).await["quota_units"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_another_name_while_commits_are_read_keeps_them() {
    for target in ["/user/repos", "/two/commits", "author=ada&page=2"] {
        let (app, github) = with_github(|account| {
            account.page_size = 2;
            account.add_repository("one", 3);
            account.add_repository("two", 3);
        })
        .await;
        let id = connect_github(&app).await;
        github.after(target, |account| account.rename("countess"));
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{target}: {run}");
        // The lists of repositories may have been read before.
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_stored(&app, &github, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_made_anew_while_it_waits_has_its_commits_once() {
    let (app, github) = with_github(|account| {
        account.add_repository("one", 2);
        account.add_repository("two", 1);
    })
    .await;
    let id = connect_github(&app).await;
    github.inject("/repos/ada/one/commits", 0, 5, Fault::status(502));
    let run = app.sync(&id).await;
    assert_eq!(skipped(&run), &json!({"postponed": 1}), "{run}");
    github.with(|account| {
        account.delete_repository("one");
        account.add_repository("one", 2);
    });
    // What is gone is believed the second time.
    for _ in 0..2 {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
    }
    assert_stored(&app, &github, &id).await;
}
