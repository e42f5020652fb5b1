//! The governor under a clock that jumps.

use std::collections::VecDeque;

use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{super::testing::TestClock, *};

fn governor(limit: Option<u32>, clock: &Arc<TestClock>) -> Governor {
    Governor::new(limit, Spending::default(), clock.clone())
}

/// The most units in any 60 seconds.
fn peak(calls: &[(i64, u32)]) -> u32 {
    let mut peak = 0;
    for &(end, _) in calls {
        let within = calls
            .iter()
            .filter(|(at, _)| *at <= end && *at > end - 60_000_000);
        peak = peak.max(within.map(|(_, units)| units).sum());
    }
    peak
}

#[tokio::test]
async fn no_sixty_seconds_ever_see_more_than_the_limit() {
    for seed in 0..40_u64 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let limit = rng.random_range(50..2000);
        let clock = TestClock::new();
        let governor = governor(Some(limit), &clock);
        let calls = Mutex::new(Vec::new());
        let at_once = seed % 2 == 0;
        let workers = (0..12).map(|_| {
            let mut rng = StdRng::seed_from_u64(rng.random());
            let (governor, clock, calls) = (&governor, &clock, &calls);
            async move {
                for _ in 0..30 {
                    if !at_once {
                        let pause = rng.random_range(0..3_000_000);
                        clock.sleep(Duration::from_micros(pause)).await;
                    }
                    let units = rng.random_range(1..=20);
                    let ticket = governor.acquire(units).await;
                    // The service counts the call at some moment while it is under way.
                    for _ in 0..rng.random_range(0..4) {
                        tokio::task::yield_now().await;
                    }
                    let at = clock.now().timestamp_micros();
                    calls.lock().unwrap().push((at, units));
                    for _ in 0..rng.random_range(0..4) {
                        tokio::task::yield_now().await;
                    }
                    governor.accepted(ticket);
                }
            }
        });
        let before = clock.now();
        join_all(workers).await;
        let calls = calls.into_inner().unwrap();
        assert!(
            peak(&calls) <= limit,
            "seed {seed}: {} of {limit}",
            peak(&calls)
        );
        let total: u32 = calls.iter().map(|(_, units)| units).sum();
        assert_eq!(governor.units(), u64::from(total));
        if at_once && limit >= 600 && total > limit {
            // It waits no longer than it has to: the limit goes through in each window, less what
            // is too small for the next call and what is still under way at its end.
            let windows = i64::from(total / (limit * 3 / 5)) + 1;
            let waited = (clock.now() - before).num_seconds();
            assert!(waited >= 60, "seed {seed}: {waited} s");
            assert!(waited <= windows * WINDOW, "seed {seed}: {waited} s");
        }
    }
}

#[tokio::test]
async fn calls_pass_in_the_order_in_which_they_ask() {
    let clock = TestClock::new();
    let governor = governor(Some(20), &clock);
    let passed = Mutex::new(Vec::new());
    let calls = (0..30).map(|number| {
        let (governor, passed) = (&governor, &passed);
        async move {
            governor.acquire(1 + number % 7).await;
            passed.lock().unwrap().push(number);
        }
    });
    join_all(calls).await;
    let expected: Vec<u32> = (0..30).collect();
    assert_eq!(*passed.lock().unwrap(), expected);
}

/// A service with a limit of its own over sliding 60 seconds; refused calls count for nothing.
struct Service {
    limit: u32,
    granted: VecDeque<(i64, u32)>,
    refused: Vec<i64>,
}

impl Service {
    fn grants(&mut self, at: i64, units: u32) -> bool {
        while self
            .granted
            .front()
            .is_some_and(|(then, _)| *then <= at - 60_000_000)
        {
            self.granted.pop_front();
        }
        let spent: u32 = self.granted.iter().map(|(_, units)| units).sum();
        if spent + units > self.limit {
            self.refused.push(at);
            return false;
        }
        self.granted.push_back((at, units));
        true
    }
}

#[tokio::test]
async fn after_the_first_burst_of_refusals_a_lower_limit_is_kept() {
    for seed in 0..40_u64 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = TestClock::new();
        let governor = governor(Some(6000), &clock);
        let limit = rng.random_range(3000..=5400);
        let service = Mutex::new(Service {
            limit,
            granted: VecDeque::new(),
            refused: Vec::new(),
        });
        let workers = (0..10).map(|_| {
            let mut rng = StdRng::seed_from_u64(rng.random());
            let (governor, clock, service) = (&governor, &clock, &service);
            async move {
                let mut done = 0;
                while done < 70 {
                    let ticket = governor.acquire(20).await;
                    for _ in 0..rng.random_range(0..5) {
                        tokio::task::yield_now().await;
                    }
                    let at = clock.now().timestamp_micros();
                    let granted = service.lock().unwrap().grants(at, 20);
                    // Answers come in any order.
                    for _ in 0..rng.random_range(0..5) {
                        tokio::task::yield_now().await;
                    }
                    if granted {
                        governor.accepted(ticket);
                        done += 1;
                    } else {
                        governor.refused(ticket, None);
                    }
                }
            }
        });
        join_all(workers).await;
        let refused = service.into_inner().unwrap().refused;
        assert!(
            (1..=10).contains(&refused.len()),
            "seed {seed}: {}",
            refused.len()
        );
        let span = refused.last().unwrap() - refused[0];
        assert!(span < 2_000_000, "seed {seed}: refusals over {span} us");
        let rate = governor.rate().unwrap();
        assert!(
            rate >= 3000 && rate <= limit,
            "seed {seed}: {rate} of {limit}"
        );
    }
}

#[tokio::test]
async fn a_burst_of_refusals_lowers_the_rate_once() {
    let clock = TestClock::new();
    let governor = governor(Some(1000), &clock);
    let tickets = join_all((0..10).map(|_| governor.acquire(1))).await;
    for ticket in tickets {
        governor.refused(ticket, None);
    }
    assert_eq!(governor.rate(), Some(500));
    let before = clock.now();
    let ticket = governor.acquire(1).await;
    let waited = (clock.now() - before).num_milliseconds();
    assert!((1000..=1250).contains(&waited), "{waited}");
    governor.refused(ticket, None);
    assert_eq!(governor.rate(), Some(250));
    for _ in 0..20 {
        let ticket = governor.acquire(1).await;
        governor.refused(ticket, None);
    }
    assert_eq!(governor.rate(), Some(50), "a twentieth is left");
}

#[tokio::test]
async fn pauses_double_up_to_a_cap_and_start_over_after_a_success() {
    let clock = TestClock::new();
    let governor = governor(None, &clock);
    let mut ticket = governor.acquire(1).await;
    for expected in [1, 2, 4, 8, 16, 32, 32] {
        governor.refused(ticket, None);
        let before = clock.now();
        ticket = governor.acquire(1).await;
        let waited = (clock.now() - before).num_milliseconds();
        let range = expected * 1000..=expected * 1250;
        assert!(range.contains(&waited), "{expected} s: {waited} ms");
    }
    governor.accepted(ticket);
    governor.refused(governor.acquire(1).await, None);
    let before = clock.now();
    governor.acquire(1).await;
    assert!((clock.now() - before).num_seconds() <= 1);
}

#[tokio::test]
async fn a_named_time_is_kept_by_all_calls() {
    let clock = TestClock::new();
    let governor = governor(Some(1000), &clock);
    let tickets = join_all((0..3).map(|_| governor.acquire(1))).await;
    for (ticket, seconds) in tickets.into_iter().zip([5, 90, 30]) {
        governor.refused(ticket, Some(Duration::from_secs(seconds)));
    }
    let before = clock.now();
    governor.acquire(1).await;
    assert_eq!((clock.now() - before).num_seconds(), 90);
}

#[tokio::test]
async fn the_rate_rises_by_tenths_and_never_above_the_configured_one() {
    let clock = TestClock::new();
    let governor = governor(Some(1000), &clock);
    governor.refused(governor.acquire(1).await, None);
    assert_eq!(governor.rate(), Some(500));
    for (seconds, expected) in [(590, 500), (10, 600), (1200, 800), (86_400, 1000)] {
        clock.advance(seconds);
        governor.acquire(1).await;
        assert_eq!(governor.rate(), Some(expected), "{seconds}");
    }
}

#[tokio::test]
async fn without_a_budget_calls_are_only_counted() {
    let clock = TestClock::new();
    let governor = governor(None, &clock);
    let before = clock.now();
    for _ in 0..10_000 {
        governor.accepted(governor.acquire(20).await);
    }
    assert_eq!(clock.now(), before);
    assert_eq!(governor.units(), 200_000);
    assert_eq!(governor.rate(), None);
}

#[tokio::test]
async fn the_last_minute_and_the_lowered_rate_survive_a_restart() {
    let clock = TestClock::new();
    let first = governor(Some(100), &clock);
    first.refused(first.acquire(60).await, Some(Duration::from_secs(1)));
    let saved = serde_json::to_value(first.spending(30)).unwrap();
    assert_eq!(first.spending(0).seconds.values().sum::<u32>(), 60);

    let spent: Spending = serde_json::from_value(saved).unwrap();
    let successor = Governor::new(Some(100), spent.clone(), clock.clone());
    assert_eq!((successor.rate(), successor.units()), (Some(50), 0));
    let before = clock.now();
    successor.acquire(10).await;
    assert_eq!((clock.now() - before).num_seconds(), WINDOW);

    let smaller = Governor::new(Some(40), spent, clock.clone());
    assert_eq!(smaller.rate(), Some(40));
}

#[tokio::test]
async fn a_clock_that_was_set_back_blocks_for_a_minute_at_most() {
    let clock = TestClock::new();
    let first = governor(Some(100), &clock);
    clock.advance(86_400);
    first.acquire(100).await;
    let spent = first.spending(50);
    clock.advance(-86_400);
    for governor in [&first, &Governor::new(Some(100), spent, clock.clone())] {
        let before = clock.now();
        governor.acquire(100).await;
        assert!((clock.now() - before).num_seconds() <= WINDOW);
    }
    let paused = governor(None, &clock);
    paused.refused(paused.acquire(1).await, Some(Duration::from_secs(600)));
    clock.advance(-86_400);
    let before = clock.now();
    paused.acquire(1).await;
    assert_eq!(clock.now(), before);
}

#[tokio::test]
async fn a_call_dearer_than_the_rate_passes_alone() {
    let clock = TestClock::new();
    let governor = governor(Some(20), &clock);
    governor.refused(governor.acquire(20).await, Some(Duration::from_secs(1)));
    assert_eq!(governor.rate(), Some(10));
    let before = clock.now();
    governor.acquire(20).await;
    assert_eq!((clock.now() - before).num_seconds(), WINDOW);
}

#[tokio::test]
async fn a_call_that_is_given_up_spends_nothing_and_lets_others_pass() {
    let clock = TestClock::new();
    let governor = governor(Some(10), &clock);
    governor.acquire(10).await;
    let mut waiting = Box::pin(governor.acquire(10));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    assert_eq!(governor.units(), 10);
    governor.acquire(1).await;
    assert_eq!(governor.units(), 11);
}

#[tokio::test]
async fn a_call_under_way_counts_until_a_minute_after_its_end() {
    let clock = TestClock::new();
    let governor = governor(Some(10), &clock);
    let slow = governor.acquire(6).await;
    clock.advance(300);
    assert_eq!(governor.spending(0).reserved, 6);
    let mut waiting = Box::pin(governor.acquire(6));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let end = clock.now();
    drop(slow);
    let _next = waiting.await;
    assert_eq!((clock.now() - end).num_seconds(), WINDOW);
}
