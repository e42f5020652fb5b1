//! Runs: one active run an integration, held by a lease and numbered by a fence.

use nucleus::{
    db::{
        Db, DbError, Slicing, import_run, integration,
        sync_run::{self, Claim, LEASE_MS, WorkerId},
    },
    domain::{
        RunId,
        sync::{Counts, Mode, Outcome, RunError, RunStatus, Scope, SkipReason},
    },
};

use super::{
    super::db::{TestDb, both},
    AWKWARD, add_run, at, claim, connect_gmail, first, new_run, run_status,
};

/// The holder of `run` is not heard of until its lease is over.
async fn let_lease_end(test: &TestDb) {
    test.sql("UPDATE sync_runs SET lease_until = 1 WHERE status = 'running'")
        .await;
}

async fn finish(db: &Db, run: RunId, status: RunStatus) {
    let tx = db.begin().await.unwrap();
    sync_run::finish(&tx, run, status, 7, None, at(3))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// Who ended a run or put it back did not lose it, although the lease is over.
async fn assert_not_lost(db: &Db, claim: &Claim) {
    let lost = sync_run::is_lost(db, claim.run_id, claim.fence).await;
    assert!(!lost.unwrap());
}

#[tokio::test]
async fn an_integration_has_one_active_run() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let mut before = Vec::new();
        for end in [RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled] {
            let run = add_run(db, &row).await;
            for _ in 0..2 {
                let tx = db.begin().await.unwrap();
                let active = sync_run::active(&tx, row.id).await.unwrap().unwrap();
                assert_eq!(active.run_id, run);
                let refused = sync_run::insert(&tx, &new_run(&row)).await;
                assert!(matches!(refused, Err(DbError::Conflict)), "{refused:?}");
                drop(tx);
                claim(db, run).await;
            }
            assert_eq!(sync_run::count_active(db).await.unwrap(), 1);
            finish(db, run, end).await;
            before.push(run);
        }
        let tx = db.begin().await.unwrap();
        assert!(sync_run::active(&tx, row.id).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_eq!(sync_run::count_active(db).await.unwrap(), 0);

        before.reverse();
        let page = sync_run::list(db, Scope::Operator, row.id, first(2))
            .await
            .unwrap();
        assert!(page.more);
        assert_eq!(page.items[1].run_id, before[1]);
        let slicing = Slicing {
            after: Some(before[1].0),
            limit: 2,
        };
        let page = sync_run::list(db, Scope::Operator, row.id, slicing)
            .await
            .unwrap();
        assert_eq!((page.items.len(), page.more), (1, false));
        assert_eq!(page.items[0].run_id, before[2]);
        assert_eq!(page.items[0].status, "success");
    })
    .await;
}

#[tokio::test]
async fn a_run_is_claimed_renewed_and_finished_by_its_fence() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let run = add_run(db, &row).await;
        let claimed = claim(db, run).await.unwrap();
        assert_eq!((claimed.run_id, claimed.integration_id), (run, row.id));
        assert_eq!((claimed.fence, claimed.attempts), (1, 1));
        assert_eq!(claimed.mode, "full");
        assert!(claim(db, run).await.is_none(), "it is held");
        assert!(
            claim(db, RunId::new()).await.is_none(),
            "there is no such run"
        );

        let clock = match test.db.is_postgres() {
            true => "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
            false => "unixepoch('now') * 1000",
        };
        test.sql("UPDATE sync_runs SET lease_until = 1").await;
        let held = sync_run::renew(db, run, claimed.fence).await.unwrap();
        assert!(!held.cancel_requested && held.again_at.is_none());
        let left = format!("SELECT lease_until - {clock} FROM sync_runs");
        let left = test.number(&left).await;
        assert!(
            (LEASE_MS - 5000..=LEASE_MS + 1000).contains(&left),
            "{left} ms"
        );

        let mut counts = Counts::default();
        counts.count(None, Outcome::Stored);
        counts.count(None, Outcome::Skipped(SkipReason::SpamTrash));
        let error = RunError {
            code: "some_missing".into(),
            detail: AWKWARD.into(),
        };
        let tx = db.begin().await.unwrap();
        sync_run::fence(&tx, run, claimed.fence).await.unwrap();
        sync_run::save_progress(&tx, run, Mode::Incremental, &counts, 25, 1, true)
            .await
            .unwrap();
        sync_run::save_progress(&tx, run, Mode::Incremental, &counts, 26, 2, true)
            .await
            .unwrap();
        sync_run::finish(&tx, run, RunStatus::Partial, 27, Some(&error), at(3))
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let found = sync_run::find(db, Scope::Operator, run).await.unwrap();
        assert_eq!(found.status, "partial");
        assert_eq!(
            (found.kind.as_str(), found.trigger.as_str()),
            ("sync", "manual")
        );
        assert_eq!(found.mode, "incremental");
        assert_eq!(found.counts, counts);
        assert_eq!((found.quota_units, found.events), (27, 3));
        assert_eq!(found.requested_at, at(0));
        assert_eq!(
            (found.started_at, found.finished_at),
            (Some(at(1)), Some(at(3)))
        );
        assert_eq!(found.error, Some(error));

        let tx = db.begin().await.unwrap();
        let late = sync_run::fence(&tx, run, claimed.fence).await;
        assert!(
            matches!(late, Err(DbError::Fenced)),
            "a finished run is nobody's"
        );
        drop(tx);
        assert_not_lost(db, &claimed).await;
        let tx = db.begin().await.unwrap();
        sync_run::finish(&tx, run, RunStatus::Success, 0, None, at(9))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            run_status(db, run).await,
            "partial",
            "a finished run never changes"
        );
    })
    .await;
}

#[tokio::test]
async fn who_was_silent_past_the_lease_can_write_nothing() {
    both(async |test| {
        let db = &test.db;
        let run = add_run(db, &connect_gmail(db).await).await;
        let stale = claim(db, run).await.unwrap();
        let_lease_end(test).await;
        let fresh = claim(db, run).await.unwrap();
        assert!(fresh.fence > stale.fence);
        assert_eq!(fresh.attempts, 2);
        let started = sync_run::find(db, Scope::Operator, run)
            .await
            .unwrap()
            .started_at;
        assert_eq!(started, Some(at(1)), "it started when it was first taken");

        assert!(sync_run::is_lost(db, run, stale.fence).await.unwrap());
        let refused = sync_run::renew(db, run, stale.fence).await;
        assert!(matches!(refused, Err(DbError::Fenced)), "{refused:?}");
        let tx = db.begin().await.unwrap();
        let refused = sync_run::fence(&tx, run, stale.fence).await;
        assert!(matches!(refused, Err(DbError::Fenced)), "{refused:?}");
        drop(tx);
        sync_run::renew(db, run, fresh.fence).await.unwrap();

        // Silent, but nobody else came: the lease is its own still.
        let_lease_end(test).await;
        sync_run::renew(db, run, fresh.fence).await.unwrap();
        assert!(claim(db, run).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_run_put_back_is_claimed_again_and_counts_its_failures() {
    both(async |test| {
        let db = &test.db;
        let run = add_run(db, &connect_gmail(db).await).await;
        for (given, attempts) in [(None, 1), (None, 2), (Some(0), 3), (None, 1)] {
            let claimed = claim(db, run).await.unwrap();
            assert_eq!(claimed.attempts, attempts);
            let tx = db.begin().await.unwrap();
            sync_run::requeue(&tx, run, Some(40), given).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(run_status(db, run).await, "queued");
            let late = sync_run::renew(db, run, claimed.fence).await;
            assert!(matches!(late, Err(DbError::Fenced)), "{late:?}");
            assert_not_lost(db, &claimed).await;
        }
        let claimed = claim(db, run).await.unwrap();
        assert_eq!(
            (claimed.fence, claimed.attempts, claimed.quota_units),
            (5, 2, 40)
        );
        let tx = db.begin().await.unwrap();
        sync_run::save_progress(&tx, run, Mode::Full, &Counts::default(), 41, 0, true)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let_lease_end(test).await;
        let claimed = claim(db, run).await.unwrap();
        assert_eq!(claimed.attempts, 1, "it had got somewhere");
    })
    .await;
}

#[tokio::test]
async fn a_queued_run_is_cancelled_at_once_and_a_running_one_by_its_holder() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let cancel = async |run| {
            let tx = db.begin().await.unwrap();
            let status = sync_run::cancel(&tx, Scope::Operator, run, at(2)).await;
            tx.commit().await.unwrap();
            status
        };
        let queued = add_run(db, &row).await;
        assert_eq!(cancel(queued).await.unwrap(), "queued");
        let found = sync_run::find(db, Scope::Operator, queued).await.unwrap();
        assert_eq!(
            (found.status.as_str(), found.finished_at),
            ("cancelled", Some(at(2)))
        );
        assert!(claim(db, queued).await.is_none());
        assert_eq!(cancel(queued).await.unwrap(), "cancelled");

        let running = add_run(db, &row).await;
        let claimed = claim(db, running).await.unwrap();
        assert!(!sync_run::cancel_requested(db, running).await.unwrap());
        for _ in 0..2 {
            assert_eq!(cancel(running).await.unwrap(), "running");
        }
        assert!(sync_run::cancel_requested(db, running).await.unwrap());
        let held = sync_run::renew(db, running, claimed.fence).await.unwrap();
        assert!(held.cancel_requested);
        finish(db, running, RunStatus::Cancelled).await;
        assert_eq!(run_status(db, running).await, "cancelled");

        assert!(matches!(cancel(RunId::new()).await, Err(DbError::NotFound)));
        assert!(sync_run::cancel_requested(db, RunId::new()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_ends_what_was_asked_before_it_and_nothing_later() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let ask = async |run, at| {
            let tx = db.begin().await.unwrap();
            sync_run::ask_again(&tx, run, at, true).await.unwrap();
            tx.commit().await.unwrap();
        };
        let cancel = async |run| {
            let tx = db.begin().await.unwrap();
            let status = sync_run::cancel(&tx, Scope::Operator, run, at(2)).await;
            tx.commit().await.unwrap();
            assert_eq!(status.unwrap(), "running");
        };
        let held = async |claim: &Claim| {
            let held = sync_run::renew(db, claim.run_id, claim.fence).await;
            let held = held.unwrap();
            (held.again_at, held.confirm_mass_deletion)
        };
        let run = add_run(db, &row).await;
        let claimed = claim(db, run).await.unwrap();
        ask(run, at(3)).await;
        cancel(run).await;
        assert_eq!(held(&claimed).await, (None, false));
        ask(run, at(4)).await;
        assert_eq!(held(&claimed).await, (Some(at(4)), true));
        cancel(run).await;
        assert_eq!(held(&claimed).await, (None, false));
        let tx = db.begin().await.unwrap();
        sync_run::requeue(&tx, run, None, None).await.unwrap();
        tx.commit().await.unwrap();
        ask(run, at(5)).await;
        let next = claim(db, run).await.unwrap();
        assert_eq!(held(&next).await, (Some(at(5)), true));
        finish(db, run, RunStatus::Cancelled).await;

        // The sync that waits for an import is not the import's.
        let tx = db.begin().await.unwrap();
        let importing = import_run::begin(&tx, &new_run(&row), WorkerId::new(), at(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        ask(importing.run_id, at(6)).await;
        cancel(importing.run_id).await;
        assert_eq!(held(&importing).await, (Some(at(6)), true));
    })
    .await;
}

#[tokio::test]
async fn a_running_run_remembers_that_another_pass_is_wanted() {
    both(async |test| {
        let db = &test.db;
        let run = add_run(db, &connect_gmail(db).await).await;
        let ask = async |confirm| {
            let tx = db.begin().await.unwrap();
            let asked = sync_run::ask_again(&tx, run, at(5), confirm).await;
            tx.commit().await.unwrap();
            asked
        };
        ask(false).await.unwrap();
        let claimed = claim(db, run).await.unwrap();
        let held = sync_run::renew(db, run, claimed.fence).await.unwrap();
        assert_eq!(held.again_at, None, "asked for while it was queued");
        ask(true).await.unwrap();
        ask(false).await.unwrap();
        let held = sync_run::renew(db, run, claimed.fence).await.unwrap();
        assert_eq!(held.again_at, Some(at(5)));
        assert!(
            held.confirm_mass_deletion,
            "a confirmation is not taken back"
        );

        let tx = db.begin().await.unwrap();
        sync_run::begin_again(&tx, run).await.unwrap();
        tx.commit().await.unwrap();
        let held = sync_run::renew(db, run, claimed.fence).await.unwrap();
        assert_eq!(held.again_at, None);

        finish(db, run, RunStatus::Success).await;
        let late = ask(false).await;
        assert!(
            matches!(late, Err(DbError::NotFound)),
            "the request must not be lost: {late:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn runs_whose_holder_is_gone_go_back_into_the_queue() {
    both(async |test| {
        let db = &test.db;
        let mut runs = Vec::new();
        for _ in 0..4 {
            runs.push(add_run(db, &connect_gmail(db).await).await);
        }
        for run in &runs[..3] {
            claim(db, *run).await.unwrap();
        }
        finish(db, runs[2], RunStatus::Success).await;
        let free = async |all| {
            let tx = db.begin().await.unwrap();
            let freed = sync_run::free_abandoned(&tx, all).await.unwrap();
            tx.commit().await.unwrap();
            freed
        };
        assert!(free(false).await.is_empty());
        let id = match db.is_postgres() {
            true => format!("'{}'", runs[0]),
            false => format!("x'{}'", runs[0].0.simple()),
        };
        test.sql(&format!(
            "UPDATE sync_runs SET lease_until = 1 WHERE id = {id}"
        ))
        .await;
        let freed = free(false).await;
        assert_eq!(freed.len(), 1);
        assert_eq!(freed[0].id, runs[0]);
        let found = integration::find(db, Scope::Operator, freed[0].integration_id);
        found.await.unwrap();
        let freed = free(true).await;
        assert_eq!(freed.len(), 1);
        assert_eq!(freed[0].id, runs[1]);
        assert_eq!(run_status(db, runs[2]).await, "success");
        let again = sync_run::claim(db, runs[0], WorkerId::new(), at(4))
            .await
            .unwrap();
        assert_eq!(again.unwrap().fence, 2);
    })
    .await;
}
