//! Bad weather: a crowd of writers on one file, a server that cuts its connections.

use std::time::Duration;

use futures_util::future::join_all;
use nucleus::{
    db::{Db, DbError, Limits, Tx, integration::Integration, outbox, raw_data, sync_run},
    domain::sync::{Counts, Mode},
};
use tokio::time::timeout;

use super::{
    super::{
        child::{PATIENCE, happens, in_time},
        db::{CONNECTIONS, TestDb},
    },
    add_run, at, changed, claim, connect_gmail, new_row, patient, store,
};

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_over_two_pools_share_one_file() {
    let test = TestDb::sqlite().await;
    let [one, other] = [
        Db::connect(&test.url, patient(CONNECTIONS)).await.unwrap(),
        Db::connect(&test.url, patient(CONNECTIONS)).await.unwrap(),
    ];
    let write = async |db: &Db| -> Result<(), DbError> {
        let row = connect_gmail(db).await;
        let run = add_run(db, &row).await;
        let claimed = claim(db, run).await.unwrap();
        let source = outbox::Source {
            entity_id: row.entity_id,
            integration_id: row.id,
            service_name: "gmail".into(),
            run_id: Some(run),
            traceparent: None,
        };
        for batch in 0..25 {
            let tx = db.begin().await?;
            // A look before the first write: what a deferred transaction fails at.
            sync_run::active(&tx, row.id).await?;
            sync_run::fence(&tx, run, claimed.fence).await?;
            let ids: Vec<String> = (0..4).map(|index| format!("{batch}-{index}")).collect();
            raw_data::lookup(&tx, row.id, &ids).await?;
            let rows = ids.iter().map(|id| new_row(&row, id, &["INBOX"])).collect();
            raw_data::upsert(&tx, row.entity_id, row.id, rows, at(batch)).await?;
            sync_run::save_progress(&tx, run, Mode::Full, &Counts::default(), batch, 1, true)
                .await?;
            outbox::append_dna_events(&tx, &source, changed(4), at(batch)).await?;
            tx.commit().await?;
            raw_data::stored_ids(db, row.id, &ids).await?;
        }
        Ok(())
    };
    let pools = [&one, &other];
    for result in join_all((0..8).map(|index| write(pools[index % 2]))).await {
        result.unwrap();
    }
    assert_eq!(test.count("raw_data").await, 8 * 25 * 4);
    assert_eq!(outbox::positions(&other).await.unwrap().position, 8 * 25);
    assert_eq!(test.column("PRAGMA journal_mode").await, ["wal"]);
    assert_eq!(test.column("PRAGMA integrity_check").await, ["ok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_not_held_up_by_a_writer() {
    let test = TestDb::sqlite().await;
    let row = connect_gmail(&test.db).await;
    store(&test.db, &row, &["m1"]).await;
    let tx = test.db.begin().await.unwrap();
    let rows = vec![new_row(&row, "m2", &[])];
    raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1))
        .await
        .unwrap();
    let ids = super::strings(&["m1", "m2"]);
    let reading = raw_data::stored_ids(&test.db, row.id, &ids);
    let found = timeout(Duration::from_secs(5), reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.len(), 1, "what is not committed is not seen");
    tx.commit().await.unwrap();
    let found = raw_data::stored_ids(&test.db, row.id, &ids).await.unwrap();
    assert_eq!(found.len(), 2);
}

/// Cuts every connection to the test's database but the one that asks for it.
async fn cut(test: &TestDb) {
    test.number(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_replaced() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    store(&test.db, &row, &["m1"]).await;
    for _ in 0..5 {
        // Fill the pool, so that every connection in it is cut.
        for ping in join_all((0..CONNECTIONS).map(|_| test.db.ping())).await {
            ping.unwrap();
        }
        cut(&test).await;
        for _ in 0..3 {
            match raw_data::has_any(&test.db, row.id).await {
                Ok(found) => assert!(found),
                Err(DbError::Unavailable(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(raw_data::has_any(&test.db, row.id).await.unwrap());
        store(&test.db, &row, &["m1"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_connection_is_cut_says_that_the_database_is_away() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    let write = async |id: &str| {
        let tx = test.db.begin().await?;
        let rows = vec![new_row(&row, id, &[])];
        raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1)).await?;
        cut(&test).await;
        let rows = vec![new_row(&row, "second", &[])];
        raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1)).await?;
        tx.commit().await
    };
    let refused: Result<(), DbError> = write("first").await;
    assert!(
        matches!(refused, Err(DbError::Unavailable(_))),
        "{refused:?}"
    );

    let tx = test.db.begin().await.unwrap();
    let rows = vec![new_row(&row, "third", &[])];
    raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1))
        .await
        .unwrap();
    cut(&test).await;
    let refused = tx.commit().await;
    assert!(
        matches!(refused, Err(DbError::Unavailable(_))),
        "{refused:?}"
    );

    assert!(!raw_data::has_any(&test.db, row.id).await.unwrap());
    store(&test.db, &row, &["m1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_unavailable() {
    let refused = Db::connect("postgres://nobody@127.0.0.1:9/none", Limits::of(1))
        .await
        .map(drop);
    assert!(
        matches!(refused, Err(DbError::Unavailable(_))),
        "{refused:?}"
    );
    let refused = Db::connect("sqlite:/nonexistent/folder/nucleus.db", Limits::of(1))
        .await
        .map(drop);
    assert!(
        matches!(refused, Err(DbError::Unavailable(_))),
        "{refused:?}"
    );
}

/// Appends an event, which takes the one row that numbers them.
async fn number_an_event(tx: &Tx, row: &Integration) -> Result<(), DbError> {
    let source = outbox::Source {
        entity_id: row.entity_id,
        integration_id: row.id,
        service_name: "gmail".into(),
        run_id: None,
        traceparent: None,
    };
    let events = outbox::append_dna_events(tx, &source, changed(1), at(0)).await;
    events.map(drop)
}

/// Connects within bounds that may be too short for that on a machine with much else to do.
async fn connect(url: &str, limits: Limits) -> Db {
    let mut connected = None;
    let in_time = happens(PATIENCE, async || {
        let outcome = Db::connect(url, limits).await;
        if matches!(outcome, Err(DbError::Unavailable(_))) {
            return false;
        }
        connected = Some(outcome.unwrap());
        true
    });
    assert!(in_time.await, "{limits:?}");
    connected.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_waited_for_longer_than_its_bound() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    // Long enough for what is to succeed, and shorter than what is waited for by default.
    let short = Duration::from_secs(1);
    let soon = Duration::from_secs(8);
    let bounds = [
        Limits {
            lock_timeout: short,
            ..Limits::of(2)
        },
        Limits {
            statement_timeout: short,
            ..Limits::of(2)
        },
        Limits {
            acquire_timeout: short,
            ..Limits::of(1)
        },
    ];
    for limits in bounds {
        let db = connect(&test.url, limits).await;
        // Another transaction has the row that is wanted, and here and there the only connection.
        let holder = match limits.max_connections {
            1 => db.begin().await.unwrap(),
            _ => test.db.begin().await.unwrap(),
        };
        number_an_event(&holder, &row).await.unwrap();
        let write = async || {
            let tx = db.begin().await?;
            number_an_event(&tx, &row).await?;
            tx.commit().await
        };
        let refused = in_time(soon, write()).await;
        assert!(
            matches!(refused, Err(DbError::Unavailable(_))),
            "{limits:?}: {refused:?}"
        );
        drop(holder);
        let written = happens(PATIENCE, async || write().await.is_ok());
        assert!(written.await, "{limits:?}");
    }

    let limits = Limits {
        idle_in_transaction_timeout: short,
        ..Limits::of(2)
    };
    let db = connect(&test.url, limits).await;
    let stopped = db.begin().await.unwrap();
    number_an_event(&stopped, &row).await.unwrap();
    // The server takes back what stands still, and whoever waits for it goes on.
    let other = test.db.begin().await.unwrap();
    let waiting = number_an_event(&other, &row);
    in_time(soon, waiting).await.unwrap();
    other.commit().await.unwrap();
    let late = stopped.commit().await;
    assert!(matches!(late, Err(DbError::Unavailable(_))), "{late:?}");
    let positions = outbox::positions(&test.db).await.unwrap();
    assert_eq!(
        positions.position, 4,
        "what was taken back counts for nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_outage_and_leaves_nothing_half_done() {
    let test = TestDb::postgres().await;
    let row = connect_gmail(&test.db).await;
    // 53100 is what the server says when its disk is full, 58030 when the disk fails.
    for code in ["53100", "58030"] {
        test.sql(&format!(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON outbox EXECUTE FUNCTION full_disk()"
        ))
        .await;
        let tx = test.db.begin().await.unwrap();
        let rows = vec![new_row(&row, "m1", &[])];
        raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1))
            .await
            .unwrap();
        let refused = number_an_event(&tx, &row).await;
        assert!(
            matches!(refused, Err(DbError::Unavailable(_))),
            "{refused:?}"
        );
        drop(tx);
        assert!(!raw_data::has_any(&test.db, row.id).await.unwrap());
        test.sql("DROP FUNCTION full_disk CASCADE").await;
    }
    store(&test.db, &row, &["m1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_write_one_sqlite_file_and_none_is_refused() {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let test = TestDb::sqlite().await;
    let row = connect_gmail(&test.db).await;
    // A pool each, as processes have: they meet at SQLite's lock and not before.
    let write = async |writer: usize| {
        let db = Db::connect(&test.url, patient(2)).await?;
        for number in 0..WRITES {
            let tx = db.begin().await?;
            let rows = vec![new_row(&row, &format!("{writer}-{number}"), &[])];
            raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1)).await?;
            number_an_event(&tx, &row).await?;
            tx.commit().await?;
        }
        db.close().await
    };
    for written in join_all((0..WRITERS).map(write)).await {
        written.unwrap();
    }
    let all = (WRITERS * WRITES) as i64;
    assert_eq!(test.count("raw_data").await, all);
    assert_eq!(outbox::positions(&test.db).await.unwrap().position, all);
}
