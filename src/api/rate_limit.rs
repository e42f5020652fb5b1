//! How many requests a minute who may send, over the crate `governor`: what is left comes back
//! steadily, and up to a minute's worth may be spent at once.
//!
//! A process counts for itself: behind a load balancer over `n` processes a client has up to `n` times
//! as much.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};
use tokio::sync::Semaphore;

use crate::{app::App, db::api_key::ApiKeyId};

/// Who has been counted is told apart by so many numbers at most, which is the bound on memory: some
/// 20 MB. Two addresses share a number by an accident that nobody can bring about.
const SLOTS: u64 = 1 << 18;
/// After so many requests whoever has spent nothing for a minute is forgotten.
const FORGET_EVERY: u32 = 4096;
/// Seconds in which what was spent comes back.
const WINDOW_SECONDS: u64 = 60;
/// A key that was valid is believed to be none that somebody guesses, for so long.
const BELIEVED: Duration = Duration::from_secs(3600);
/// Keys of which that is remembered; and addresses that have nothing left, before those that have some again
/// are forgotten.
const MOST_REMEMBERED: usize = 10_000;

/// Who is refused waits so long for that: who asks again at once would otherwise take the processor from
/// those who are not refused.
const REFUSED_AFTER: Duration = Duration::from_millis(250);
/// So many wait at a time, which is the bound on memory; others are refused at once.
const MOST_WAITING: usize = 256;

type Counters =
    RateLimiter<u64, HashMapStateStore<u64>, MonotonicClock, StateInformationMiddleware>;

/// A limit, and who has how much of it left.
pub(super) struct Limit {
    /// Its name in the answers' fields.
    policy: &'static str,
    per_minute: NonZeroU32,
    clock: MonotonicClock,
    counters: Counters,
    /// Nobody outside knows it, so nobody can look for who shares a number with whom.
    hasher: RandomState,
    requests: AtomicU32,
}

/// How a client stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    policy: &'static str,
    /// Requests a minute.
    quota: u32,
    /// Requests that are left at once.
    remaining: u32,
    /// For how long it has to wait, where this request was one too many; in seconds, at least one.
    pub(super) retry_after: Option<u64>,
}

impl Limit {
    fn new(policy: &'static str, per_minute: NonZeroU32) -> Self {
        let quota = Quota::per_minute(per_minute);
        Self {
            policy,
            per_minute,
            clock: MonotonicClock,
            counters: RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock),
            hasher: RandomState::new(),
            requests: AtomicU32::new(0),
        }
    }

    /// What `who` is told apart by.
    fn slot(&self, who: impl Hash) -> u64 {
        self.hasher.hash_one(who) % SLOTS
    }

    /// Counts a request of `who`.
    fn count(&self, who: impl Hash) -> Standing {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        if requests.is_multiple_of(FORGET_EVERY) {
            self.counters.retain_recent();
            self.counters.shrink_to_fit();
        }
        let slot = self.slot(who);
        let (remaining, retry_after) = match self.counters.check_key(&slot) {
            Ok(snapshot) => (snapshot.remaining_burst_capacity(), None),
            Err(refused) => {
                let wait = refused.wait_time_from(self.clock.now());
                (0, Some(wait.as_secs() + 1))
            }
        };
        Standing {
            policy: self.policy,
            quota: self.per_minute.get(),
            remaining,
            retry_after,
        }
    }
}

impl Standing {
    /// The value of `RateLimit-Policy`.
    ///
    /// Source: <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>, section 3.
    pub(super) fn policy(&self) -> String {
        format!("\"{}\";q={};w={WINDOW_SECONDS}", self.policy, self.quota)
    }

    /// The value of `RateLimit`: what is left, and after how many seconds all of it is back.
    ///
    /// Source: as for [`Standing::policy`], section 4.
    pub(super) fn limit(&self) -> String {
        let spent = u64::from(self.quota - self.remaining);
        let reset = (spent * WINDOW_SECONDS).div_ceil(u64::from(self.quota));
        format!("\"{}\";r={};t={reset}", self.policy, self.remaining)
    }
}

/// Wrong keys from each address.
struct Failures {
    limit: Limit,
    /// Addresses that have nothing left, and when they have some again.
    spent: Mutex<HashMap<u64, Instant>>,
}

/// Keys that were valid when they were looked up last, by their hashes.
#[derive(Default)]
struct Valid(Mutex<HashMap<String, Believed>>);

#[derive(Clone, Copy)]
struct Believed {
    until: Instant,
    /// Absent where the key's requests are not counted.
    counted: Option<ApiKeyId>,
}

impl Failures {
    fn new(limit: Limit) -> Self {
        Self {
            limit,
            spent: Mutex::default(),
        }
    }

    fn now(&self) -> Instant {
        self.limit.clock.now()
    }

    /// Counts a wrong key from an address.
    fn count(&self, who: Option<IpAddr>) -> Standing {
        let standing = self.limit.count(who);
        if standing.remaining == 0 {
            let one = WINDOW_SECONDS.div_ceil(u64::from(standing.quota));
            let wait = Duration::from_secs(standing.retry_after.unwrap_or(one));
            let now = self.now();
            let mut spent = lock(&self.spent);
            if spent.len() >= MOST_REMEMBERED {
                spent.retain(|_, back| *back > now);
            }
            spent.insert(self.limit.slot(who), now + wait);
        }
        standing
    }

    /// How an address stands that has nothing left.
    fn spent(&self, who: Option<IpAddr>) -> Option<Standing> {
        let slot = self.limit.slot(who);
        let back = *lock(&self.spent).get(&slot)?;
        let wait = back.saturating_duration_since(self.now());
        if wait.is_zero() {
            return None;
        }
        Some(Standing {
            policy: self.limit.policy,
            quota: self.limit.per_minute.get(),
            remaining: 0,
            retry_after: Some(wait.as_secs() + 1),
        })
    }
}

impl Valid {
    fn get(&self, hash: &str) -> Option<Believed> {
        let believed = *lock(&self.0).get(hash)?;
        (believed.until > MonotonicClock.now()).then_some(believed)
    }

    fn note(&self, hash: String, counted: Option<ApiKeyId>) {
        let now = MonotonicClock.now();
        let mut valid = lock(&self.0);
        if valid.len() >= MOST_REMEMBERED && !valid.contains_key(&hash) {
            valid.retain(|_, believed| believed.until > now);
            if valid.len() >= MOST_REMEMBERED {
                return;
            }
        }
        let until = now + BELIEVED;
        valid.insert(hash, Believed { until, counted });
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All limits of the API; absent ones are switched off.
pub(super) struct RateLimits {
    per_key: Option<Limit>,
    per_address: Option<Limit>,
    failures: Option<Failures>,
    valid: Valid,
    waiting: Semaphore,
}

impl RateLimits {
    /// As they are configured.
    pub(super) fn new(app: &App) -> Self {
        let limits = app.rate_limits;
        let limit = |policy, per_minute: Option<NonZeroU32>| {
            per_minute.map(|per_minute| Limit::new(policy, per_minute))
        };
        Self {
            per_key: limit("key", limits.per_key),
            per_address: limit("address", limits.per_address),
            failures: limit("failures", limits.failures_per_address).map(Failures::new),
            valid: Valid::default(),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }

    /// Lets a request wait that is refused.
    #[expect(
        clippy::disallowed_methods,
        reason = "a client on the network waits by the machine's clock"
    )]
    pub(super) async fn keep_waiting(&self) {
        if let Ok(_place) = self.waiting.try_acquire() {
            tokio::time::sleep(REFUSED_AFTER).await;
        }
    }

    /// Counts a request with a key that was valid when it was looked up last, so that one too many costs no
    /// look-up; nothing for one that is not known, or not counted.
    pub(super) fn with_known_key(&self, hash: &str) -> Option<Standing> {
        let limit = self.per_key.as_ref()?;
        Some(limit.count(self.valid.get(hash)?.counted?))
    }

    /// Counts a request with a valid key.
    pub(super) fn with_key(&self, key: ApiKeyId) -> Option<Standing> {
        self.per_key.as_ref().map(|limit| limit.count(key))
    }

    /// Counts a request without a key.
    pub(super) fn without_key(&self, address: Option<IpAddr>) -> Option<Standing> {
        let limit = self.per_address.as_ref();
        limit.map(|limit| limit.count(address.map(client)))
    }

    /// Counts a request with a wrong key.
    pub(super) fn with_wrong_key(&self, address: Option<IpAddr>) -> Option<Standing> {
        let failures = self.failures.as_ref();
        failures.map(|failures| failures.count(address.map(client)))
    }

    /// How an address stands that has tried so many wrong keys that this one is not even looked up for
    /// it; nothing where it is.
    pub(super) fn guessed_too_often(
        &self,
        hash: &str,
        address: Option<IpAddr>,
    ) -> Option<Standing> {
        let failures = self.failures.as_ref()?;
        let standing = failures.spent(address.map(client))?;
        self.valid.get(hash).is_none().then_some(standing)
    }

    /// Whether a key was valid within the hour.
    pub(super) fn is_known_valid(&self, hash: &str) -> bool {
        self.valid.get(hash).is_some()
    }

    /// Notes that a key is valid, and whether its requests are counted.
    pub(super) fn note_valid(&self, hash: String, counted: Option<ApiKeyId>) {
        self.valid.note(hash, counted);
    }

    /// Notes that a key is valid no more.
    pub(super) fn forget(&self, hash: &str) {
        lock(&self.valid.0).remove(hash);
    }
}

/// What stands for the client at an address: with IPv6 a household has a /64 at least.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        canonical => canonical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_minute: u32) -> Limit {
        Limit::new("key", NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn a_minutes_worth_may_be_spent_at_once_and_no_more() {
        let limit = limit(3);
        let standings: Vec<Standing> = (0..4).map(|_| limit.count("a")).collect();
        let fields: Vec<String> = standings.iter().map(Standing::limit).collect();
        assert_eq!(
            fields,
            [
                "\"key\";r=2;t=20",
                "\"key\";r=1;t=40",
                "\"key\";r=0;t=60",
                "\"key\";r=0;t=60"
            ]
        );
        assert_eq!(standings[0].policy(), "\"key\";q=3;w=60");
        let waits: Vec<bool> = standings.iter().map(|s| s.retry_after.is_some()).collect();
        assert_eq!(waits, [false, false, false, true]);
        let wait = standings[3].retry_after.unwrap();
        assert!((1..=21).contains(&wait), "{wait}");
        // Another has lost nothing by it.
        assert_eq!(limit.count("b").limit(), "\"key\";r=2;t=20");
    }

    #[test]
    fn memory_is_bounded_however_many_come() {
        let counted = limit(60);
        for who in 0..2 * SLOTS {
            counted.count(who);
        }
        assert!(counted.counters.len() as u64 <= SLOTS);
        let valid = Valid::default();
        for key in 0..2 * MOST_REMEMBERED {
            valid.note(key.to_string(), None);
        }
        assert_eq!(lock(&valid.0).len(), MOST_REMEMBERED);
    }

    #[test]
    fn who_has_guessed_too_often_is_told_so_before_a_key_is_looked_up() {
        let failures = Failures::new(limit(2));
        let (guesser, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        assert_eq!(failures.spent(guesser), None);
        failures.count(guesser);
        assert_eq!(failures.spent(guesser), None);
        failures.count(guesser);
        let standing = failures.spent(guesser).unwrap();
        assert_eq!(standing.limit(), "\"key\";r=0;t=60");
        let wait = standing.retry_after.unwrap();
        assert!((1..=31).contains(&wait), "{wait}");
        assert_eq!(failures.spent(other), None);
        // What it has spent is back.
        for back in lock(&failures.spent).values_mut() {
            *back = failures.now();
        }
        assert_eq!(failures.spent(guesser), None);

        let valid = Valid::default();
        valid.note("a".to_owned(), None);
        assert!(valid.get("a").is_some() && valid.get("b").is_none());
        for believed in lock(&valid.0).values_mut() {
            believed.until = failures.now();
        }
        assert!(valid.get("a").is_none());
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
        let client = |text: &str| client(text.parse().unwrap()).to_string();
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(client("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_eq!(client("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(client("192.0.2.7"), "192.0.2.7");
    }
}
