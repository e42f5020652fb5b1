//! Rows on their way to a broker: several relays share them, and what one leaves another finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use nucleus::{
    db::{
        Db, outbox,
        relay::{self, Outgoing},
        sync_run::WorkerId,
    },
    domain::{
        EventId, RunId,
        event::{DNA_ANALYSIS, SYNC_REQUESTS},
        sync::Scope,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    super::db::{TestDb, both},
    at, changed, connect_gmail, request,
};
use crate::kills::seed;
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

async fn append(db: &Db, of: &Integration, events: usize) {
    let tx = db.begin().await.unwrap();
    for _ in 0..events {
        let made = outbox::append_dna_events(&tx, &source(of), changed(1), at(0)).await;
        assert_eq!(made.unwrap(), 1);
    }
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, topic: &str, owner: WorkerId, limit: u64) -> Vec<Outgoing> {
    relay::claim(db, topic, owner, at(100), limit)
        .await
        .unwrap()
}

fn ids(rows: &[Outgoing]) -> Vec<EventId> {
    rows.iter().map(|row| row.id).collect()
}

async fn visible(db: &Db) -> Vec<(i64, EventId)> {
    let events = outbox::events_after(db, Scope::Operator, 0, 10_000).await;
    let events = events.unwrap().into_iter();
    events
        .map(|event| (event.position, event.event.id))
        .collect()
}

#[tokio::test]
async fn an_event_is_visible_once_it_is_published_and_keeps_its_id() {
    both(async |test| {
        let db = &test.db.clone().relayed();
        let row = connect_gmail(db).await;
        append(db, &row, 5).await;
        assert_eq!(visible(db).await, []);
        assert_eq!(outbox::positions(db).await.unwrap().position, 0);

        let (one, two) = (WorkerId::new(), WorkerId::new());
        let first = claim(db, DNA_ANALYSIS, one, 3).await;
        let second = claim(db, DNA_ANALYSIS, two, 100).await;
        assert_eq!((first.len(), second.len()), (3, 2));
        assert_eq!(first[0].integration_id, row.id);
        assert!(claim(db, DNA_ANALYSIS, one, 100).await.is_empty());

        // What is not published goes back; what belongs to another is left alone.
        let (early, late) = (ids(&second), ids(&first));
        relay::mark_published(db, two, DNA_ANALYSIS, &early, at(1))
            .await
            .unwrap();
        relay::mark_published(db, two, DNA_ANALYSIS, &late, at(1))
            .await
            .unwrap();
        relay::release(db, two, &late).await.unwrap();
        assert_eq!(visible(db).await, [(1, early[0]), (2, early[1])]);
        relay::release(db, one, &late[..1]).await.unwrap();
        relay::mark_published(db, one, DNA_ANALYSIS, &late, at(2))
            .await
            .unwrap();
        let shown = visible(db).await;
        assert_eq!(shown[2..], [(3, late[1]), (4, late[2])]);

        // One whose relay died is published as the same event.
        assert_eq!(ids(&claim(db, DNA_ANALYSIS, one, 100).await), late[..1]);
        test.sql("UPDATE outbox SET lease_until = 1 WHERE state = 'leased'")
            .await;
        let tx = db.begin().await.unwrap();
        assert_eq!(outbox::free_abandoned(&tx, false).await.unwrap(), 1);
        tx.commit().await.unwrap();
        let again = claim(db, DNA_ANALYSIS, two, 100).await;
        assert_eq!(ids(&again), late[..1]);
        relay::mark_published(db, one, DNA_ANALYSIS, &late[..1], at(3))
            .await
            .unwrap();
        assert_eq!(visible(db).await.len(), 4, "it is the other's by now");
        relay::mark_published(db, two, DNA_ANALYSIS, &late[..1], at(3))
            .await
            .unwrap();
        assert_eq!(visible(db).await[4], (5, late[0]));
        assert_eq!(outbox::purge(db, at(4), 100).await.unwrap(), 5);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_the_broker_has_stays_until_a_worker_is_done_with_it() {
    both(async |test| {
        let db = &test.db.clone().relayed();
        let row = connect_gmail(db).await;
        let tx = db.begin().await.unwrap();
        for available in [0, 200] {
            let request = request(&row, RunId::new());
            outbox::append_sync_request(&tx, &request, None, at(available), at(0))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let owner = WorkerId::new();
        let claimed = claim(db, SYNC_REQUESTS, owner, 100).await;
        assert_eq!(claimed.len(), 1, "the other waits for its time");
        let id = claimed[0].id;
        relay::mark_published(db, owner, SYNC_REQUESTS, &[id], at(1))
            .await
            .unwrap();
        assert_eq!(relay::count_handed_over(db).await.unwrap(), 1);
        let handed_over = test
            .number("SELECT count(*) FROM outbox WHERE lease_owner IS NULL AND state = 'leased'");
        assert_eq!(handed_over.await, 1);
        // After a minute first, then when it is twice as old, and after an hour in the end.
        for (seconds, next) in [(60, 150), (150, 90_000), (3_600, 90_001)] {
            assert_eq!(freed_after(test, db, seconds - 10).await, 0, "{seconds} s");
            assert_eq!(freed_after(test, db, 20).await, 1, "{seconds} s");
            let again = claim(db, SYNC_REQUESTS, owner, 100).await;
            assert_eq!(ids(&again), [id], "a broker that lost it gets it again");
            relay::mark_published(db, owner, SYNC_REQUESTS, &[id], at(next))
                .await
                .unwrap();
        }
        relay::done(db, id).await.unwrap();
        relay::mark_published(db, owner, SYNC_REQUESTS, &[id], at(1))
            .await
            .unwrap();
        assert_eq!(relay::count_handed_over(db).await.unwrap(), 0);
        assert_eq!(test.count("outbox").await, 1);
    })
    .await;
}

/// How many messages are due again when so many seconds more have gone by.
async fn freed_after(test: &TestDb, db: &Db, seconds: i64) -> u64 {
    test.sql(&format!(
        "UPDATE outbox SET lease_until = lease_until - {} WHERE state = 'leased'",
        seconds * 1000
    ))
    .await;
    let tx = db.begin().await.unwrap();
    let freed = outbox::free_abandoned(&tx, false).await.unwrap();
    tx.commit().await.unwrap();
    freed
}

/// Writers that commit and roll back, relays that die between publishing and marking, and a reader that
/// follows: what was published is what was committed, and positions come in order.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_what_was_committed_in_order_of_positions() {
    const WRITERS: u64 = 16;
    const EACH: usize = 25;
    let seed = seed();
    both(async |test| {
        let db = &test.db.clone().relayed();
        let row = &connect_gmail(db).await;
        let written = &AtomicBool::new(false);
        let writers = join_all((0..WRITERS).map(|writer| async move {
            let mut random = StdRng::seed_from_u64(seed ^ writer);
            for _ in 0..EACH {
                let tx = db.begin().await.unwrap();
                let events = random.random_range(1..4);
                for _ in 0..events {
                    outbox::append_dna_events(&tx, &source(row), changed(1), at(0))
                        .await
                        .unwrap();
                }
                for _ in 0..random.random_range(0..20) {
                    tokio::task::yield_now().await;
                }
                if random.random_bool(0.7) {
                    tx.commit().await.unwrap();
                }
            }
        }));
        let relays = join_all((0..3_u64).map(|number| async move {
            let mut random = StdRng::seed_from_u64(seed.rotate_left(7) ^ number);
            let mut published: Vec<EventId> = Vec::new();
            loop {
                let is_last = written.load(Ordering::SeqCst);
                let owner = WorkerId::new();
                let page = claim(db, DNA_ANALYSIS, owner, random.random_range(1..20)).await;
                let mine = ids(&page);
                published.extend(&mine);
                if random.random_bool(0.2) {
                    // It dies here: its lease runs out.
                    let tx = db.begin().await.unwrap();
                    outbox::free_abandoned(&tx, true).await.unwrap();
                    tx.commit().await.unwrap();
                    continue;
                }
                relay::mark_published(db, owner, DNA_ANALYSIS, &mine, at(1))
                    .await
                    .unwrap();
                if is_last && page.is_empty() {
                    return published;
                }
                tokio::task::yield_now().await;
            }
        }));
        let reader = async {
            let mut seen = BTreeMap::new();
            let mut after = 0;
            loop {
                let is_last = written.load(Ordering::SeqCst);
                let pending = test
                    .number("SELECT count(*) FROM outbox WHERE position IS NULL")
                    .await;
                let page = outbox::events_after(db, Scope::Operator, after, 50)
                    .await
                    .unwrap();
                for event in &page {
                    assert_eq!(event.position, after + 1, "a position was passed over");
                    after = event.position;
                    seen.insert(after, event.event.id);
                }
                if is_last && page.is_empty() && pending == 0 {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        };
        let writing = async {
            writers.await;
            written.store(true, Ordering::SeqCst);
        };
        let ((), published, seen) = tokio::join!(writing, relays, reader);
        let committed = test
            .column("SELECT CAST(position AS text) FROM outbox")
            .await;
        assert!(committed.len() > 200, "{}", committed.len());
        let published: BTreeSet<EventId> = published.into_iter().flatten().collect();
        let told: BTreeSet<EventId> = seen.values().copied().collect();
        assert_eq!(told.len(), committed.len());
        assert!(told.is_subset(&published), "what is told was published");
        assert_eq!(published.len(), told.len(), "nothing of a rollback");
    })
    .await;
}
