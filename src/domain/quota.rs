//! What a service's calls cost and how much may be spent: Google's tables for Gmail, by name.

use std::str::FromStr;

/// Most items of one account that are fetched at the same time. Gmail refuses more than about ten calls at a
/// time for one mailbox (429 "too many concurrent requests for user"):
/// <https://developers.google.com/workspace/gmail/api/guides/handle-errors>.
pub const MAX_FETCH_CONCURRENCY: usize = 10;

/// What each Gmail method costs, and what one user of one project may spend in a minute.
///
/// Source: <https://developers.google.com/workspace/gmail/api/reference/quota>, the table of
/// 2026-05-01 and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaTable {
    /// `messages.get`, any format, in units.
    pub get: u32,
    /// `threads.get`, any format, in units.
    pub threads_get: u32,
    /// `messages.list`, in units.
    pub list: u32,
    /// `history.list`, in units.
    pub history: u32,
    /// `getProfile` and `labels.list`, in units.
    pub profile: u32,
    /// Units a user may spend a minute; none where no budget is kept.
    pub user_minute: Option<u32>,
}

impl QuotaTable {
    /// For projects created since 2026-05-01.
    pub const Y2026: Self = Self {
        get: 20,
        threads_get: 40,
        list: 5,
        history: 2,
        profile: 1,
        user_minute: Some(6000),
    };
    /// For projects that used the API between 2025-11 and 2026-04.
    pub const LEGACY: Self = Self {
        get: 5,
        threads_get: 10,
        list: 5,
        history: 2,
        profile: 1,
        user_minute: Some(15_000),
    };
    /// Counts by the table of 2026 and keeps no budget; refusals still back off.
    pub const OFF: Self = Self {
        user_minute: None,
        ..Self::Y2026
    };
}

impl Default for QuotaTable {
    fn default() -> Self {
        Self::Y2026
    }
}

/// A text that names no table and is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a quota: use 2026, legacy, off, or for instance get=20,threads_get=40,list=5,history=2,profile=1,user_minute=6000"
)]
pub struct InvalidQuota(String);

impl FromStr for QuotaTable {
    type Err = InvalidQuota;

    /// Reads a table's name, or `method=units` pairs; what is not given is as in the table of 2026.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidQuota(text.to_owned());
        match text {
            "2026" => return Ok(Self::Y2026),
            "legacy" => return Ok(Self::LEGACY),
            "off" => return Ok(Self::OFF),
            _ => {}
        }
        let mut table = Self::Y2026;
        for pair in text.split(',') {
            let (method, units) = pair.split_once('=').ok_or_else(invalid)?;
            let units: u32 = units.trim().parse().map_err(|_| invalid())?;
            match method.trim() {
                "get" => table.get = units,
                "threads_get" => table.threads_get = units,
                "list" => table.list = units,
                "history" => table.history = units,
                "profile" => table.profile = units,
                "user_minute" => table.user_minute = Some(units),
                _ => return Err(invalid()),
            }
        }
        // A call that costs more than a minute's budget could never be made.
        let dearest = table
            .get
            .max(table.threads_get)
            .max(table.list)
            .max(table.history);
        if table
            .user_minute
            .is_some_and(|budget| budget < dearest.max(table.profile))
        {
            return Err(invalid());
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_by_name_and_by_pair() {
        assert_eq!("2026".parse::<QuotaTable>().unwrap(), QuotaTable::Y2026);
        assert_eq!("legacy".parse::<QuotaTable>().unwrap(), QuotaTable::LEGACY);
        assert_eq!("off".parse::<QuotaTable>().unwrap().user_minute, None);
        let own = "get=7, user_minute=100".parse::<QuotaTable>().unwrap();
        assert_eq!((own.get, own.list, own.user_minute), (7, 5, Some(100)));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for text in ["", "2027", "get", "get=x", "gets=1", "user_minute=10"] {
            assert!(text.parse::<QuotaTable>().is_err(), "{text:?}");
        }
    }
}
