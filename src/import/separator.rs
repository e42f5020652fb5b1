//! The separator lines of mbox files: `From`, who sent or what Google calls the message, and when.
//! Which line is one is decided in [`super::mbox`].

use chrono::{DateTime, FixedOffset, NaiveDate, TimeDelta, Utc};

/// What Takeout writes behind Gmail's id.
const TAKEOUT_HOST: &str = "@xxx";
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
/// Words behind the sender that are looked at; no separator has more.
const MAX_WORDS: usize = 16;

/// Gmail's id of the message: `From 1873661540273559365@xxx …`.
pub(super) fn gmail_id(line: &[u8]) -> Option<u64> {
    let id = words(line).next()?.strip_suffix(TAKEOUT_HOST)?;
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    id.parse().ok()
}

/// Whether there is nothing but a sender or a dash, as some programs write it.
pub(super) fn names_one_sender(line: &[u8]) -> bool {
    let mut words = words(line);
    let sender = words.next().unwrap_or_default();
    let alone = words.next().is_none();
    sender == "-" || sender == "???@???" || (alone && (sender.is_empty() || sender.contains('@')))
}

/// The date in the form of C's `asctime`, with an offset before or behind the year where there is one:
/// `Sun Aug 16 06:48:08 +0000 2026`. Without an offset it is read as universal time.
pub(super) fn date(line: &[u8]) -> Option<DateTime<Utc>> {
    let words: Vec<&str> = words(line).take(MAX_WORDS).collect();
    let time_at = words.iter().position(|word| clock_time(word).is_some())?;
    let (day, month) = day_and_month(words.get(time_at.checked_sub(2)?..time_at)?)?;
    let (hour, minute, second) = clock_time(words[time_at])?;
    let behind = &words[time_at + 1..];
    let year = behind.iter().find_map(|word| year(word))?;
    let offset = behind.iter().find_map(|word| offset(word));
    let local = NaiveDate::from_ymd_opt(year, month, day)?
        // A leap second is the end of the minute.
        .and_hms_opt(hour, minute, second.min(59))?;
    let seconds = offset.map_or(0, |offset| offset.local_minus_utc());
    Some((local - TimeDelta::seconds(i64::from(seconds))).and_utc())
}

/// The words behind `From`.
fn words(line: &[u8]) -> impl Iterator<Item = &str> {
    let rest = line.get(b"From ".len()..).unwrap_or_default();
    rest.split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        // What is no text is no word that is looked for, and holds its place.
        .map(|word| std::str::from_utf8(word).unwrap_or("?"))
}

fn clock_time(word: &str) -> Option<(u32, u32, u32)> {
    let mut parts = word.split(':').map(|part| {
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u32>().ok()).flatten()
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        None => 0,
        Some(second) => second?,
    };
    (parts.next().is_none() && hour < 24 && minute < 60 && second <= 60)
        .then_some((hour, minute, second))
}

/// Of `Aug 16` or `16 Aug`.
fn day_and_month(words: &[&str]) -> Option<(u32, u32)> {
    let [first, second] = words else { return None };
    let month = |word: &str| {
        let word = word.to_ascii_lowercase();
        let index = MONTHS.iter().position(|month| *month == word)?;
        u32::try_from(index + 1).ok()
    };
    let day = |word: &str| word.parse().ok().filter(|day| (1..=31).contains(day));
    match month(first) {
        Some(month) => Some((day(second)?, month)),
        None => Some((day(first)?, month(second)?)),
    }
}

fn year(word: &str) -> Option<i32> {
    let digits = word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

fn offset(word: &str) -> Option<FixedOffset> {
    let (sign, digits) = match word.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 {
        return None;
    }
    let number: i32 = digits.parse().ok()?;
    FixedOffset::east_opt(sign * (number / 100 * 3600 + number % 100 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_forms_that_programs_write() {
        for (line, expected) in [
            (
                "From a@example.com Thu Jan  1 00:00:05 1998",
                "1998-01-01T00:00:05Z",
            ),
            (
                "From 1873661540273559365@xxx Sun Aug 16 06:48:08 +0000 2026",
                "2026-08-16T06:48:08Z",
            ),
            (
                "From a@example.com Sun Aug 16 06:48:08 2026 +0200",
                "2026-08-16T04:48:08Z",
            ),
            ("From - Sun Aug 16 06:48 2026", "2026-08-16T06:48:00Z"),
            (
                "From someone at example.com  16 Aug 06:48:60 GMT 2026",
                "2026-08-16T06:48:59Z",
            ),
            (
                "From \u{201c}odd\u{201d} Thu Jan 15 13:22:25 2015",
                "2015-01-15T13:22:25Z",
            ),
        ] {
            let read = date(line.as_bytes()).map(|date| date.to_rfc3339());
            assert_eq!(read, Some(expected.replace('Z', "+00:00")), "{line}");
        }
        for line in [
            "From the start",
            "From 9:30 to 10:30 on May 5",
            "From a@example.com Thu Feb 30 00:00:00 1998",
            "From a@example.com Thu Jan 1 25:00:00 1998",
            "From ",
            "From",
        ] {
            assert_eq!(date(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn only_a_number_at_xxx_is_an_id_of_gmail() {
        assert_eq!(gmail_id(b"From 18@xxx Sun"), Some(18));
        for line in [
            "From a@xxx Sun",
            "From +1@xxx",
            "From @xxx",
            "From 1@xx",
            "From 99999999999999999999@xxx",
        ] {
            assert_eq!(gmail_id(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_sender_alone_can_be_a_separator_and_a_sentence_cannot() {
        for line in [
            "From -",
            "From - ",
            "From ",
            "From a@example.com",
            "From ???@???",
        ] {
            assert!(names_one_sender(line.as_bytes()), "{line}");
        }
        for line in [
            "From Russia with love",
            "From here",
            "From a@example.com came this",
        ] {
            assert!(!names_one_sender(line.as_bytes()), "{line}");
        }
    }
}
