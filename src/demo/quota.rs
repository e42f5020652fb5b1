//! The units that one user of one project may spend in a minute
//! (<https://developers.google.com/workspace/gmail/api/reference/quota>), over a sliding window. It
//! counts and refuses; the clock is the stand-in's.

use std::collections::VecDeque;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::faults::Method;
use crate::domain::QuotaTable;

/// The window, in seconds.
const WINDOW_SECONDS: i64 = 60;

/// How a spent budget is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalStyle {
    /// 403, by turns `userRateLimitExceeded` and `rateLimitExceeded`.
    Status403,
    /// 429 `rateLimitExceeded`.
    Status429,
    /// 403 and 429 by turns.
    Alternating,
}

/// What is enforced.
#[derive(Debug, Clone, Copy)]
pub struct QuotaEnforcement {
    /// What the methods cost.
    pub table: QuotaTable,
    /// Units that may be spent in a minute.
    pub user_minute: u32,
    /// How it is refused.
    pub style: RefusalStyle,
    /// Whether a refusal bears a Retry-After header; Google's mostly do not.
    pub retry_after: bool,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// Google's reason.
    pub reason: &'static str,
    /// Google's words.
    pub message: String,
    /// The Retry-After header, in seconds.
    pub retry_after_seconds: Option<u32>,
}

/// What was spent in the last minute.
#[derive(Debug, Default)]
pub struct Window {
    spent: VecDeque<(DateTime<Utc>, u32)>,
    sum: u32,
    refusals: u32,
}

/// What a call costs, in units; the OAuth endpoints cost none.
pub fn cost(table: &QuotaTable, method: Method) -> u32 {
    match method {
        // An attachment costs what a message does.
        Method::MessagesGet | Method::AttachmentsGet => table.get,
        Method::MessagesList => table.list,
        Method::HistoryList => table.history,
        Method::GetProfile | Method::LabelsList => table.profile,
        Method::Authorize | Method::Consent | Method::Token | Method::Revoke => 0,
    }
}

impl Window {
    /// Spends `units` at `now`, or says why not. What is refused is not spent.
    pub fn spend(
        &mut self,
        quota: &QuotaEnforcement,
        units: u32,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let window = TimeDelta::seconds(WINDOW_SECONDS);
        while let Some(&(at, spent)) = self.spent.front() {
            if now - at < window {
                break;
            }
            self.sum -= spent;
            self.spent.pop_front();
        }
        if self.sum + units <= quota.user_minute {
            self.spent.push_back((now, units));
            self.sum += units;
            return Ok(());
        }
        let free_at = self.free_at(quota, units).unwrap_or(now) + window;
        self.refusals += 1;
        let odd = self.refusals % 2 == 1;
        let code = match quota.style {
            RefusalStyle::Status403 => 403,
            RefusalStyle::Status429 => 429,
            RefusalStyle::Alternating if odd => 403,
            RefusalStyle::Alternating => 429,
        };
        let reason = match code {
            403 if odd => "userRateLimitExceeded",
            _ => "rateLimitExceeded",
        };
        let milliseconds = u64::try_from((free_at - now).num_milliseconds()).unwrap_or(0);
        let seconds = u32::try_from(milliseconds.div_ceil(1000)).unwrap_or(u32::MAX);
        Err(Refusal {
            code,
            reason,
            message: format!(
                "User-rate limit exceeded.  Retry after {}",
                free_at.to_rfc3339_opts(SecondsFormat::Millis, true)
            ),
            retry_after_seconds: quota.retry_after.then_some(seconds),
        })
    }

    /// When the spending was that has to leave the window for `units` to fit.
    fn free_at(&self, quota: &QuotaEnforcement, units: u32) -> Option<DateTime<Utc>> {
        let mut left = self.sum;
        for &(at, spent) in &self.spent {
            left -= spent;
            if left + units <= quota.user_minute {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: QuotaEnforcement = QuotaEnforcement {
        table: QuotaTable::Y2026,
        user_minute: 100,
        style: RefusalStyle::Alternating,
        retry_after: true,
    };

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn the_window_slides_and_a_refusal_costs_nothing() {
        let mut window = Window::default();
        for call in 0..5 {
            assert_eq!(window.spend(&QUOTA, 20, at(call * 1000)), Ok(()));
        }
        let refused = window.spend(&QUOTA, 20, at(30_500)).unwrap_err();
        assert_eq!(
            (refused.code, refused.reason, refused.retry_after_seconds),
            (403, "userRateLimitExceeded", Some(30))
        );
        assert!(
            refused
                .message
                .ends_with("Retry after 2027-01-15T08:01:00.000Z")
        );
        let refused = window.spend(&QUOTA, 40, at(30_500)).unwrap_err();
        assert_eq!(
            (refused.code, refused.reason, refused.retry_after_seconds),
            (429, "rateLimitExceeded", Some(31))
        );
        assert!(window.spend(&QUOTA, 20, at(59_999)).is_err());
        assert_eq!(window.spend(&QUOTA, 20, at(60_000)), Ok(()));
        assert!(window.spend(&QUOTA, 20, at(60_000)).is_err());
        assert_eq!(window.spend(&QUOTA, 100, at(120_000)), Ok(()));
    }
}
