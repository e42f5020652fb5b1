//! Runs that several processes reach for at the same moment.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use nucleus::{
    db::{
        Db, DbError, Limits, import_run,
        sync_run::{self, WorkerId},
    },
    domain::{
        SystemClock,
        sync::{RunStatus, Scope, Trigger},
    },
    sync::{self, Request},
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, TransactionTrait};

use super::{
    super::db::{TestDb, both},
    add_run, at, claim, connect_gmail, new_run, run_status,
};

/// Waits until a statement in the test's database waits for a lock.
pub async fn until_somebody_waits(test: &TestDb) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while test.number(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_claims_at_once_one_wins() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        // Two pools stand for two processes.
        let other = Db::connect(&test.url, Limits::of(16)).await.unwrap();
        for round in 1..=3 {
            let run = match round {
                1 => add_run(&test.db, &row).await,
                _ => {
                    test.sql("UPDATE sync_runs SET lease_until = 1").await;
                    let tx = test.db.begin().await.unwrap();
                    let active = sync_run::active(&tx, row.id).await.unwrap().unwrap();
                    active.run_id
                }
            };
            let pools = [&test.db, &other];
            let claims = join_all((0..64).map(|index| claim(pools[index % 2], run))).await;
            let won: Vec<i64> = claims.into_iter().flatten().map(|won| won.fence).collect();
            assert_eq!(won, [round]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_16_inserts_at_once_one_wins() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let inserts = join_all((0..16).map(|_| async {
            let tx = test.db.begin().await?;
            sync_run::insert(&tx, &new_run(&row)).await?;
            tx.commit().await
        }))
        .await;
        let won = inserts.iter().filter(|result| result.is_ok()).count();
        let lost = inserts
            .iter()
            .filter(|result| matches!(result, Err(DbError::Conflict)))
            .count();
        assert_eq!((won, lost), (1, 15));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_16_requests_at_once_all_get_the_same_run() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let request = Request {
            trigger: Trigger::Manual,
            confirm_mass_deletion: false,
        };
        for _ in 0..20 {
            let requests = join_all((0..16).map(|_| async {
                sync::request(&test.db, &SystemClock, Scope::Operator, row.id, request).await
            }))
            .await;
            let runs: BTreeSet<String> = requests
                .into_iter()
                .map(|run| run.unwrap().run_id.to_string())
                .collect();
            assert_eq!(runs.len(), 1);
            assert_eq!(test.number("SELECT count(*) FROM outbox").await, 1);
            test.sql("UPDATE sync_runs SET status = 'success'").await;
            test.sql("DELETE FROM outbox").await;
        }
    })
    .await;
}

/// SQLite has one writer, so this can only happen in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_claimed_while_it_is_cancelled_is_told_so() {
    let test = TestDb::postgres().await;
    let run = add_run(&test.db, &connect_gmail(&test.db).await).await;
    let mut options = ConnectOptions::new(&test.url);
    options.set_schema_search_path("dna");
    let claimer = Database::connect(options).await.unwrap();
    let claiming = claimer.begin().await.unwrap();
    claiming
        .execute_unprepared("UPDATE sync_runs SET status = 'running', fence = 1, lease_until = 1")
        .await
        .unwrap();
    let tx = test.db.begin().await.unwrap();
    let cancelling = async {
        let status = sync_run::cancel(&tx, Scope::Operator, run, at(2))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        status
    };
    let committing = async {
        until_somebody_waits(&test).await;
        claiming.commit().await.unwrap();
    };
    let (status, ()) = tokio::join!(cancelling, committing);
    assert_eq!(status, "running");
    assert_eq!(run_status(&test.db, run).await, "running");
    assert!(sync_run::cancel_requested(&test.db, run).await.unwrap());
}

/// SQLite has one writer, so this can only happen in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_asked_for_while_the_run_ends_is_not_lost_in_silence() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    let run = add_run(&test.db, &row).await;
    let claimed = claim(&test.db, run).await.unwrap();
    let ending = test.db.begin().await.unwrap();
    let held = sync_run::fence(&ending, run, claimed.fence).await.unwrap();
    assert_eq!(held.again_at, None);
    let asking = async {
        let tx = test.db.begin().await.unwrap();
        let active = sync_run::active(&tx, row.id).await.unwrap().unwrap();
        assert_eq!(active.status, "running");
        sync_run::ask_again(&tx, run, at(2), false).await
    };
    let finishing = async {
        until_somebody_waits(&test).await;
        sync_run::finish(&ending, run, RunStatus::Success, 0, None, at(3))
            .await
            .unwrap();
        ending.commit().await.unwrap();
    };
    let (asked, ()) = tokio::join!(asking, finishing);
    assert!(matches!(asked, Err(DbError::NotFound)), "{asked:?}");
    add_run(&test.db, &row).await;
}

/// SQLite has one writer, so this can only happen in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_renews_its_lease_while_somebody_looks_is_not_taken_for_dead() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    let tx = test.db.begin().await.unwrap();
    let run = new_run(&row);
    import_run::begin(&tx, &run, WorkerId::new(), at(1))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut options = ConnectOptions::new(&test.url);
    options.set_schema_search_path("dna");
    let holder = Database::connect(options).await.unwrap();
    test.sql("UPDATE sync_runs SET lease_until = 1").await;
    let renewing = holder.begin().await.unwrap();
    renewing
        .execute_unprepared("UPDATE sync_runs SET lease_until = 9000000000000000")
        .await
        .unwrap();
    let looking = async {
        let tx = test.db.begin().await.unwrap();
        let found = import_run::interrupted(&tx).await.unwrap();
        tx.commit().await.unwrap();
        found
    };
    let committing = async {
        until_somebody_waits(&test).await;
        renewing.commit().await.unwrap();
    };
    let mut looking = std::pin::pin!(looking);
    let found = tokio::select! {
        found = &mut looking => found,
        () = committing => looking.await,
    };
    assert!(found.is_empty(), "{found:?}");
}
