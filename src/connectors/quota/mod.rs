//! The governor: the quota of the account behind one integration, kept so that the service never has to
//! refuse. Two entities that connect one account each keep all of it, and may be refused.
//!
//! It counts units before a call is made, waits instead of being refused, lowers its rate when it is
//! refused all the same, and remembers the last minute across a restart. It knows no service and
//! makes no calls.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::domain::Clock;

/// How long, in seconds, a unit counts as spent after its call. Services count over 60 seconds; units
/// are kept by whole seconds, so that one more is needed for a call at the end of its second.
const WINDOW: i64 = 61;
/// The first pause after a refusal that names no time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest such pause, before jitter.
const LONGEST_BACKOFF: Duration = Duration::from_secs(32);
/// No refusal holds calls back for longer; who was told to stay away longer ends its run instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The rate rises by a tenth of the configured one for each such time without a refusal.
const RISE_INTERVAL: TimeDelta = TimeDelta::minutes(10);
/// The rate never falls below the configured one divided by this.
const LOWEST_SHARE: u32 = 20;

/// Keeps the quota of one account. Cheap to ask; shared by all calls for that account.
pub struct Governor {
    configured: Option<u32>,
    clock: Arc<dyn Clock>,
    /// Held by the call whose turn it is, also while it waits, so that calls pass in order.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the call whose turn it is when another call ends.
    settled: Notify,
    state: Mutex<State>,
}

/// A call that was let through. The service may count it at any moment until it answers, so its
/// units count until a minute after the ticket is handed back or dropped.
pub struct Ticket<'a> {
    governor: &'a Governor,
    units: u32,
    generation: u64,
    granted_before: u32,
}

impl Drop for Ticket<'_> {
    /// Takes the lock of the state: no ticket is dropped while it is held.
    fn drop(&mut self) {
        let now = self.governor.clock.now();
        let mut state = self.governor.state();
        state.in_flight = state.in_flight.saturating_sub(self.units);
        state.book(self.units, now);
        self.governor.settled.notify_one();
    }
}

/// What was spent in the last minute, and the rate if it is lowered: what a successor has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Units by second since the epoch.
    #[serde(default)]
    pub seconds: BTreeMap<i64, u32>,
    /// Units that may have been spent since, up to the moment at which a successor begins: when the
    /// process that saved this was killed, nobody knows.
    #[serde(default)]
    pub reserved: u32,
    /// Units a minute, where refusals lowered it.
    #[serde(default)]
    pub rate: Option<u32>,
}

/// What a call waits for.
enum Wait {
    /// Time to pass.
    Pass(Duration),
    /// Another call to end.
    Settle,
}

struct State {
    /// Units of calls that ended, by second.
    seconds: BTreeMap<i64, u32>,
    /// Units of calls under way.
    in_flight: u32,
    /// Units a minute that may be spent now; none where no budget is kept.
    rate: Option<u32>,
    /// When the rate last changed or a call was last refused.
    rate_since: DateTime<Utc>,
    /// How often the rate was lowered: tells the calls of one burst from those after it.
    generation: u64,
    backoff: Duration,
    paused_until: Option<DateTime<Utc>>,
    total: u64,
}

impl Governor {
    /// A governor of `limit_per_minute` units, or one that only counts, after `spent`.
    pub fn new(limit_per_minute: Option<u32>, spent: Spending, clock: Arc<dyn Clock>) -> Self {
        let rate = limit_per_minute.map(|limit| {
            let restored = spent.rate.unwrap_or(limit);
            restored.clamp(lowest(limit), limit)
        });
        let now = clock.now();
        let mut state = State {
            seconds: spent.seconds,
            in_flight: 0,
            rate,
            rate_since: now,
            generation: 0,
            backoff: FIRST_BACKOFF,
            paused_until: None,
            total: 0,
        };
        if spent.reserved > 0 {
            state.book(spent.reserved, now);
        }
        Self {
            configured: limit_per_minute,
            clock,
            turn: tokio::sync::Mutex::new(()),
            settled: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// Waits until `units` may be spent and counts them as spent. Calls pass in the order in which
    /// they ask; dropping the future spends nothing.
    pub async fn acquire(&self, units: u32) -> Ticket<'_> {
        let _turn = self.turn.lock().await;
        loop {
            let wait = match self.try_acquire(units) {
                Ok(ticket) => return ticket,
                Err(wait) => wait,
            };
            match wait {
                Wait::Pass(time) => self.clock.sleep(time).await,
                Wait::Settle => self.settled.notified().await,
            }
        }
    }

    fn try_acquire(&self, units: u32) -> Result<Ticket<'_>, Wait> {
        let now = self.clock.now();
        let mut state = self.state();
        let granted_before = state.take(units, now, self.configured)?;
        Ok(Ticket {
            governor: self,
            units,
            generation: state.generation,
            granted_before,
        })
    }

    /// The service carried the call out.
    pub fn accepted(&self, ticket: Ticket<'_>) {
        let mut state = self.state();
        if ticket.generation == state.generation {
            state.backoff = FIRST_BACKOFF;
        }
    }

    /// The service answered without charging the call.
    pub fn not_charged(&self, mut ticket: Ticket<'_>) {
        let units = std::mem::take(&mut ticket.units);
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(units);
        state.total -= u64::from(units);
        if ticket.generation == state.generation {
            state.backoff = FIRST_BACKOFF;
        }
    }

    /// The service refused the call because too much was asked for. Nothing passes until
    /// `retry_after` (at most ten minutes), or for a growing pause where the service named no time.
    pub fn refused(&self, ticket: Ticket<'_>, retry_after: Option<Duration>) {
        let now = self.clock.now();
        let retry_after = retry_after.filter(|wait| !wait.is_zero());
        let mut state = self.state();
        if let Some(wait) = retry_after {
            state.pause(now, wait);
        }
        // The rest of a burst that was refused together says nothing new.
        if ticket.generation < state.generation {
            return;
        }
        state.generation += 1;
        state.rate_since = now;
        if retry_after.is_none() {
            let wait = state.next_backoff();
            state.pause(now, wait);
        }
        if let (Some(configured), Some(rate)) = (self.configured, state.rate) {
            let granted = ticket.granted_before.min(rate - rate / 10);
            state.rate = Some(granted.max(rate / 2).max(lowest(configured)).min(rate));
        }
    }

    /// What was spent in the last minute, with `reserve` units on top: saved before they are spent, so
    /// that after a crash the successor waits rather than being refused.
    pub fn spending(&self, reserve: u32) -> Spending {
        let now = self.clock.now();
        let mut state = self.state();
        state.forget(now);
        Spending {
            seconds: state.seconds.clone(),
            reserved: reserve.saturating_add(state.in_flight),
            rate: state.rate.filter(|_| state.rate != self.configured),
        }
    }

    /// Units spent since this governor was made.
    pub fn units(&self) -> u64 {
        self.state().total
    }

    /// Units a minute that may be spent now; none where no budget is kept.
    pub fn rate(&self) -> Option<u32> {
        self.state().rate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts `units` as spent and gives what was granted in the minute before, or what to wait for.
    fn take(
        &mut self,
        units: u32,
        now: DateTime<Utc>,
        configured: Option<u32>,
    ) -> Result<u32, Wait> {
        self.forget(now);
        self.rise(now, configured);
        if let Some(until) = self.paused_until {
            // A clock that was set back must not prolong the pause.
            let left = (until - now).to_std().unwrap_or_default();
            if !left.is_zero() && left <= LONGEST_PAUSE {
                return Err(Wait::Pass(left));
            }
            self.paused_until = None;
        }
        if let Some(rate) = self.rate {
            self.wait_for_room(units, rate, now)?;
        }
        let granted_before = self.certainly_granted(now);
        self.in_flight = self.in_flight.saturating_add(units);
        self.total += u64::from(units);
        Ok(granted_before)
    }

    fn wait_for_room(&self, units: u32, rate: u32, now: DateTime<Utc>) -> Result<(), Wait> {
        // A call dearer than the whole rate passes once nothing else is counted.
        let room = u64::from(rate.max(units));
        let ended: u64 = self.seconds.values().map(|&units| u64::from(units)).sum();
        let spent = ended + u64::from(self.in_flight);
        let mut excess = (spent + u64::from(units)).saturating_sub(room);
        if excess == 0 {
            return Ok(());
        }
        for (&second, &units) in &self.seconds {
            excess = excess.saturating_sub(u64::from(units));
            if excess == 0 {
                let free_at = DateTime::from_timestamp(second + WINDOW, 0).unwrap_or(now);
                let wait = (free_at - now).to_std().unwrap_or_default();
                return Err(Wait::Pass(wait.max(Duration::from_millis(1))));
            }
        }
        Err(Wait::Settle)
    }

    /// Counts units of a call that ended.
    fn book(&mut self, units: u32, now: DateTime<Utc>) {
        let second = self.seconds.entry(now.timestamp()).or_default();
        *second = second.saturating_add(units);
    }

    /// What the service granted in the last 60 seconds at least: without calls under way, and without
    /// the second that may lie partly before.
    fn certainly_granted(&self, now: DateTime<Utc>) -> u32 {
        let from = now.timestamp() - WINDOW + 2;
        self.seconds
            .range(from..)
            .fold(0, |sum: u32, (_, &units)| sum.saturating_add(units))
    }

    /// Drops what was spent more than a minute ago. What lies in the future, because the clock was
    /// set back, counts as spent now: it holds nothing up for longer than a minute.
    fn forget(&mut self, now: DateTime<Utc>) {
        let second = now.timestamp();
        self.seconds = self.seconds.split_off(&(second - WINDOW + 1));
        let future = self.seconds.split_off(&(second + 1));
        for units in future.into_values() {
            let current = self.seconds.entry(second).or_default();
            *current = current.saturating_add(units);
        }
    }

    fn rise(&mut self, now: DateTime<Utc>, configured: Option<u32>) {
        let (Some(configured), Some(rate)) = (configured, self.rate) else {
            return;
        };
        if rate >= configured || now < self.rate_since {
            self.rate_since = now;
            return;
        }
        if now - self.rate_since < RISE_INTERVAL {
            return;
        }
        let steps = (now - self.rate_since).num_minutes() / RISE_INTERVAL.num_minutes();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let risen = rate.saturating_add((configured / 10).max(1).saturating_mul(steps));
        self.rate = Some(risen.min(configured));
        self.rate_since = now;
    }

    fn next_backoff(&mut self) -> Duration {
        let backoff = self.backoff;
        self.backoff = (backoff * 2).min(LONGEST_BACKOFF);
        backoff.mul_f64(rand::random_range(1.0..1.25))
    }

    fn pause(&mut self, now: DateTime<Utc>, wait: Duration) {
        let wait = TimeDelta::from_std(wait.min(LONGEST_PAUSE)).unwrap_or(TimeDelta::zero());
        let until = now + wait;
        self.paused_until = Some(self.paused_until.map_or(until, |paused| paused.max(until)));
    }
}

fn lowest(configured: u32) -> u32 {
    (configured / LOWEST_SHARE).max(1)
}
