//! Lists that concern one repository or one issue each, read one after the other. One that cannot be had
//! does not keep the others, and is asked for again: what it holds may be shown in no other way.

use std::collections::VecDeque;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::{ConnectorError, OUTAGE},
    api::Part,
};
use crate::domain::sync::SkipReason;

/// A list that fails for so long is given up, and so many in a row are an outage for no longer.
const PATIENCE: TimeDelta = TimeDelta::days(1);
/// What was given up, is too large or is not accessible is asked for again after so long.
const AGAIN: TimeDelta = TimeDelta::days(1);
/// What could not be had for so long is asked for no more, until there is another reason to.
const FORGOTTEN: TimeDelta = TimeDelta::days(30);

/// What is to be read, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Jobs<T> {
    now: VecDeque<Job<T>>,
    /// Those that could not be had.
    later: VecDeque<Job<T>>,
    /// The lists of this pass that began to fail since the last one that was answered.
    failures: Option<Failures>,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job<T> {
    /// Which.
    pub(super) of: T,
    /// Where it goes on; at the beginning if absent.
    pub(super) link: Option<String>,
    /// Since when it cannot be had.
    since: Option<DateTime<Utc>>,
    /// It is asked for again then, or in the next pass.
    again_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Failures {
    count: usize,
    since: DateTime<Utc>,
}

/// What came of asking for a list.
pub(super) enum Outcome<T> {
    /// A page of it, and the whole of it has been read if it is named.
    Had(Vec<Bytes>, Option<T>),
    /// Nothing, for now.
    Skipped(SkipReason),
    /// What it belongs to was deleted.
    Gone,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self {
            now: VecDeque::new(),
            later: VecDeque::new(),
            failures: None,
        }
    }
}

impl<T> Job<T> {
    fn new(of: T) -> Self {
        Self {
            of,
            link: None,
            since: None,
            again_at: None,
        }
    }
}

impl<T> Jobs<T> {
    /// Whether the pass has nothing left to read.
    pub(super) fn is_done(&self) -> bool {
        self.now.is_empty()
    }

    /// Whether there is such a job.
    pub(super) fn any(&self, is_such: impl Fn(&T) -> bool) -> bool {
        self.now
            .iter()
            .chain(&self.later)
            .any(|job| is_such(&job.of))
    }

    /// Adds what is read last.
    pub(super) fn add(&mut self, of: T) {
        self.now.push_back(Job::new(of));
    }

    /// Adds what is read last, in the place of such a job: it begins anew, but what could not be had
    /// stays as old as it is.
    pub(super) fn renew(&mut self, of: T, is_such: impl Fn(&T) -> bool) {
        let mut job = Job::new(of);
        for jobs in [&mut self.now, &mut self.later] {
            jobs.retain(|other| {
                let is_such = is_such(&other.of);
                if is_such {
                    job.since = job.since.or(other.since);
                }
                !is_such
            });
        }
        self.now.push_back(job);
    }

    /// Keeps only such jobs.
    pub(super) fn retain(&mut self, is_such: impl Fn(&T) -> bool) {
        for jobs in [&mut self.now, &mut self.later] {
            jobs.retain(|job| is_such(&job.of));
        }
    }

    /// Adds what is read next.
    pub(super) fn add_first(&mut self, of: T) {
        self.now.push_front(Job::new(of));
    }

    /// A pass begins: what could not be had is asked for again where its time has come.
    pub(super) fn resume(&mut self, now: DateTime<Utc>) {
        self.failures = None;
        for job in std::mem::take(&mut self.later) {
            match job.again_at.is_none_or(|time| time <= now) {
                true => self.now.push_back(job),
                false => self.later.push_back(job),
            }
        }
    }

    /// What is to be asked for next.
    pub(super) fn next(&mut self) -> Option<Job<T>> {
        self.now.pop_front()
    }

    /// Takes what came of a job. Where many fail in a row it is the service that fails, although it
    /// answers another call.
    pub(super) fn settle(
        &mut self,
        mut job: Job<T>,
        method: &'static str,
        part: Part,
        now: DateTime<Utc>,
    ) -> Result<Outcome<T>, ConnectorError> {
        let (reason, detail) = match part {
            Part::Had(items) => {
                self.failures = None;
                if items.next.is_none() {
                    return Ok(Outcome::Had(items.items, Some(job.of)));
                }
                job.link = items.next;
                self.now.push_front(job);
                return Ok(Outcome::Had(items.items, None));
            }
            Part::Gone => {
                self.failures = None;
                return Ok(Outcome::Gone);
            }
            Part::TooLarge => (SkipReason::TooLarge, "larger than what is taken".to_owned()),
            Part::NotAccessible(detail) => (SkipReason::NotAccessible, detail),
            Part::Failed(detail) => (self.failed(&job, &detail, now)?, detail),
        };
        if reason == SkipReason::NotAccessible || reason == SkipReason::TooLarge {
            self.failures = None;
        }
        tracing::warn!(
            list = method,
            reason = reason.as_str(),
            error = detail,
            "a list is skipped"
        );
        let since = *job.since.get_or_insert(now);
        job.link = None;
        job.again_at = (reason != SkipReason::Postponed).then(|| now + AGAIN);
        if now - since < FORGOTTEN {
            self.later.push_back(job);
        }
        Ok(Outcome::Skipped(reason))
    }

    fn failed(
        &mut self,
        job: &Job<T>,
        detail: &str,
        now: DateTime<Utc>,
    ) -> Result<SkipReason, ConnectorError> {
        if let Some(since) = job.since {
            // That it fails is no news.
            return Ok(match now - since >= PATIENCE {
                true => SkipReason::GaveUp,
                false => SkipReason::Postponed,
            });
        }
        let failures = self.failures.get_or_insert(Failures {
            count: 0,
            since: now,
        });
        failures.count += 1;
        if failures.count >= OUTAGE && now - failures.since < PATIENCE {
            return Err(ConnectorError::Unavailable(detail.to_owned()));
        }
        Ok(SkipReason::Postponed)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::api::Items, *};

    const START: i64 = 1_795_000_000;

    fn after(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(START + hours * 3600, 0).unwrap()
    }

    fn jobs(count: u32) -> Jobs<u32> {
        let mut jobs = Jobs::default();
        (0..count).for_each(|number| jobs.add(number));
        jobs
    }

    /// A pass, and what was skipped in it.
    fn pass(
        jobs: &mut Jobs<u32>,
        hours: i64,
        part: impl Fn(u32) -> Part,
    ) -> Result<Vec<(u32, SkipReason)>, ConnectorError> {
        jobs.resume(after(hours));
        go_on(jobs, hours, part)
    }

    /// The rest of a pass.
    fn go_on(
        jobs: &mut Jobs<u32>,
        hours: i64,
        part: impl Fn(u32) -> Part,
    ) -> Result<Vec<(u32, SkipReason)>, ConnectorError> {
        let mut skipped = Vec::new();
        while let Some(job) = jobs.next() {
            let of = job.of;
            let outcome = jobs.settle(job, "lists.list", part(of), after(hours))?;
            if let Outcome::Skipped(reason) = outcome {
                skipped.push((of, reason));
            }
        }
        Ok(skipped)
    }

    fn had() -> Part {
        Part::Had(Items::none())
    }

    fn failed() -> Part {
        Part::Failed("502".to_owned())
    }

    #[test]
    fn a_list_that_fails_is_given_up_by_its_age_and_asked_for_again_each_day() {
        let mut jobs = jobs(2);
        let part = |of| if of == 0 { failed() } else { had() };
        for hours in [0, 1, 2, 3, 4, 5, 6, 7, 8, 23] {
            let skipped = pass(&mut jobs, hours, part).unwrap();
            assert_eq!(skipped, [(0, SkipReason::Postponed)], "after {hours} hours");
        }
        for (hours, skips) in [(24, 1), (25, 0), (47, 0), (48, 1), (49, 0)] {
            let skipped = pass(&mut jobs, hours, part).unwrap();
            assert_eq!(
                skipped,
                vec![(0, SkipReason::GaveUp); skips],
                "after {hours}"
            );
        }
        assert_eq!(pass(&mut jobs, 80, |_| had()).unwrap(), []);
        assert!(!jobs.any(|_| true));
    }

    #[test]
    fn what_is_not_accessible_is_asked_for_a_month() {
        let mut jobs = jobs(1);
        let part = |_| Part::NotAccessible("404".to_owned());
        let asked = (0..60).filter(|day| {
            let skipped = pass(&mut jobs, day * 24, part).unwrap();
            skipped == [(0, SkipReason::NotAccessible)]
        });
        assert_eq!(asked.count(), 31);
        assert!(!jobs.any(|_| true));
    }

    #[test]
    fn many_that_begin_to_fail_in_a_row_are_an_outage_for_a_day() {
        let mut jobs = jobs(9);
        let mut saved = jobs.clone();
        let part = |of| {
            if (2..8).contains(&of) {
                failed()
            } else {
                had()
            }
        };
        let mut fail = |hours| {
            while let Some(job) = jobs.next() {
                let part = part(job.of);
                let settled = jobs.settle(job, "lists.list", part, after(hours));
                if settled.is_err() {
                    // What was saved before stands.
                    jobs = saved.clone();
                    return (jobs.now.len(), jobs.later.len());
                }
                saved = jobs.clone();
            }
            (0, jobs.later.len())
        };
        for hours in [0, 1, 5, 23] {
            assert_eq!(fail(hours), (3, 4), "after {hours} hours");
        }
        assert_eq!(fail(24), (0, 6));
        // From then on each is known to fail, and holds nothing up.
        let skipped = pass(&mut saved, 25, part).unwrap();
        let given_up = |(_, reason): &&(u32, SkipReason)| *reason == SkipReason::GaveUp;
        assert_eq!(skipped.len(), 6, "{skipped:?}");
        assert_eq!(skipped.iter().filter(given_up).count(), 4, "{skipped:?}");
    }

    #[test]
    fn an_outage_that_ends_leaves_nothing() {
        let mut jobs = jobs(9);
        let mut saved = jobs.clone();
        while let Some(job) = jobs.next()
            && jobs.settle(job, "lists.list", failed(), after(0)).is_ok()
        {
            saved = jobs.clone();
        }
        assert_eq!((saved.now.len(), saved.later.len()), (5, 4));
        assert_eq!(go_on(&mut saved, 1, |_| had()).unwrap(), []);
        assert_eq!(pass(&mut saved, 2, |_| had()).unwrap(), []);
        assert!(!saved.any(|_| true));
    }
}
