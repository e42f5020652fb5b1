//! Many write events at once, some roll back, one reads on from the last position it saw: it must
//! see exactly what was committed.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use nucleus::{
    db::{Db, integration::Integration, outbox},
    domain::{RunId, event::DnaAnalysisRequested, sync::Scope},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::yield_now;

use super::{
    super::{child::moment, db::both},
    at, changed, connect_gmail, patient,
};

const WRITERS: u64 = 64;
const TRANSACTIONS: usize = 8;
/// What the seed is read from, to repeat a run.
const SEED: &str = "NUCLEUS_TEST_SEED";

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_follows_positions_misses_nothing_and_sees_nothing_rolled_back() {
    let seed = seed();
    println!("{SEED}={seed}");
    both(async |test| {
        let row = connect_gmail(&test.db).await;
        let pool = Db::connect(&test.url, patient(40)).await.unwrap();
        let running = AtomicUsize::new(WRITERS as usize);
        let read = async || {
            let mut seen = Vec::new();
            let mut last = 0;
            let mut polls = 0;
            loop {
                let done = running.load(Ordering::SeqCst) == 0;
                let events = outbox::events_after(&test.db, Scope::Operator, last, 50)
                    .await
                    .unwrap();
                for event in &events {
                    assert_eq!(event.position, last + 1, "a position was skipped");
                    last = event.position;
                    let data: DnaAnalysisRequested =
                        serde_json::from_value(event.event.data.clone()).unwrap();
                    seen.push(data.run_id.unwrap());
                }
                polls += 1;
                if done && events.is_empty() {
                    return (seen, polls);
                }
                yield_now().await;
            }
        };
        let writers = (0..WRITERS).map(|writer| write(&pool, &row, seed ^ writer, &running));
        let writing = join_all(writers);
        let (committed, (seen, polls)) = tokio::join!(writing, read());

        let committed: Vec<(RunId, i64)> = committed.into_iter().flatten().collect();
        let total: i64 = committed.iter().map(|(_, events)| events).sum();
        assert!(
            committed.len() > 100 && polls > 10,
            "{} in {polls} polls",
            committed.len()
        );
        assert!(
            committed.len() < WRITERS as usize * TRANSACTIONS,
            "nothing was rolled back"
        );
        assert_eq!(seen.len() as i64, total);
        let committed: HashSet<RunId> = committed.into_iter().map(|(run, _)| run).collect();
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), committed);
        assert_eq!(outbox::positions(&test.db).await.unwrap().position, total);
    })
    .await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seed is given by who repeats a run"
)]
fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    }
}

/// Writes transactions of one to three events, and says of which runs and how many it committed.
async fn write(
    pool: &Db,
    row: &Integration,
    seed: u64,
    running: &AtomicUsize,
) -> Vec<(RunId, i64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut committed = Vec::new();
    for _ in 0..TRANSACTIONS {
        let run = RunId::new();
        let source = outbox::Source {
            entity_id: row.entity_id,
            integration_id: row.id,
            service_name: "gmail".into(),
            run_id: Some(run),
            traceparent: None,
        };
        let records = changed(random.random_range(1..=3) * 100);
        let tx = pool.begin().await.unwrap();
        pause(&mut random).await;
        let made = outbox::append_dna_events(&tx, &source, records, at(0)).await;
        pause(&mut random).await;
        if random.random_bool(0.4) {
            drop(tx);
        } else {
            tx.commit().await.unwrap();
            committed.push((run, made.unwrap()));
        }
    }
    running.fetch_sub(1, Ordering::SeqCst);
    committed
}

/// Lets others go first, a random number of times or for a random time.
async fn pause(random: &mut StdRng) {
    if random.random_bool(0.3) {
        return moment(Duration::from_micros(random.random_range(0..5_000))).await;
    }
    for _ in 0..random.random_range(0..20) {
        yield_now().await;
    }
}
