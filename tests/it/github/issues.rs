//! Issues and their comments: what changes while they are read, what changes within one second, what is
//! shown late, and what can be seen only later.

use chrono::TimeDelta;
use serde_json::json;

use super::{assert_stored, skipped, synced};
use crate::{
    connector_contract::{connect_github, with_github},
    doubles::github::Fault,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_changes_while_the_list_is_read_costs_no_other() {
    let (app, github) = with_github(|account| {
        account.page_size = 5;
        account.add_repository("one", 0);
        for _ in 0..18 {
            account.add_issue("one", false, 0);
        }
    })
    .await;
    let id = connect_github(&app).await;
    for number in [1, 2, 7] {
        github.after("/issues?", move |account| account.edit_issue(number));
    }
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_that_changed_in_one_second_are_read_page_by_page() {
    let (app, github, id) = synced(|account| {
        account.page_size = 5;
        account.add_repository("one", 0);
        for _ in 0..23 {
            account.add_issue("one", false, 0);
        }
    })
    .await;
    github.with(|account| {
        // A second passes.
        account.draw_attention("one");
        for number in 1..=23 {
            account.label_issue(number, "moved");
        }
    });
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    for record in app.records(&id).await {
        if record["data_type"] == "github_issue" {
            assert_eq!(record["meta_data"]["labels"], json!(["moved"]), "{record}");
        }
    }
    // As long as nothing else changes, all of that second are looked at again.
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["counts"]["listed"], &run["quota_units"]),
        (&json!(0), &json!(5))
    );
    // What changes then is behind them.
    github.with(|account| account.edit_issue(23));
    assert_eq!(app.sync(&id).await["counts"]["updated"], 1);
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_whose_pages_shift_is_read_again_until_it_shows_nothing_new() {
    let (app, github, id) = synced(|account| {
        account.page_size = 5;
        account.add_repository("one", 0);
        for _ in 0..23 {
            account.add_issue("one", true, 1);
        }
    })
    .await;
    github.with(|account| {
        account.draw_attention("one");
        for number in 1..=23 {
            account.label_issue(number, "moved");
        }
        account.pass(TimeDelta::seconds(9));
        account.edit_issue(1);
    });
    // Between two of its pages one of the first moves away, and the others move up.
    github.after("page=2", |account| account.edit_issue(4));
    github.after("page=3", |account| account.edit_issue(3));
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    for record in app.records(&id).await {
        if record["data_type"] == "github_pull_request" {
            assert_eq!(record["meta_data"]["labels"], json!(["moved"]), "{record}");
        }
    }
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_a_busy_account_ends_with_what_had_changed_when_it_began() {
    let (app, github, id) = synced(|account| {
        account.born = chrono::Utc::now() - TimeDelta::minutes(2);
        account.add_repository("one", 0);
        account.add_issue("one", false, 1);
        account.add_issue("one", false, 1);
    })
    .await;
    // By the time in which its comments are read, an issue has changed again.
    github.with(|account| account.edit_issue(1));
    for number in 0..40 {
        let clock = app.clock.clone();
        github.after("/comments?", move |account| {
            clock.advance(TimeDelta::minutes(2));
            account.pass(TimeDelta::minutes(2));
            account.edit_issue(number % 2 + 1);
        });
    }
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    let asked = github.asked();
    let lists = asked.iter().filter(|asked| asked.path() == "/issues");
    assert!(lists.count() < 5, "{asked:#?}");
    github.calm();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_late_is_met_by_the_next_pass() {
    let (app, github, id) = synced(|account| {
        // The next seconds are now.
        account.born = chrono::Utc::now();
        account.add_repository("one", 0);
        for _ in 0..3 {
            account.add_issue("one", false, 0);
        }
    })
    .await;
    github.with(|account| account.edit_issue(1));
    assert_eq!(app.sync(&id).await["status"], "success");
    github.with(|account| account.edit_issue_as_if_before(2));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_it_is_read_is_looked_at_once_more_and_not_for_ever() {
    let (app, github) = with_github(|account| {
        account.add_repository("one", 0);
        account.add_issue("one", true, 2);
        // The next seconds are now.
        account.born = chrono::Utc::now();
        account.add_issue("one", true, 2);
        account.comment(2, true);
    })
    .await;
    let id = connect_github(&app).await;
    for _ in 0..2 {
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_stored(&app, &github, &id).await;
        let asked = github.asked();
        let lists = |path: &str| asked.iter().filter(|asked| asked.path() == path).count();
        assert!(lists("/issues") <= 2, "{asked:#?}");
        assert!(lists("/repos/ada/one/issues/2/comments") <= 2, "{asked:#?}");
    }
    app.clock.advance(TimeDelta::minutes(5));
    app.sync(&id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_shown_later_comes_with_its_old_issues() {
    let (app, github, id) = synced(|account| {
        account.page_size = 4;
        account.add_repository("open", 1);
        account.add_repository("closed", 2);
        for number in 0..11 {
            account.add_issue("closed", number % 2 == 0, number % 3);
        }
        account.add_issue("open", false, 1);
        account.hide("closed");
    })
    .await;
    github.with(|account| {
        account.show("closed");
        account.edit_issue(12);
    });
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
    // What changes while it cannot be seen comes when it can be seen again.
    github.with(|account| {
        account.hide("closed");
        account.edit_issue(3);
        account.pass(TimeDelta::days(1));
        account.edit_issue(12);
    });
    app.sync(&id).await;
    github.with(|account| account.show("closed"));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issues_of_an_organisation_come_once_the_token_has_signed_on_there() {
    let (app, github) = with_github(|account| {
        account.add_repository("mine", 0);
        account.add_repository("theirs", 0);
        account.add_issue("theirs", false, 1);
        account.pass(TimeDelta::days(1));
        account.add_issue("mine", false, 1);
        account.hide("theirs");
    })
    .await;
    let id = connect_github(&app).await;
    let partial = Fault::With("x-github-sso", "partial-results; organizations=21955855");
    github.inject("/issues", 0, usize::MAX, partial);
    for _ in 0..2 {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(skipped(&run), &json!({"not_accessible": 1}), "{run}");
    }
    github.calm();
    github.with(|account| account.show("theirs"));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_shown_once_the_list_of_them_is_no_longer_refused_comes_with_its_issues()
 {
    let (app, github, id) = synced(|account| {
        account.add_repository("open", 0);
        account.add_repository("closed", 0);
        account.add_issue("closed", false, 1);
        account.pass(TimeDelta::days(1));
        account.add_issue("open", false, 0);
        account.hide("closed");
    })
    .await;
    github.inject("/user/repos", 0, usize::MAX, Fault::status(403));
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    github.calm();
    github.with(|account| account.show("closed"));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
}
