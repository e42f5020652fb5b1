//! The outbox: requests are leased, events are numbered.

use std::collections::HashSet;

use futures_util::future::join_all;
use nucleus::{
    db::{
        Db, Limits, dead_letter, outbox,
        sync_run::{LEASE_MS, WorkerId},
    },
    domain::{
        EventId, RunId, ServiceName,
        event::{DnaAnalysisRequested, RECORDS_PER_EVENT},
        sync::Scope,
    },
};

use super::{
    super::db::{Kind, both},
    add_entity, add_integration, at, changed, connect_gmail, first, integration_of, request,
};
use nucleus::db::integration::Integration;

fn source(of: &Integration) -> outbox::Source {
    outbox::Source {
        entity_id: of.entity_id,
        integration_id: of.id,
        service_name: of.service_name.clone(),
        run_id: Some(RunId::new()),
        traceparent: None,
    }
}

async fn append(db: &Db, of: &Integration, run: RunId, available: i64) {
    let tx = db.begin().await.unwrap();
    outbox::append_sync_request(&tx, &request(of, run), None, at(available), at(0))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn lease(db: &Db, owner: WorkerId, now: i64) -> Option<outbox::Leased> {
    outbox::lease_sync_request(db, owner, at(now))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_is_leased_renewed_freed_and_acknowledged() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let (late, early) = (RunId::new(), RunId::new());
        append(db, &row, late, 20).await;
        append(db, &row, early, 10).await;
        let tx = db.begin().await.unwrap();
        outbox::append_sync_request(&tx, &request(&row, RunId::new()), None, at(0), at(0))
            .await
            .unwrap();
        drop(tx);

        let (one, two) = (WorkerId::new(), WorkerId::new());
        assert!(
            lease(db, one, 9).await.is_none(),
            "nothing is due, nothing was committed"
        );
        let first = lease(db, one, 30).await.unwrap();
        assert_eq!(first.request.run_id, early);
        assert_eq!(first.request.integration_id, row.id);
        assert_eq!(first.request.requested_at, at(0));
        let second = lease(db, two, 30).await.unwrap();
        assert_eq!(second.request.run_id, late);
        assert!(lease(db, two, 30).await.is_none());

        // Who does not hold it can neither keep it nor take it away.
        test.sql("UPDATE outbox SET lease_until = 1").await;
        outbox::renew_lease(db, first.id, two).await.unwrap();
        outbox::ack(db, first.id, two).await.unwrap();
        outbox::renew_lease(db, second.id, two).await.unwrap();
        let longest = test.number("SELECT max(lease_until) FROM outbox").await;
        assert!(longest > LEASE_MS, "{longest}");
        let tx = db.begin().await.unwrap();
        assert_eq!(outbox::free_abandoned(&tx, false).await.unwrap(), 1);
        tx.commit().await.unwrap();
        outbox::ack(db, first.id, one).await.unwrap();
        let again = lease(db, two, 30).await.unwrap();
        assert_eq!(again.id, first.id, "a repeat keeps its id");

        let tx = db.begin().await.unwrap();
        assert_eq!(outbox::free_abandoned(&tx, true).await.unwrap(), 2);
        tx.commit().await.unwrap();
        for _ in 0..2 {
            let leased = lease(db, one, 30).await.unwrap();
            outbox::ack(db, leased.id, one).await.unwrap();
        }
        assert_eq!(test.count("outbox").await, 0);
    })
    .await;
}

#[tokio::test]
async fn requests_of_a_removed_integration_go_and_events_stay() {
    both(async |test| {
        let db = &test.db;
        let (row, other) = (connect_gmail(db).await, connect_gmail(db).await);
        append(db, &row, RunId::new(), 0).await;
        append(db, &other, RunId::new(), 0).await;
        let tx = db.begin().await.unwrap();
        outbox::append_dna_events(&tx, &source(&row), changed(1), at(0))
            .await
            .unwrap();
        outbox::delete_sync_requests(&tx, row.id).await.unwrap();
        tx.commit().await.unwrap();
        let left = test.column("SELECT topic FROM outbox ORDER BY topic").await;
        assert_eq!(left, ["nucleus-dna-analysis", "nucleus-sync-requests"]);
        let leased = lease(db, WorkerId::new(), 0).await.unwrap();
        assert_eq!(leased.request.integration_id, other.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_requests_16_workers_get_each_once() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let tx = test.db.begin().await.unwrap();
        for index in 0..200 {
            let request = request(&row, RunId::new());
            outbox::append_sync_request(&tx, &request, None, at(index % 7), at(0))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let other = Db::connect(&test.url, Limits::of(8)).await.unwrap();
        let pools = [&test.db, &other];
        // A worker that is told that nothing is due goes to sleep, so that must be true.
        let workers = join_all((0..16).map(|index| async move {
            let mut leased = Vec::new();
            while let Some(next) = lease(pools[index % 2], WorkerId::new(), 100).await {
                leased.push(next.id);
            }
            leased
        }))
        .await;
        let all: Vec<EventId> = workers.into_iter().flatten().collect();
        let distinct: HashSet<EventId> = all.iter().copied().collect();
        assert_eq!((all.len(), distinct.len()), (200, 200));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_that_nothing_is_due_only_if_that_is_so() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let other = Db::connect(&test.url, Limits::of(8)).await.unwrap();
        let pools = [&test.db, &other];
        for _ in 0..10 {
            for _ in 0..16 {
                append(&test.db, &row, RunId::new(), 0).await;
            }
            let leased =
                join_all((0..16).map(|index| lease(pools[index % 2], WorkerId::new(), 1))).await;
            assert_eq!(leased.iter().flatten().count(), 16);
        }
    })
    .await;
}

#[tokio::test]
async fn events_are_cut_by_100_and_numbered_without_gaps() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let github = integration_of(add_entity(db, "Bo").await, ServiceName::Github);
        let github = add_integration(db, github).await;
        let records = changed(2 * RECORDS_PER_EVENT + 50);
        let tx = db.begin().await.unwrap();
        assert_eq!(
            outbox::append_dna_events(&tx, &source(&row), vec![], at(1))
                .await
                .unwrap(),
            0
        );
        let made = outbox::append_dna_events(&tx, &source(&row), records.clone(), at(1)).await;
        assert_eq!(made.unwrap(), 3);
        tx.commit().await.unwrap();
        let tx = db.begin().await.unwrap();
        outbox::append_dna_events(&tx, &source(&github), changed(101), at(2))
            .await
            .unwrap();
        drop(tx);
        let tx = db.begin().await.unwrap();
        let made = outbox::append_dna_events(&tx, &source(&github), changed(100), at(3)).await;
        assert_eq!(made.unwrap(), 1);
        tx.commit().await.unwrap();

        let events = outbox::events_after(db, Scope::Operator, 0, 100)
            .await
            .unwrap();
        let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
        assert_eq!(positions, [1, 2, 3, 4]);
        let mut told = Vec::new();
        for event in &events[..3] {
            let data: DnaAnalysisRequested =
                serde_json::from_value(event.event.data.clone()).unwrap();
            assert!(data.records.len() <= RECORDS_PER_EVENT);
            assert_eq!(
                (data.entity_id, data.trust.as_str()),
                (row.entity_id, "untrusted_external")
            );
            told.extend(data.records.into_iter().map(|record| record.id));
        }
        let expected: Vec<_> = records.iter().map(|record| record.id).collect();
        assert_eq!(told, expected);
        let last = &events[3].event;
        assert_eq!(
            (last.source.as_str(), last.subject),
            ("nucleus/github", github.id)
        );
        assert_eq!((last.time, last.specversion), (at(3), "1.0"));

        let page = outbox::events_after(db, Scope::Operator, 1, 2)
            .await
            .unwrap();
        let positions: Vec<i64> = page.iter().map(|event| event.position).collect();
        assert_eq!(positions, [2, 3]);
        let own = Scope::Entity(github.entity_id);
        let page = outbox::events_after(db, own, 0, 100).await.unwrap();
        assert_eq!((page.len(), page[0].position), (1, 4));
        assert!(
            lease(db, WorkerId::new(), 100).await.is_none(),
            "events are no requests"
        );
    })
    .await;
}

#[tokio::test]
async fn retention_keeps_what_is_young_though_a_clock_stood_behind_after_it() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        // The third and the fourth were published by a clock that stood behind.
        for published in [1, 100, 2, 3, 101] {
            let tx = db.begin().await.unwrap();
            outbox::append_dna_events(&tx, &source(&row), changed(1), at(published))
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(outbox::purge(db, at(50), 100).await.unwrap(), 1);
        assert_eq!(outbox::purge(db, at(50), 100).await.unwrap(), 0);
        assert_eq!(outbox::positions(db).await.unwrap().horizon, 1);
        let left = outbox::events_after(db, Scope::Operator, 1, 100)
            .await
            .unwrap();
        let left: Vec<i64> = left.iter().map(|event| event.position).collect();
        assert_eq!(left, [2, 3, 4, 5]);
        assert_eq!(outbox::purge(db, at(101), 100).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test]
async fn retention_removes_the_oldest_and_remembers_how_far() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        append(db, &row, RunId::new(), 0).await;
        for index in 1..=10 {
            let tx = db.begin().await.unwrap();
            outbox::append_dna_events(&tx, &source(&row), changed(1), at(index))
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let ends = async || {
            let ends = outbox::positions(db).await.unwrap();
            (ends.horizon, ends.position)
        };
        assert_eq!(outbox::purge(db, at(1), 100).await.unwrap(), 0);
        assert_eq!(ends().await, (0, 10));
        assert_eq!(outbox::purge(db, at(8), 3).await.unwrap(), 3);
        assert_eq!(ends().await, (3, 10));
        assert_eq!(outbox::purge(db, at(8), 100).await.unwrap(), 4);
        assert_eq!(outbox::purge(db, at(8), 100).await.unwrap(), 0);
        assert_eq!(ends().await, (7, 10));
        let left = outbox::events_after(db, Scope::Operator, 0, 100)
            .await
            .unwrap();
        assert_eq!((left.len(), left[0].position), (3, 8));
        assert_eq!(outbox::purge(db, at(99), 100).await.unwrap(), 3);
        assert_eq!(ends().await, (10, 10));
        let tx = db.begin().await.unwrap();
        outbox::append_dna_events(&tx, &source(&row), changed(1), at(99))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ends().await, (10, 11));
        assert!(
            lease(db, WorkerId::new(), 0).await.is_some(),
            "a request is no event"
        );
    })
    .await;
}

#[tokio::test]
async fn a_message_of_a_newer_version_is_parked_and_the_others_are_taken() {
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let newer = [
            "UPDATE outbox SET event_type = 'dev.nucleus.sync.requested.v2'",
            // A word that this version does not know, in a type that it does.
            match test.kind {
                Kind::Sqlite => "UPDATE outbox SET data = json_set(data, '$.trigger', 'astral')",
                Kind::Postgres => {
                    "UPDATE outbox SET data = jsonb_set(data, '{trigger}', '\"astral\"')"
                }
            },
        ];
        let mut written = Vec::new();
        for newer in newer {
            let run = RunId::new();
            let tx = test.db.begin().await.unwrap();
            outbox::append_sync_request(&tx, &request(&row, run), None, at(0), at(0))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            test.sql(&format!(
                "{newer} WHERE state = 'pending' AND lease_until IS NULL"
            ))
            .await;
            written.push(run);
            // It is out of the way of the next one.
            let leased = outbox::lease_sync_request(&test.db, WorkerId::new(), at(1)).await;
            assert!(leased.unwrap().is_none());
        }
        let known = RunId::new();
        let tx = test.db.begin().await.unwrap();
        outbox::append_sync_request(&tx, &request(&row, known), None, at(0), at(0))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let leased = outbox::lease_sync_request(&test.db, WorkerId::new(), at(1)).await;
        assert_eq!(leased.unwrap().unwrap().request.run_id, known);

        let parked = dead_letter::list(&test.db, true, first(50)).await.unwrap();
        // They are listed newest first.
        let parked: Vec<_> = parked.items.into_iter().rev().collect();
        let runs: Vec<RunId> = parked.iter().filter_map(|letter| letter.run_id).collect();
        assert_eq!(runs, written);
        assert!(parked[0].reason.contains("sync.requested.v2"), "{parked:?}");
        assert_eq!(parked[0].event_type, "dev.nucleus.sync.requested.v2");
        assert!(parked[1].reason.contains("astral"), "{parked:?}");
        assert_eq!(parked[1].data["trigger"], "astral");
        assert_eq!(test.count("outbox").await, 1);
    })
    .await;
}
