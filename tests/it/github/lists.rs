//! Lists that are read whole: what is gone, what shifts, what a token may not see, and what is fetched.

use chrono::TimeDelta;
use nucleus::domain::Clock;
use serde_json::{Value, json};

use super::{assert_stored, skipped, synced};
use crate::{
    connector_contract::{connect_github, with_github},
    doubles::github::{Account, Fault, Github},
    harness::TestApp,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_no_longer_shows_is_erased_once_a_second_listing_agrees() {
    let (app, github, id) = synced(|account| {
        account.add_repository("kept", 1);
        account.add_repository("gone", 0);
        for number in 1..=30 {
            account.star(&format!("a/{number}"));
        }
        account.add_gist();
    })
    .await;
    let gone = github.with(|account| {
        account.delete_repository("gone");
        let star = account.star("short/lived");
        account.unstar(star);
        let gist = account.add_gist();
        account.delete_gist(&gist);
        let ledger = account.ledger();
        let star = ledger.keys().find(|id| id.starts_with("star:")).unwrap();
        account.unstar(star["star:".len()..].parse().unwrap());
        star.clone()
    });
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(0)),
        "{run}"
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(2)),
        "{run}"
    );
    assert_stored(&app, &github, &id).await;
    let deleted = app
        .all(&format!("/integrations/{id}/records?deleted=include"))
        .await;
    let star = deleted
        .iter()
        .find(|record| record["external_id"] == gone)
        .unwrap();
    assert_eq!(star["data_content"], Value::Null);
    assert_eq!(app.told(&id).await[star["id"].as_str().unwrap()], "deleted");
    let run = app.sync(&id).await;
    assert_eq!(run["quota_units"], 0, "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_is_gone_has_no_other_fetched_again() {
    let (app, github, id) = synced(|account| {
        for _ in 0..4 {
            account.add_gist();
        }
    })
    .await;
    github.with(|account| {
        let gist = account.add_gist();
        account.delete_gist(&gist);
        let ledger = account.ledger();
        let gist = ledger.keys().find_map(|id| id.strip_prefix("gist:"));
        account.delete_gist(gist.unwrap());
    });
    for deleted in [0, 1, 0] {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(
            (&run["counts"]["deleted"], &run["counts"]["fetched"]),
            (&json!(deleted), &json!(0)),
            "{run}"
        );
    }
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_changes_while_the_list_is_read_is_fetched_next_time() {
    let (app, github, id) = synced(|account| {
        account.page_size = 1;
        account.add_gist();
        account.add_gist();
    })
    .await;
    let gists: Vec<String> = github.with(|account| {
        // The next seconds are now.
        account.born = app.clock.now();
        account.add_gist();
        let ledger = account.ledger();
        let gists = ledger.keys().filter_map(|id| id.strip_prefix("gist:"));
        gists.map(str::to_owned).collect()
    });
    // The second page shows one as it was; then that changes, and one on the page that is read late.
    let clock = app.clock.clone();
    github.after("page=2", move |account| {
        account.edit_gist(&gists[1]);
        account.edit_gist(&gists[0]);
        clock.advance(TimeDelta::minutes(5));
    });
    for _ in 0..2 {
        assert_eq!(app.sync(&id).await["status"], "success");
    }
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_is_not_shown_while_the_list_is_read_is_fetched_next_time() {
    let (app, github, id) = synced(|account| {
        account.page_size = 1;
        for _ in 0..4 {
            account.add_gist();
        }
    })
    .await;
    let first = github.with(|account| {
        let ledger = account.ledger();
        let gists = ledger.keys().filter_map(|id| id.strip_prefix("gist:"));
        // The newest come first in the list, and change first.
        let gists: Vec<&str> = gists.rev().collect();
        for gist in &gists[..3] {
            account.edit_gist(gist);
        }
        gists[0].to_owned()
    });
    // The second moves to the first page, which has been read.
    let target = format!("/gists/{first}");
    github.after(&target, move |account| account.delete_gist(&first));
    for deleted in [0, 0, 1] {
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["deleted"]),
            (&json!("success"), &json!(deleted)),
            "{run}"
        );
    }
    assert_stored(&app, &github, &id).await;
}

/// Answers of a list now name these scopes.
fn with_scopes(github: &Github, list: &str, scopes: &'static str) {
    github.calm();
    let fault = Fault::With("x-oauth-scopes", scopes);
    github.inject(list, 0, usize::MAX, fault);
}

/// How many records some syncs erase, before each of which a list changes.
async fn deleted(app: &TestApp, github: &Github, id: &str, change: fn(&mut Account)) -> u64 {
    let mut deleted = 0;
    for _ in 0..3 {
        github.with(change);
        let run = app.sync(id).await;
        assert_eq!(run["status"], "success", "{run}");
        deleted += run["counts"]["deleted"].as_u64().unwrap();
    }
    deleted
}

fn add_gist(account: &mut Account) {
    account.add_gist();
}

fn delete_a_gist(account: &mut Account) {
    let ledger = account.ledger();
    let gist = ledger.keys().find_map(|id| id.strip_prefix("gist:"));
    account.delete_gist(gist.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_scope_that_the_one_before_had_erases_nothing() {
    let (app, github) = with_github(|account| {
        account.add_gist();
        account.add_gist();
    })
    .await;
    let id = connect_github(&app).await;
    with_scopes(&github, "/gists", "gist, read:user, repo");
    assert_eq!(app.sync(&id).await["status"], "success");
    with_scopes(&github, "/gists", "repo");
    github.with(delete_a_gist);
    assert_eq!(deleted(&app, &github, &id, add_gist).await, 0);
    // Others that it lacks make no difference.
    with_scopes(&github, "/gists", "gist, repo, user");
    assert_eq!(deleted(&app, &github, &id, add_gist).await, 1);
    with_scopes(&github, "/gists", "gist");
    github.with(delete_a_gist);
    assert_eq!(deleted(&app, &github, &id, add_gist).await, 1);
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scopes_that_a_list_was_seen_with_outlive_one_that_came_to_no_end() {
    // Where it is refused, and where a run ends in its middle.
    for (after, status, ends) in [(0, 403, "success"), (1, 502, "failed")] {
        let (app, github) = with_github(|account| {
            account.page_size = 1;
            account.add_gist();
            account.add_gist();
        })
        .await;
        let id = connect_github(&app).await;
        with_scopes(&github, "/gists", "gist, repo");
        assert_eq!(app.sync(&id).await["status"], "success");
        github.calm();
        github.with(|account| {
            delete_a_gist(account);
            account.add_gist();
        });
        github.inject("/gists", after, usize::MAX, Fault::status(status));
        let run = app.sync(&id).await;
        assert_eq!(run["status"], ends, "{run}");
        with_scopes(&github, "/gists", "repo");
        assert_eq!(
            deleted(&app, &github, &id, add_gist).await,
            0,
            "after {status}"
        );
        with_scopes(&github, "/gists", "repo, gist");
        assert_eq!(
            deleted(&app, &github, &id, add_gist).await,
            1,
            "after {status}"
        );
        assert_stored(&app, &github, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scopes_that_a_list_was_seen_with_outlive_the_listing_of_another() {
    let (app, github) = with_github(|account| {
        account.page_size = 2;
        for number in 1..=4 {
            account.star(&format!("a/{number}"));
        }
    })
    .await;
    let id = connect_github(&app).await;
    with_scopes(&github, "/user/starred", "repo");
    assert_eq!(app.sync(&id).await["status"], "success");
    github.calm();
    github.with(|account| {
        let ledger = account.ledger();
        let star = ledger.keys().find_map(|id| id.strip_prefix("star:"));
        account.unstar(star.unwrap().parse().unwrap());
        account.add_gist();
    });
    // The second page of the stars fails, then the gists are listed, and then the token is another.
    github.inject("/user/starred", 1, 5, Fault::status(502));
    github.inject("/user/starred", 0, 1, Fault::With("x-oauth-scopes", "repo"));
    github.inject(
        "/user/starred",
        0,
        usize::MAX,
        Fault::With("x-oauth-scopes", ""),
    );
    github.asked();
    let like = |account: &mut Account| account.like("c/d");
    assert_eq!(deleted(&app, &github, &id, like).await, 0);
    let asked = github.asked();
    let failed = asked.iter().filter(|asked| asked.status == 502);
    assert_eq!(failed.count(), 5, "{asked:#?}");
    with_scopes(&github, "/user/starred", "repo");
    assert_eq!(deleted(&app, &github, &id, like).await, 1);
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_shifts_while_it_is_read_erases_nothing() {
    let (app, github, id) = synced(|account| {
        account.page_size = 5;
        for number in 1..=20 {
            account.star(&format!("a/{number}"));
        }
    })
    .await;
    // The newest star goes after the first page was read: the sixth is on no page.
    let newest = github.with(|account| account.star("a/21"));
    github.after("/user/starred?", move |account| account.unstar(newest));
    for deleted in [0, 0, 1] {
        let run = app.sync(&id).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(run["counts"]["deleted"], deleted, "{run}");
    }
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_left_in_its_middle_begins_anew_after_another_list_was_read() {
    let (app, github, id) = synced(|account| {
        account.page_size = 40;
        account.add_repository("one", 0);
        for number in 1..=120 {
            account.star(&format!("a/{number}"));
        }
        account.add_gist();
    })
    .await;
    for _ in 0..2 {
        github.with(|account| {
            account.star("a/b");
            account.add_gist();
        });
        // The second page of the stars fails until the run waits in the queue; the gists are read meanwhile.
        github.inject("/user/starred", 1, 5, Fault::status(502));
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["deleted"]),
            (&json!("success"), &json!(0)),
            "{run}"
        );
        assert_stored(&app, &github, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_that_is_gone_at_once_is_told_before_it_is_erased() {
    let (app, github, id) = synced(|account| {
        for number in 1..=80 {
            account.star(&format!("a/{number}"));
        }
    })
    .await;
    github.with(|account| {
        let ids: Vec<String> = account.ledger().into_keys().collect();
        for id in ids
            .iter()
            .filter_map(|id| id.strip_prefix("star:"))
            .take(60)
        {
            account.unstar(id.parse().unwrap());
        }
    });
    let run = app.sync(&id).await;
    assert_eq!(
        (
            &run["status"],
            &run["error"]["code"],
            &run["counts"]["deleted"]
        ),
        (
            &json!("partial"),
            &json!("mass_deletion_unconfirmed"),
            &json!(0)
        ),
        "{run}"
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(60))
    );
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_lists_twice_does_not_agree_with_itself() {
    let (app, github, id) = synced(|account| {
        for number in 1..=80 {
            account.star(&format!("a/{number}"));
        }
    })
    .await;
    let clock = app.clock.clone();
    github.after("/user/starred", move |_| {
        clock.advance(TimeDelta::seconds(1))
    });
    github.with(|account| {
        let ids: Vec<String> = account.ledger().into_keys().collect();
        let stars = ids.iter().filter_map(|id| id.strip_prefix("star:"));
        for id in stars.take(60) {
            account.unstar(id.parse().unwrap());
        }
    });
    // After the stars the run has to wait, and begins with the stars when it goes on.
    let fields = vec![("retry-after", "3600".to_owned())];
    let too_many = "You have exceeded a secondary rate limit";
    github.inject("/gists", 0, 1, Fault::Status(429, fields, too_many));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("partial"), &json!(0)),
        "{run}"
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["deleted"]),
        (&json!("success"), &json!(60)),
        "{run}"
    );
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_the_items_of_an_organisation_shows_nothing_to_be_gone() {
    let (app, github, id) = synced(|account| {
        account.add_repository("mine", 0);
        account.add_repository("theirs", 0);
    })
    .await;
    let partial = Fault::With("x-github-sso", "partial-results; organizations=21955855");
    github.inject("/user/repos", 0, usize::MAX, partial);
    github.with(|account| account.delete_repository("theirs"));
    for _ in 0..3 {
        github.with(|account| account.describe("mine", "once more"));
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["deleted"]),
            (&json!("success"), &json!(0))
        );
    }
    let records = app.records(&id).await;
    let repositories = records
        .iter()
        .filter(|record| record["data_type"] == "github_repository");
    assert_eq!(repositories.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_fails_is_a_gap_and_one_that_changed_is_fetched_again() {
    let (app, github, id) = synced(|account| {
        account.add_gist();
        account.add_gist();
    })
    .await;
    let new = github.with(|account| {
        let gist = account.add_gist();
        let ledger = account.ledger();
        let old = ledger
            .keys()
            .find_map(|id| id.strip_prefix("gist:"))
            .unwrap();
        account.edit_gist(old);
        gist
    });
    github.inject(&format!("/gists/{new}"), 0, 5, Fault::status(500));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("partial"), &json!("gaps_open")),
        "{run}"
    );
    assert_eq!(
        (&run["counts"]["updated"], &run["counts"]["failed"]),
        (&json!(1), &json!(1))
    );
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], &run["counts"]["stored"]),
        (&json!("success"), &json!(1))
    );
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_gists_that_go_on_failing_hold_up_nothing_else() {
    let (app, github, id) = synced(|account| {
        for _ in 0..6 {
            account.add_gist();
        }
        account.add_repository("one", 1);
    })
    .await;
    github.with(|account| {
        let ledger = account.ledger();
        for gist in ledger.keys().filter_map(|id| id.strip_prefix("gist:")) {
            account.edit_gist(gist);
        }
    });
    github.inject("/gists/", 0, usize::MAX, Fault::status(502));
    for stars in 1..4 {
        github.with(|account| account.like(&format!("a/{stars}")));
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("partial"), &json!("gaps_open")),
            "{run}"
        );
        assert_eq!(run["counts"]["stored"], 1, "the star is had: {run}");
    }
    github.calm();
    assert_eq!(app.sync(&id).await["status"], "success");
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_the_list_shows_is_not_gone_whatever_is_said_of_it() {
    let (app, github, id) = synced(add_gist).await;
    let edit = || {
        github.with(|account| {
            let ledger = account.ledger();
            let gist = ledger.keys().find_map(|id| id.strip_prefix("gist:"));
            account.edit_gist(gist.unwrap());
        });
    };
    for status in [404, 410] {
        edit();
        github.inject("/gists/", 0, 1, Fault::status(status));
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["error"]["code"], &run["counts"]["deleted"]),
            (&json!("gaps_open"), &json!(0)),
            "{run}"
        );
        let run = app.sync(&id).await;
        assert_eq!(
            (&run["status"], &run["counts"]["updated"]),
            (&json!("success"), &json!(1)),
            "{run}"
        );
        assert_stored(&app, &github, &id).await;
    }
    edit();
    github.inject("/gists/", 0, 1, Fault::status(451));
    let run = app.sync(&id).await;
    assert_eq!(
        (&run["status"], skipped(&run), &run["counts"]["deleted"]),
        (&json!("success"), &json!({"not_accessible": 1}), &json!(0)),
        "{run}"
    );
    edit();
    assert_eq!(app.sync(&id).await["counts"]["updated"], 1);
    assert_stored(&app, &github, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gist_that_goes_before_it_is_fetched_is_given_up() {
    let (app, github, id) = synced(add_gist).await;
    let gist = github.with(|account| account.add_gist());
    github.after("/gists?", move |account| account.delete_gist(&gist));
    let mut ends = Vec::new();
    for _ in 0..6 {
        ends.push(app.sync(&id).await["status"].as_str().unwrap().to_owned());
    }
    let (trying, over) = ends.split_at(4);
    assert!(trying.iter().all(|end| end == "partial"), "{ends:?}");
    assert!(over.iter().all(|end| end == "success"), "{ends:?}");
    assert_stored(&app, &github, &id).await;
}
