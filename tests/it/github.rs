//! GitHub through the whole program, where it is unlike other services: what costs nothing, what is
//! gone, what changes while it is read, and what one repository keeps from the others.

mod chaos;
mod commits;
mod costs;
mod issues;
mod lists;

use chrono::TimeDelta;
use nucleus::domain::Clock;
use serde_json::{Value, json};

use crate::{
    connector_contract::{connect_github, with_github},
    doubles::github::{Account, Fault, Github},
    harness::TestApp,
};

/// A synced account.
async fn synced(fill: impl FnOnce(&mut Account)) -> (TestApp, Github, String) {
    let (app, github) = with_github(fill).await;
    let id = connect_github(&app).await;
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_stored(&app, &github, &id).await;
    github.asked();
    (app, github, id)
}

/// Ids of the records and what they say.
async fn stored(app: &TestApp, id: &str) -> Vec<(String, String)> {
    let records = app.records(id).await.into_iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut stored: Vec<(String, String)> = records
        .map(|record| (text(&record["external_id"]), text(&record["data_content"])))
        .collect();
    stored.sort();
    stored
}

async fn assert_stored(app: &TestApp, github: &Github, id: &str) {
    let stored = stored(app, id).await;
    let expected: Vec<(String, String)> = github
        .with(|account| account.ledger())
        .into_iter()
        .collect();
    let ids = |list: &[(String, String)]| list.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&stored), ids(&expected));
    for ((id, text), (_, says)) in stored.iter().zip(&expected) {
        assert!(text.contains(says), "{id} says {text:?}, not {says:?}");
    }
}

fn skipped(run: &Value) -> &Value {
    &run["counts"]["skipped"]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_lacks_what_github_promises_holds_nothing_up() {
    let (app, github, id) = synced(|account| {
        account.add_repository("one", 2);
        account.add_issue("one", false, 1);
        account.star("a/b");
    })
    .await;
    let gone = github.with(|account| {
        account.add_issue("one", false, 1);
        account.break_issue(2);
        account.edit_issue(1);
        account.push("one", 1);
        account.star("c/d")
    });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], skipped(&run)),
        (&json!("success"), &json!({"malformed": 1})),
        "{run}"
    );
    assert_eq!(run["counts"]["updated"], 1, "{run}");
    // A list with one shows nothing to be gone.
    github.with(|account| {
        account.unstar(gone);
        account.break_star();
    });
    for _ in 0..2 {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(run["counts"]["deleted"], 0, "{run}");
        github.with(|account| account.like("e/f"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_leaves_the_others_the_time_they_take() {
    let (app, github) = with_github(|account| {
        for name in ["one", "two", "three", "four"] {
            account.add_repository(name, 2);
        }
    })
    .await;
    let id = connect_github(&app).await;
    let url = "https://github.com/orgs/o/sso?authorization_request=A1";
    let fields = vec![("x-github-sso", format!("required; url={url}"))];
    let refused = Fault::Status(403, fields, "SAML");
    github.inject("/issues", 0, usize::MAX, refused);
    // Each history takes a worker as long as it may hold a run.
    for name in ["one", "two", "three", "four"] {
        let clock = app.clock.clone();
        let list = format!("{name}/commits");
        github.after(&list, move |_| clock.advance(TimeDelta::minutes(11)));
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("sso_required")),
        "{run}"
    );
    let records = app.records(&id).await;
    let commits = records
        .iter()
        .filter(|record| record["data_type"] == "github_commit");
    assert_eq!(commits.count(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_keeps_no_other_and_fails_the_run() {
    let (app, github, id) = synced(|account| {
        account.add_repository("one", 2);
        account.add_issue("one", false, 1);
        account.add_gist();
    })
    .await;
    let change = || {
        github.with(|account| {
            account.push("one", 1);
            account.answer(1);
            account.like("a/b");
            account.add_gist();
        });
    };
    change();
    let url = "https://github.com/orgs/o/sso?authorization_request=A1";
    let fields = vec![("x-github-sso", format!("required; url={url}"))];
    let refused = Fault::Status(403, fields, "SAML");
    github.inject("/issues", 0, usize::MAX, refused);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("sso_required")),
        "{run}"
    );
    assert_eq!(run["counts"]["stored"], 3, "{run}");
    // Others that get somewhere do not make one that fails be tried for ever.
    github.calm();
    github.inject("/user/starred", 0, usize::MAX, Fault::status(502));
    github.asked();
    for _ in 0..200 {
        github.after("/user/starred", |account| account.push("one", 1));
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("unavailable")),
        "{run}"
    );
    let asked = github.asked();
    let failed = asked.iter().filter(|asked| asked.status == 502).count();
    assert_eq!(
        failed,
        30 * 5,
        "as many attempts as there may be, of five calls each"
    );
    github.calm();
    app.sync_until_success(&id, 2).await;
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repository_that_is_not_accessible_is_skipped_and_read_whole_later() {
    for (status, is_pushed) in [(403, true), (404, false), (451, true)] {
        let (app, github) = with_github(|account| {
            account.add_repository("closed", 3);
            account.add_repository("open", 3);
            account.add_issue("closed", false, 1);
            // What was committed is old by now.
            account.pass(TimeDelta::days(200));
            account.push("open", 1);
        })
        .await;
        let id = connect_github(&app).await;
        github.inject("/repos/ada/closed/", 0, usize::MAX, Fault::status(status));
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(skipped(&run), &json!({"not_accessible": 2}), "{run}");
        let commits = stored(&app, &id).await;
        let commits = commits.iter().filter(|(id, _)| id.starts_with("commit:"));
        assert_eq!(commits.count(), 4);
        assert_eq!(app.integration(&id).await["status"], "active");
        github.asked();
        assert_eq!(skipped(&app.sync(&id).await), &json!({}));
        let asked = github.asked();
        assert!(asked.iter().all(|asked| asked.status == 304), "{asked:#?}");
        github.calm();
        match is_pushed {
            // It is asked for again when it changes,
            true => github.with(|account| {
                account.push("closed", 1);
                account.comment(1, false);
            }),
            // and otherwise the next day.
            false => app.clock.advance(TimeDelta::days(1)),
        }
        assert_eq!(app.sync(&id).await["status"], "success");
        assert_stored(&app, &github, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_always_fails_holds_nothing_up_and_is_given_up_after_a_day() {
    let (app, github) = with_github(|account| {
        account.add_repository("broken", 3);
        account.add_repository("fine", 3);
        account.add_issue("fine", false, 1);
    })
    .await;
    let id = connect_github(&app).await;
    github.inject(
        "/repos/ada/broken/commits",
        0,
        usize::MAX,
        Fault::status(502),
    );
    for _ in 0..6 {
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("partial"), &json!("lists_postponed")),
            "{run}"
        );
        assert_eq!(skipped(&run), &json!({"postponed": 1}));
        app.clock.advance(TimeDelta::hours(3));
    }
    app.clock.advance(TimeDelta::hours(6));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], skipped(&run)),
        (&json!("success"), &json!({"gave_up": 1}))
    );
    github.asked();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert!(
        github
            .asked()
            .iter()
            .all(|asked| !asked.path().contains("broken"))
    );
    // A push brings it back, whole.
    github.calm();
    github.with(|account| {
        account.pass(TimeDelta::days(200));
        account.push("broken", 1);
    });
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_lists_of_a_kind_fail_it_is_an_outage_and_nothing_is_given_up() {
    let (app, github) = with_github(|account| {
        for number in 0..9 {
            account.add_repository(&format!("r{number}"), 2);
        }
    })
    .await;
    let id = connect_github(&app).await;
    for number in 0..9 {
        let path = format!("/repos/ada/r{number}/commits");
        github.inject(&path, 0, usize::MAX, Fault::status(502));
    }
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("unavailable")),
        "{run}"
    );
    assert_eq!(skipped(&run), &json!({"postponed": 4}), "{run}");
    assert_eq!(app.integration(&id).await["status"], "active");
    github.calm();
    // The first goes on where it was left, the next asks again for what failed before.
    for _ in 0..2 {
        assert_eq!(app.sync(&id).await["status"], "success");
    }
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_leaves_no_trace_in_a_cursor() {
    let (app, github, id) = synced(|account| account.push_to_new("one")).await;
    let gone = github.with(|account| account.add_repository("gone", 1));
    let traces = async || {
        assert_eq!(app.sync(&id).await["status"], "success");
        let cursors = |table| format!("SELECT CAST(cursor_value AS TEXT) FROM {table}");
        let (sqlite, postgres) = (cursors("sync_cursors"), cursors("dna.sync_cursors"));
        let cursors = app.rows(&sqlite, &postgres).await;
        let gone = gone.to_string();
        cursors
            .iter()
            .filter(|cursor| cursor.contains(&gone))
            .count()
    };
    // In that of the commits, and of the issues.
    assert_eq!(traces().await, 2);
    github.with(|account| account.delete_repository("gone"));
    assert_eq!(traces().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_another_name_keeps_their_commits() {
    let (app, github, id) =
        synced(|account| drop(account.add_repository("one", 3).to_string())).await;
    github.with(|account| {
        account.rename("countess");
        account.push("one", 2);
    });
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_stored(&app, &github, &id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_failed_is_had_by_the_next_run() {
    let (app, github) = with_github(|account| {
        account.add_repository("one", 0);
        account.add_issue("one", false, 3);
        account.add_issue("one", false, 3);
    })
    .await;
    let id = connect_github(&app).await;
    github.inject("/repos/ada/one/issues/1/", 0, 5, Fault::TruncatedWithItsEnd);
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], skipped(&run)),
        (&json!("partial"), &json!({"postponed": 1}))
    );
    github.calm();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_limit_is_waited_for_until_it_begins_anew() {
    for minutes in [5, 40] {
        let (app, github) = with_github(|account| {
            account.page_size = 3;
            account.add_repository("one", 10);
            account.add_issue("one", false, 10);
        })
        .await;
        let id = connect_github(&app).await;
        github.limit(6, TimeDelta::minutes(minutes));
        let before = app.clock.now();
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        let waited = app.clock.now() - before;
        assert!(waited >= TimeDelta::minutes(minutes), "{waited}");
        assert_stored(&app, &github, &id).await;
        let refused = github
            .asked()
            .iter()
            .filter(|asked| asked.status == 403)
            .count();
        assert_eq!(refused, 1, "it is not asked before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_sign_on_is_an_error_that_says_where() {
    let (app, github) = with_github(|account| account.push_to_new("one")).await;
    let id = connect_github(&app).await;
    let url = "https://github.com/orgs/o/sso?authorization_request=A1";
    let fields = vec![("x-github-sso", format!("required; url={url}"))];
    github.inject(
        "/user/repos",
        0,
        usize::MAX,
        Fault::Status(403, fields, "SAML"),
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("sso_required"))
    );
    assert!(
        run["error"]["detail"].as_str().unwrap().contains(url),
        "{run}"
    );
    assert_eq!(app.integration(&id).await["status"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_the_token_may_not_read_is_skipped() {
    let (app, github) = with_github(|account| {
        account.add_repository("one", 1);
        account.add_gist();
        account.star("a/b");
    })
    .await;
    let id = connect_github(&app).await;
    github.inject("/gists", 0, usize::MAX, Fault::status(404));
    github.inject("/user/starred", 0, usize::MAX, Fault::status(403));
    for _ in 0..2 {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(skipped(&run), &json!({"not_accessible": 2}), "{run}");
    }
    // With the permission they come by themselves.
    github.calm();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_goes_on_at_another_host_is_not_followed() {
    let (app, github) = with_github(|account| account.push_to_new("one")).await;
    let other = Github::start(app.clock.clone()).await;
    let id = connect_github(&app).await;
    let link = format!("<{}/user/repos?page=2>; rel=\"next\"", other.url);
    github.inject(
        "/user/repos",
        0,
        usize::MAX,
        Fault::With("link", link.leak()),
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("foreign_link")),
        "{run}"
    );
    assert_eq!(other.answered(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_moves_while_it_is_read_is_read_where_it_is() {
    let (app, github) = with_github(|account| {
        account.page_size = 2;
        account.add_repository("one", 5);
        account.add_issue("one", true, 3);
    })
    .await;
    let id = connect_github(&app).await;
    github.after("/issues/1/comments", |account| account.rename("countess"));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], skipped(&run)),
        (&json!("success"), &json!({})),
        "{run}"
    );
    let asked = github.asked();
    assert!(asked.iter().any(|asked| asked.status == 301), "{asked:#?}");
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_ended_is_replaced_once_in_the_middle_of_a_sync() {
    let (app, github, id) = synced(|account| account.push_to_new("one")).await;
    github.expire_access_tokens();
    github.with(|account| account.push("one", 1));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
    let asked = github.asked();
    let of = |token: &str| asked.iter().filter(|asked| asked.token == token).count();
    assert_eq!((of("gho_1"), asked[0].status), (1, 401), "{asked:#?}");
    assert_eq!(of("gho_2"), asked.len() - 1, "{asked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_push_within_the_second_of_the_first_is_read_too() {
    let (app, github, id) = synced(|account| {
        account.add_repository("one", 1);
    })
    .await;
    github.with(|account| {
        // The next seconds are now.
        account.born = app.clock.now();
        account.push("one", 1);
    });
    assert_eq!(app.sync(&id).await["status"], "success");
    github.with(|account| {
        account.pass(TimeDelta::seconds(-1));
        account.push("one", 1);
    });
    app.clock.advance(TimeDelta::hours(1));
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 0);
}
