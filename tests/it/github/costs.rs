//! What a sync costs, as `docs/github.md` says.

use serde_json::json;

use super::{assert_stored, synced};
use crate::{connector_contract::connect_github, doubles::github::Account};

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_without_changes_costs_nothing() {
    let (app, github, id) = synced(|account| {
        account.page_size = 4;
        account.add_repository("one", 6);
        for number in 1..=9 {
            account.add_issue("one", number == 2, 1);
            account.star(&format!("a/{number}"));
        }
        account.add_gist();
    })
    .await;
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["quota_units"]),
        (&json!("success"), &json!(0))
    );
    assert_eq!(run["counts"]["listed"], 0, "{run}");
    let asked = github.asked();
    assert!(asked.iter().all(|asked| asked.status == 304), "{asked:#?}");
    // The profile, the repositories three times, three pages of stars, gists and issues.
    assert_eq!(asked.len(), 9, "{asked:#?}");
    for asked in &asked {
        assert_eq!(asked.headers["x-github-api-version"], "2022-11-28");
        assert!(
            asked.headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("nucleus/")
        );
    }
    let stars = asked
        .iter()
        .find(|asked| asked.path() == "/user/starred")
        .unwrap();
    assert_eq!(stars.headers["accept"], "application/vnd.github.star+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_asked_for_and_nothing_else() {
    let (app, github, id) = synced(|account| {
        account.add_repository("one", 6);
        account.add_repository("two", 6);
        account.add_issue("one", false, 3);
        account.add_issue("two", true, 0);
        account.add_gist();
        account.add_gist();
    })
    .await;
    let gist = github.with(|account| {
        account.comment(1, false);
        account.push("two", 2);
        account.draw_attention("one");
        account.add_gist()
    });
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success");
    assert_stored(&app, &github, &id).await;
    // An issue that has one comment more, the comment, two commits and a gist.
    let counts = &run["counts"];
    assert_eq!(
        (&counts["stored"], &counts["updated"]),
        (&json!(4), &json!(1)),
        "{run}"
    );
    assert_eq!(run["counts"]["fetched"], 1, "the gist");
    let paths: Vec<String> = github
        .asked()
        .iter()
        .map(|asked| asked.path().to_owned())
        .collect();
    let of = |path: &str| paths.iter().filter(|asked| *asked == path).count();
    assert_eq!(of("/repos/ada/two/commits"), 1, "{paths:#?}");
    assert_eq!(of("/repos/ada/one/commits"), 0, "{paths:#?}");
    assert_eq!(of("/repos/ada/one/issues/1/comments"), 1, "{paths:#?}");
    assert_eq!(of(&format!("/gists/{gist}")), 1, "{paths:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_cost_what_the_page_about_github_says() {
    let (app, github, id) = synced(|account| {
        account.add_repository("one", 250);
        account.add_repository("two", 0);
        account.add_issue("one", false, 120);
        account.add_issue("one", true, 0);
        account.add_issue("two", false, 0);
        account.star("a/b");
        account.add_gist();
    })
    .await;
    type Change = fn(&mut Account);
    let changes: [(Change, u64); 4] = [
        (|_| {}, 0),
        (|account| account.answer(3), 3),
        (|account| account.push("two", 1), 4),
        (|account| account.like("c/d"), 1),
    ];
    for (index, (change, units)) in changes.into_iter().enumerate() {
        github.with(change);
        let run = app.sync(&id).await;
        assert_eq!(run["quota_units"], units, "change {index}: {run}");
        assert_stored(&app, &github, &id).await;
    }
    // Whose the account is, what it says of itself, whose commits are wanted, and that no issue came
    // since; three lists of repositories, of issues, stars and gists one each; three pages of comments,
    // one of those on code, one of reviews, four of commits, and a gist.
    let other = connect_github(&app).await;
    let run = app.sync(&other).await;
    assert_eq!(run["quota_units"], 4 + 3 + 3 + 3 + 1 + 4 + 1 + 1, "{run}");
}
