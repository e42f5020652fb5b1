//! Dates as mail has them: RFC 5322 and its ancestors, RFC 850, asctime, ISO 8601, and what programs made of these.
//! It must not guess which of two numbers is the month.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::text;

/// Longest text that is looked at, in bytes.
const MAX_DATE_BYTES: usize = 200;
/// Beginnings of the names of months beyond English, for programs that write dates in the language of the person.
const MONTHS: [&[&str]; 12] = [
    &["jan", "янв", "ene", "gen", "sty", "led"],
    &["feb", "fév", "fev", "фев", "lut", "úno"],
    &["mar", "mär", "mrz", "maa", "мар", "bře"],
    &["apr", "avr", "abr", "апр", "kwi", "dub"],
    &["may", "mai", "mag", "mei", "мая", "май", "maj", "kvě"],
    &["jun", "juin", "giu", "июн", "cze"],
    &["jul", "juil", "lug", "июл", "lip"],
    &["aug", "aoû", "aou", "ago", "авг", "sie", "srp"],
    &["sep", "set", "сен", "wrz", "zář"],
    &["oct", "okt", "out", "ott", "окт", "paź", "říj"],
    &["nov", "ноя", "lis"],
    &["dec", "dez", "déc", "dic", "дек", "gru", "pro"],
];
/// Zones by name, in hours east (RFC 5322, 4.3, and some that mail has besides).
const ZONES: [(&str, i32); 16] = [
    ("est", -5),
    ("edt", -4),
    ("cst", -6),
    ("cdt", -5),
    ("mst", -7),
    ("mdt", -6),
    ("pst", -8),
    ("pdt", -7),
    ("bst", 1),
    ("cet", 1),
    ("met", 1),
    ("mez", 1),
    ("cest", 2),
    ("eet", 2),
    ("msk", 3),
    ("jst", 9),
];

/// What was found so far.
#[derive(Default)]
struct Found {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    /// Seconds since midnight.
    time: Option<u32>,
    /// Seconds east of UTC.
    zone: Option<i32>,
}

/// Reads a date. A zone that is missing or makes no sense is UTC, a missing time is midnight, a weekday says nothing,
/// years of two digits are those of 1950 to 2049 and of three are counted from 1900 (RFC 5322, 4.3).
pub(super) fn read(raw: &str) -> Option<DateTime<Utc>> {
    let bounded = without_comments(text::prefix(raw, MAX_DATE_BYTES));
    let mut found = Found::default();
    for word in bounded.split(|ch: char| ch.is_whitespace() || ch == ',') {
        if !word.is_empty() {
            take(word, &mut found);
        }
    }
    let day = NaiveDate::from_ymd_opt(found.year?, found.month?, found.day?)?;
    let local = day.and_hms_opt(0, 0, 0)?.and_utc()
        + TimeDelta::seconds(i64::from(found.time.unwrap_or(0)));
    // RFC 3339 knows years of four digits only.
    local
        .checked_sub_signed(TimeDelta::seconds(i64::from(found.zone.unwrap_or(0))))
        .filter(|time| (1..=9999).contains(&chrono::Datelike::year(time)))
}

fn without_comments(raw: &str) -> String {
    let mut kept = String::with_capacity(raw.len());
    let mut depth = 0_usize;
    for ch in raw.chars() {
        match ch {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                kept.push(' ');
            }
            _ if depth == 0 => kept.push(ch),
            _ => {}
        }
    }
    kept
}

fn take(word: &str, found: &mut Found) {
    if let Some((date, time)) = word.split_once('T')
        && let Some(known) = iso(date)
        && found.year.is_none()
    {
        (found.year, found.month, found.day) = known;
        take_time(time, found);
        return;
    }
    if word.contains(':') && word.starts_with(|ch: char| ch.is_ascii_digit()) {
        take_time(word, found);
        return;
    }
    let lower = word.to_lowercase();
    if (lower == "pm" || lower == "am") && found.time.is_some() {
        found.time = found.time.and_then(|time| half_day(time, lower == "pm"));
        return;
    }
    if found.time.is_some() && found.zone.is_none() && take_zone(&lower, found) {
        return;
    }
    if let Some(known) = iso(word).or_else(|| numeric(word))
        && found.year.is_none()
    {
        (found.year, found.month, found.day) = known;
        return;
    }
    for piece in lower.split(['-', '/', '.']) {
        take_piece(piece, found);
    }
}

/// A day, the name of a month or a year.
fn take_piece(piece: &str, found: &mut Found) {
    if let Some(month) = month(piece) {
        if found.month.is_none() {
            found.month = Some(month);
        }
        return;
    }
    let digits = piece.trim_end_matches(|ch: char| !ch.is_ascii_digit());
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return;
    }
    let Ok(number) = digits.parse::<i32>() else {
        return;
    };
    if found.day.is_none() && digits.len() <= 2 {
        found.day = u32::try_from(number).ok();
    } else if found.year.is_none() && piece == digits && (digits.len() > 1) {
        // Programs that count from 1900 wrote `102`, and `0102` where four digits were asked for.
        found.year = Some(match number {
            0..50 => number + 2000,
            50..1000 => number + 1900,
            _ => number,
        });
    }
}

fn month(word: &str) -> Option<u32> {
    let ascii = word.strip_suffix('.').unwrap_or(word);
    if ascii.chars().count() < 3 || !ascii.chars().all(char::is_alphabetic) {
        return None;
    }
    let at = MONTHS
        .iter()
        .position(|names| names.iter().any(|name| ascii.starts_with(name)))?;
    u32::try_from(at + 1).ok()
}

type YearMonthDay = (Option<i32>, Option<u32>, Option<u32>);

/// `2026-06-15`, or with slashes.
fn iso(word: &str) -> Option<YearMonthDay> {
    let mut pieces = word.split(['-', '/']);
    let (year, month, day) = (pieces.next()?, pieces.next()?, pieces.next()?);
    if year.len() != 4 || pieces.next().is_some() {
        return None;
    }
    Some((
        Some(year.parse().ok()?),
        Some(month.parse().ok()?),
        Some(day.parse().ok()?),
    ))
}

/// `15.06.2026`, and with slashes where only one reading is a date.
fn numeric(word: &str) -> Option<YearMonthDay> {
    let dotted = word.contains('.');
    let mut pieces = word.split(['/', '.', '-']);
    let (first, second, year) = (pieces.next()?, pieces.next()?, pieces.next()?);
    if year.len() != 4 || pieces.next().is_some() {
        return None;
    }
    let (first, second) = (first.parse::<u32>().ok()?, second.parse::<u32>().ok()?);
    let year = Some(year.parse().ok()?);
    if dotted || first > 12 || first == second {
        Some((year, Some(second), Some(first)))
    } else if second > 12 {
        Some((year, Some(first), Some(second)))
    } else {
        None
    }
}

/// `10:20`, `10:20:30`, `10:20:30.123`, and what stands close behind: `PM`, `Z`, `+02:00`.
fn take_time(word: &str, found: &mut Found) {
    if found.time.is_some() {
        return;
    }
    let end = word
        .find(|ch: char| !ch.is_ascii_digit() && ch != ':' && ch != '.')
        .unwrap_or(word.len());
    let mut numbers = [0_u32; 3];
    for (at, piece) in word[..end].split(':').take(3).enumerate() {
        let whole = piece.split('.').next().unwrap_or(piece);
        match whole.parse() {
            Ok(number) => numbers[at] = number,
            // `10:20:` has lost its seconds.
            Err(_) if at == 2 => break,
            Err(_) => return,
        }
    }
    let [hour, minute, second] = numbers;
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return;
    }
    found.time = Some(hour * 3600 + minute * 60 + second);
    let rest = word[end..].to_lowercase();
    match rest.as_str() {
        "pm" | "am" => found.time = found.time.and_then(|time| half_day(time, rest == "pm")),
        _ => {
            take_zone(&rest, found);
        }
    }
}

/// The time of a clock of twelve hours.
fn half_day(time: u32, afternoon: bool) -> Option<u32> {
    const HALF: u32 = 12 * 3600;
    match (time / 3600, afternoon) {
        (13.., _) => Some(time),
        (12, true) => Some(time),
        (12, false) => Some(time - HALF),
        (_, true) => Some(time + HALF),
        (_, false) => Some(time),
    }
}

/// A zone (lower-case): `+0200`, `+02:00`, `gmt+2`, a name. Whether it was one.
fn take_zone(word: &str, found: &mut Found) -> bool {
    if let Some((_, hours)) = ZONES.iter().find(|(name, _)| *name == word) {
        found.zone = Some(hours * 3600);
        return true;
    }
    if matches!(word, "gmt" | "ut" | "utc" | "z" | "wet") {
        // `GMT +0200` goes on.
        return true;
    }
    let offset = word
        .strip_prefix("gmt")
        .or_else(|| word.strip_prefix("utc"))
        .unwrap_or(word);
    let (sign, digits) = match offset.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return false,
    };
    let digits = match digits.split_once([':', '-']) {
        Some((hours, minutes)) if !hours.is_empty() => format!("{hours}{minutes}"),
        _ => digits.to_owned(),
    };
    let Ok(number) = digits.parse::<i32>() else {
        return false;
    };
    let (hours, minutes) = match digits.len() {
        1 | 2 => (number, 0),
        _ => (number / 100, number % 100),
    };
    let sense = digits.len() <= 4 && hours <= 23 && minutes <= 59;
    found.zone = Some(if sense {
        sign * (hours * 3600 + minutes * 60)
    } else {
        0
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: Option<&str>) {
        let found = read(raw).map(|time| time.format("%Y-%m-%dT%H:%M:%S").to_string());
        assert_eq!(found.as_deref(), expected, "{raw}");
    }

    #[test]
    fn every_form_of_one_moment_is_read() {
        for raw in [
            "Mon, 15 Jun 2026 10:20:30 +0200",
            "15 Jun 2026 10:20:30 +0200",
            "Fri, 15 Jun 2026 10:20:30 +0200 (CEST)",
            "mon , 15 JUN 26 08:20:30 GMT",
            "Mon, 15 June 2026 08:20:30 UT",
            "Monday, 15-Jun-26 08:20:30 GMT",
            "Mon Jun 15 08:20:30 2026",
            "Mon Jun 15 10:20:30 CEST 2026",
            "Mon Jun 15 10:20:30 +0200 2026",
            "2026-06-15T08:20:30Z",
            "2026-06-15T10:20:30.123+02:00",
            "2026-06-15 08:20:30",
            "Mon, 15 Jun 2026 10:20:30 GMT+0200",
            "Mon, 15 Jun 2026 10:20:30 GMT +0200",
            "Mon, 15 Jun 126 08:20:30",
            "Mon, 15 Jun 0126 08:20:30",
            "Mon, 15 Jun 2026 13:50:30 +05-30",
            "Mon, 15 Jun 2026 08:20:30 AM +0000",
            "Mon, 15 Jun (a (nested) note) 2026 04:20:30 EDT",
            "15.06.2026 08:20:30",
            "06/15/2026 08:20:30",
            "Mo, 15 Juni 2026 10:20:30 +0200",
            "lun., 15 juin 2026 10:20:30 +0200",
            "Пн, 15 июн 2026 10:20:30 +0200",
            "June 15th, 2026 08:20:30",
            "Mon, 15 Jun 2026 08:20:30 +0000 and some junk 99",
            "Mon, 15 Jun 2026 08:20:30 +9999",
            "Mon,15 Jun 2026 03:20:30 -0500",
        ] {
            check(raw, Some("2026-06-15T08:20:30"));
        }
    }

    #[test]
    fn what_is_missing_has_a_default_and_what_is_wrong_is_none() {
        check("15 Jun 2026", Some("2026-06-15T00:00:00"));
        check("15 Jun 2026 10:20", Some("2026-06-15T10:20:00"));
        check("15 Jun 2026 10:20:t <x>", Some("2026-06-15T10:20:00"));
        check("15 Jun 98 10:20 PM", Some("1998-06-15T22:20:00"));
        check("15 Jun 49 00:00", Some("2049-06-15T00:00:00"));
        check("31 Dec 2016 23:59:60 +0000", Some("2017-01-01T00:00:00"));
        for none in [
            "",
            "yesterday",
            "31 Feb 2026 10:00:00 +0000",
            "15 2026 10:00",
            "06/05/2026 10:00",
            "Mon, 15 Jun",
            "99999 Jun 2026",
            "-1",
        ] {
            check(none, None);
        }
    }
}
