//! Listings: what each id became, what a listing did not show, and the labels it showed.

use std::collections::HashMap;

use nucleus::{
    db::{
        Db,
        integration::Integration,
        raw_data::{self, Missing},
        sync_listing::{self, Listed},
        sync_run,
    },
    domain::{
        RecordId, RunId,
        sync::{Outcome, RunStatus, SkipReason},
    },
};

use super::{super::db::both, add_run, at, connect_gmail, new_run, store, strings};

async fn list(db: &Db, run: RunId, ids: &[&str], labels: &[&str]) {
    let listed: HashMap<String, Listed> = ids
        .iter()
        .map(|&id| {
            let entry = Listed {
                outcome: Some(Outcome::Unchanged),
                labels: strings(labels),
            };
            (id.to_owned(), entry)
        })
        .collect();
    let tx = db.begin().await.unwrap();
    sync_listing::save(&tx, run, &listed).await.unwrap();
    tx.commit().await.unwrap();
}

async fn finish(db: &Db, run: RunId) {
    let tx = db.begin().await.unwrap();
    sync_run::finish(&tx, run, RunStatus::Success, 0, None, at(9))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn mark(db: &Db, of: &Integration, run: RunId, now: i64) {
    let tx = db.begin().await.unwrap();
    raw_data::forget_missing(&tx, of.id, run).await.unwrap();
    raw_data::mark_missing(&tx, of.id, run, "email", at(now))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_became_of_an_id_is_remembered_by_run() {
    both(async |test| {
        let db = &test.db;
        let (run, other) = (RunId::new(), RunId::new());
        let mut listed = HashMap::new();
        for index in 0..1100 {
            let outcome = match index % 3 {
                0 => Outcome::Stored,
                1 => Outcome::Skipped(SkipReason::TooLarge),
                _ => Outcome::Failed,
            };
            let entry = Listed {
                outcome: Some(outcome),
                labels: strings(&["INBOX", "Label_ü"][..index % 2 * 2]),
            };
            listed.insert(format!("m{index}"), entry);
        }
        let tx = db.begin().await.unwrap();
        sync_listing::save(&tx, run, &listed).await.unwrap();
        sync_listing::save(&tx, run, &HashMap::new()).await.unwrap();
        let unknown = HashMap::from([("x".to_owned(), Listed::default())]);
        sync_listing::save(&tx, run, &unknown).await.unwrap();
        let ids: Vec<String> = listed.keys().cloned().chain(["x".to_owned()]).collect();
        assert_eq!(sync_listing::lookup(&tx, run, &ids).await.unwrap(), listed);
        assert!(
            sync_listing::lookup(&tx, other, &ids)
                .await
                .unwrap()
                .is_empty()
        );
        let changed = Listed {
            outcome: Some(Outcome::Deleted),
            labels: vec![],
        };
        let changed = HashMap::from([("m1".to_owned(), changed)]);
        sync_listing::save(&tx, run, &changed).await.unwrap();
        let found = sync_listing::lookup(&tx, run, &strings(&["m1"]))
            .await
            .unwrap();
        assert_eq!(found, changed);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn only_listings_of_ended_runs_are_swept() {
    both(async |test| {
        let db = &test.db;
        let (ended, queued) = (connect_gmail(db).await, connect_gmail(db).await);
        let (ended, queued) = (add_run(db, &ended).await, add_run(db, &queued).await);
        list(db, ended, &["a", "b", "c"], &[]).await;
        list(db, queued, &["a", "b"], &[]).await;
        list(db, RunId::new(), &["a", "d"], &[]).await;
        finish(db, ended).await;
        assert_eq!(sync_listing::sweep(db, 2).await.unwrap(), 2);
        assert_eq!(sync_listing::sweep(db, 100).await.unwrap(), 3);
        assert_eq!(sync_listing::sweep(db, 100).await.unwrap(), 0);
        assert_eq!(test.count("sync_listing").await, 2);
        let tx = db.begin().await.unwrap();
        let kept = sync_listing::lookup(&tx, queued, &strings(&["a", "b"]))
            .await
            .unwrap();
        assert_eq!(kept.len(), 2);
        drop(tx);
    })
    .await;
}

#[tokio::test]
async fn a_row_is_missing_for_sure_when_two_listings_do_not_show_it() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        // Imported rows that the service never named are not missing there.
        store(db, &row, &["a", "b", "c", "d", "e", "mid:1"]).await;
        store(db, &connect_gmail(db).await, &["z"]).await;
        let tx = db.begin().await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &strings(&["e"]))
            .await
            .unwrap();
        raw_data::erase(&tx, row.id, &[found["e"].id], at(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let count = async |run, stored, missing, confirmed| {
            let tx = db.begin().await.unwrap();
            let found = raw_data::count_missing(&tx, row.id, run, "email")
                .await
                .unwrap();
            let expected = Missing {
                stored,
                missing,
                confirmed,
            };
            assert_eq!(found, expected);
            for limit in [100, 1] {
                for (confirmed_only, count) in [(false, missing), (true, confirmed)] {
                    let rows =
                        raw_data::missing(&tx, row.id, run, "email", confirmed_only, limit).await;
                    assert_eq!(rows.unwrap().len() as i64, count.min(limit as i64));
                }
            }
        };
        let first = add_run(db, &row).await;
        list(db, first, &["a", "new"], &[]).await;
        count(first, 4, 3, 0).await;
        mark(db, &row, first, 2).await;
        // What the run itself lists once more confirms nothing.
        count(first, 4, 3, 0).await;
        finish(db, first).await;

        // The next run's listing shows one of the three again, and no longer shows another.
        let next = sync_run::NewRun {
            requested_at: at(2),
            ..new_run(&row)
        };
        let second = next.id;
        let tx = db.begin().await.unwrap();
        sync_run::insert(&tx, &next).await.unwrap();
        tx.commit().await.unwrap();
        list(db, second, &["b"], &[]).await;
        count(second, 4, 3, 2).await;
        mark(db, &row, second, 3).await;
        let since = "SELECT external_id FROM raw_data WHERE missing_since IS NOT NULL
                     ORDER BY external_id";
        assert_eq!(test.column(since).await, ["a", "c", "d"]);
        assert_eq!(
            test.number("SELECT count(DISTINCT missing_since) FROM raw_data")
                .await,
            2,
            "since when a row is missing does not move"
        );
        let tx = db.begin().await.unwrap();
        let rows = raw_data::missing(&tx, row.id, second, "email", false, 100)
            .await
            .unwrap();
        let others = raw_data::missing(&tx, row.id, second, "github_star", false, 100).await;
        assert!(others.unwrap().is_empty(), "of another type");
        assert_eq!(rows[0].1.labels, ["INBOX"]);
        let ids: Vec<RecordId> = rows.iter().map(|(_, stored)| stored.id).collect();
        raw_data::erase(&tx, row.id, &ids, at(4)).await.unwrap();
        tx.commit().await.unwrap();
        count(second, 1, 0, 0).await;

        // A row that is fetched again is not missing.
        mark(db, &row, RunId::new(), 5).await;
        store(db, &row, &["b"]).await;
        assert!(test.column(since).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn listed_labels_are_paged_in_one_order_whatever_the_ids_are() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let ids = [
            "a",
            "A",
            "b",
            "B",
            "_",
            "-",
            "~",
            "ab",
            "a b",
            "a-b",
            "É",
            "é",
            "e\u{301}",
            "漢",
            "1",
            "10",
            "2",
            "'",
            "\"",
            "%",
            "ß",
            "ss",
            "\u{1f9ec}",
            "z",
            "Z",
        ];
        store(db, &row, &ids).await;
        store(db, &row, &["unlisted", "erased"]).await;
        let run = add_run(db, &row).await;
        list(db, run, &ids, &["INBOX", "Label_1"]).await;
        list(db, run, &["erased", "never stored"], &["X"]).await;
        let tx = db.begin().await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &strings(&["erased"]))
            .await
            .unwrap();
        raw_data::erase(&tx, row.id, &[found["erased"].id], at(1))
            .await
            .unwrap();
        let mut seen: Vec<String> = Vec::new();
        loop {
            let after = seen.last().cloned().unwrap_or_default();
            let page = raw_data::listed_labels(&tx, row.id, run, &after, 4)
                .await
                .unwrap();
            if page.is_empty() {
                break;
            }
            for entry in page {
                assert_eq!(entry.listed, ["INBOX", "Label_1"]);
                assert_eq!(entry.stored.labels, ["INBOX"]);
                seen.push(entry.external_id);
            }
            assert!(seen.len() <= ids.len(), "{seen:?}");
        }
        tx.commit().await.unwrap();
        let mut expected = strings(&ids);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected);
    })
    .await;
}

#[tokio::test]
async fn a_listing_that_begins_anew_forgets_what_was_listed_and_keeps_the_outcomes() {
    both(async |test| {
        let db = &test.db;
        let of = connect_gmail(db).await;
        store(db, &of, &["a", "b", "c"]).await;
        assert_eq!(
            raw_data::newest_id(db, of.id).await.unwrap().as_deref(),
            Some("c")
        );
        let run = add_run(db, &of).await;
        list(db, run, &["a", "b", "c"], &["INBOX"]).await;
        let tx = db.begin().await.unwrap();
        sync_listing::begin(&tx, run).await.unwrap();
        tx.commit().await.unwrap();
        list(db, run, &["b"], &["STARRED"]).await;

        let tx = db.begin().await.unwrap();
        let missing = raw_data::count_missing(&tx, of.id, run, "email")
            .await
            .unwrap();
        assert_eq!((missing.stored, missing.missing), (3, 2));
        let rows = raw_data::listed_labels(&tx, of.id, run, "", 10)
            .await
            .unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
        assert_eq!(ids, ["b"]);
        let known = sync_listing::lookup(&tx, run, &strings(&["a", "c"]))
            .await
            .unwrap();
        for id in ["a", "c"] {
            assert_eq!(known[id].outcome, Some(Outcome::Unchanged));
            assert!(known[id].labels.is_empty());
        }
    })
    .await;
}
