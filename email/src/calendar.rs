//! Calendar entries (RFC 5545, RFC 5546): who meets when, where, and what is asked of the reader; as values and as a
//! few readable lines. It reads events and tasks, not time zones or alarms, and unrolls no recurrence.

use chrono::{Days, NaiveDate, NaiveDateTime, TimeDelta};
use serde::Serialize;

use super::{MAX_ATTENDEES, MAX_EVENTS, Mailbox, WarningCode, Warnings, headers, text};

/// Most of a part that is looked at, in bytes.
const MAX_READ_BYTES: usize = 256 << 10;
/// Most people that the readable lines name.
const MAX_NAMED: usize = 20;

/// What a calendar part says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Calendar {
    /// What is asked or told, lower-case: `request`, `cancel`, `reply`, `publish`, `counter`, …
    pub method: Option<String>,
    /// The entries, in the order of the part; of a recurring one also its exceptions.
    pub events: Vec<Event>,
}

/// One event or task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Identifies the entry over all messages about it.
    pub uid: Option<String>,
    /// Its title.
    pub summary: Option<String>,
    /// Begin: `2026-06-15` for a whole day, `2026-06-15T10:00:00` in `time_zone`, or with `Z` in UTC.
    pub start: Option<String>,
    /// End, in the same form; the last day of an event of whole days. For a task when it is due.
    pub end: Option<String>,
    /// Whether begin and end are days.
    pub all_day: bool,
    /// The zone of begin, as the sender names it; absent in UTC and for times that are the same clock time anywhere.
    pub time_zone: Option<String>,
    /// Where.
    pub location: Option<String>,
    /// Who invites.
    pub organizer: Option<Mailbox>,
    /// Who is invited, and what they answered.
    pub attendees: Vec<Attendee>,
    /// `confirmed`, `tentative`, `cancelled`, …
    pub status: Option<String>,
    /// Which version of the entry this is; grows with each change.
    pub sequence: Option<u64>,
    /// The rule of recurrence, as written (RFC 5545, 3.3.10).
    pub recurrence: Option<String>,
}

/// Somebody who is invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attendee {
    /// Display name.
    pub name: Option<String>,
    /// Address.
    pub address: Option<String>,
    /// `accepted`, `declined`, `tentative`, `delegated`, `needs-action`, …
    pub answer: Option<String>,
}

/// Reads the events of a calendar part; none where it holds no event.
pub(super) fn read(raw: &str, warnings: &mut Warnings) -> Option<Calendar> {
    let mut calendar = Calendar::default();
    let mut open: Option<Event> = None;
    let mut duration = None;
    let mut nested = 0_usize;
    for line in unfolded(text::prefix(raw, MAX_READ_BYTES)) {
        let Some((head, value)) = split_property(&line) else {
            continue;
        };
        let name = head
            .split(';')
            .next()
            .unwrap_or(head)
            .trim()
            .to_ascii_uppercase();
        let value = value.trim();
        let Some(event) = &mut open else {
            match name.as_str() {
                "METHOD" => calendar.method = word(value, warnings),
                "BEGIN"
                    if ["VEVENT", "VTODO"]
                        .iter()
                        .any(|kind| value.eq_ignore_ascii_case(kind)) =>
                {
                    if calendar.events.len() == MAX_EVENTS {
                        warnings.add(
                            WarningCode::LimitCalendar,
                            format!("more than {MAX_EVENTS} events"),
                        );
                        break;
                    }
                    open = Some(Event::default());
                    duration = None;
                }
                _ => {}
            }
            continue;
        };
        match name.as_str() {
            "BEGIN" => nested += 1,
            "END" if nested > 0 => nested -= 1,
            "END" => {
                close(event, duration.take());
                calendar.events.push(std::mem::take(event));
                open = None;
            }
            _ if nested > 0 => {}
            "DURATION" => duration = read_duration(value),
            _ => property(event, &name, head, value, warnings),
        }
    }
    // A part that was cut: what is known of the last event stands.
    if let Some(mut event) = open
        && event != Event::default()
    {
        close(&mut event, duration);
        calendar.events.push(event);
    }
    (!calendar.events.is_empty()).then_some(calendar)
}

fn property(event: &mut Event, name: &str, head: &str, value: &str, warnings: &mut Warnings) {
    let slot = match name {
        "UID" => &mut event.uid,
        "SUMMARY" => &mut event.summary,
        "LOCATION" => &mut event.location,
        "RRULE" => &mut event.recurrence,
        "STATUS" => {
            event.status = word(value, warnings);
            return;
        }
        "SEQUENCE" => {
            event.sequence = value.parse().ok();
            return;
        }
        "DTSTART" => {
            if event.start.is_none() {
                event.all_day = is_day(value);
                event.start = headers::field(&moment(value), warnings);
                if !event.all_day && !value.ends_with(['Z', 'z']) {
                    event.time_zone =
                        parameter(head, "TZID").and_then(|zone| headers::field(zone, warnings));
                }
            }
            return;
        }
        "DTEND" | "DUE" => {
            let mut end = moment(value);
            // The day after the last one is meant.
            if name == "DTEND"
                && let Ok(day) = NaiveDate::parse_from_str(&end, "%Y-%m-%d")
                && let Some(last) = day.checked_sub_days(Days::new(1))
            {
                end = last.to_string();
            }
            event.end = headers::field(&end, warnings);
            return;
        }
        "ORGANIZER" => {
            let (name, address) = person(head, value, warnings);
            event.organizer = Some(Mailbox { name, address });
            return;
        }
        "ATTENDEE" => {
            if event.attendees.len() == MAX_ATTENDEES {
                warnings.add(
                    WarningCode::LimitCalendar,
                    format!("more than {MAX_ATTENDEES} people in an event"),
                );
                return;
            }
            let (name, address) = person(head, value, warnings);
            let answer = parameter(head, "PARTSTAT").and_then(|answer| word(answer, warnings));
            event.attendees.push(Attendee {
                name,
                address,
                answer,
            });
            return;
        }
        _ => return,
    };
    if slot.is_none() {
        *slot = headers::field(&unescaped(value), warnings);
    }
}

/// Gives an event its end where it states how long it takes.
fn close(event: &mut Event, duration: Option<TimeDelta>) {
    let (Some(start), None, Some(duration)) = (&event.start, &event.end, duration) else {
        return;
    };
    if event.all_day {
        let day = NaiveDate::parse_from_str(start, "%Y-%m-%d").ok();
        let last = day.and_then(|day| day.checked_add_signed(duration - TimeDelta::days(1)));
        event.end = last.map(|last| last.to_string());
        return;
    }
    let zone = if start.ends_with('Z') { "Z" } else { "" };
    let begin = NaiveDateTime::parse_from_str(start.trim_end_matches('Z'), "%Y-%m-%dT%H:%M:%S");
    if let Some(end) = begin
        .ok()
        .and_then(|begin| begin.checked_add_signed(duration))
    {
        event.end = Some(format!("{}{zone}", end.format("%Y-%m-%dT%H:%M:%S")));
    }
}

/// The first event in readable lines: what is asked, when, where, by whom, who comes.
pub(super) fn describe(calendar: &Calendar) -> String {
    let Some(event) = calendar.events.first() else {
        return String::new();
    };
    let kind = match calendar.method.as_deref() {
        Some("cancel") => "Cancelled event",
        Some("reply") => "Answer to an invitation",
        Some("request" | "add") => "Invitation",
        Some("counter") => "Another time is proposed",
        Some("declinecounter") => "A proposed time is declined",
        _ if event.status.as_deref() == Some("cancelled") => "Cancelled event",
        _ => "Event",
    };
    let summary = event.summary.as_deref().unwrap_or("without a title");
    let mut note = format!("{kind}: {summary}");
    if let Some(start) = &event.start {
        note.push_str(&format!("\nWhen: {}", spoken(start)));
        if let Some(end) = event.end.as_ref().filter(|end| *end != start) {
            // The same day need not be said twice.
            let same = end.len() > 10 && start.get(..10) == end.get(..10);
            let said = spoken(end);
            let end = if same {
                said.get(11..).unwrap_or(&said)
            } else {
                &said
            };
            note.push_str(&format!(" to {end}"));
        }
        if event.all_day {
            note.push_str(" (all day)");
        } else if let Some(zone) = &event.time_zone {
            note.push_str(&format!(" ({zone})"));
        }
    }
    if let Some(rule) = &event.recurrence
        && let Some(words) = recurrence(rule)
    {
        note.push_str(&format!("\nRepeats: {words}"));
    }
    if let Some(location) = &event.location {
        note.push_str(&format!("\nWhere: {location}"));
    }
    if let Some(organizer) = &event.organizer {
        note.push_str(&format!(
            "\nOrganiser: {}",
            named(organizer.name.as_deref(), organizer.address.as_deref())
        ));
    }
    let mut people = Vec::new();
    for attendee in event.attendees.iter().take(MAX_NAMED) {
        let mut person = named(attendee.name.as_deref(), attendee.address.as_deref());
        match attendee.answer.as_deref() {
            None | Some("needs-action") => {}
            Some(answer) => person.push_str(&format!(" {answer}")),
        }
        people.push(person);
    }
    if event.attendees.len() > MAX_NAMED {
        people.push(format!("{} more", event.attendees.len() - MAX_NAMED));
    }
    if !people.is_empty() {
        note.push_str(&format!("\nAttendees: {}", people.join(", ")));
    }
    let others = calendar.events.len() - 1;
    if others > 0 {
        note.push_str(&format!("\nand {others} more entries"));
    }
    note
}

fn named(name: Option<&str>, address: Option<&str>) -> String {
    match (name, address) {
        (Some(name), Some(address)) if !name.eq_ignore_ascii_case(address) => {
            format!("{name} ({address})")
        }
        (_, Some(one)) | (Some(one), None) => one.to_owned(),
        (None, None) => "somebody".to_owned(),
    }
}

/// `2026-06-15T10:00:00Z` as `2026-06-15 10:00 UTC`; anything else as it is.
fn spoken(moment: &str) -> String {
    let Some((day, time)) = moment.split_once('T') else {
        return moment.to_owned();
    };
    let clock = time.get(..5).unwrap_or(time);
    let zone = if time.ends_with('Z') { " UTC" } else { "" };
    format!("{day} {clock}{zone}")
}

/// The simple rules of recurrence in words; none for those that need more than a line.
fn recurrence(rule: &str) -> Option<String> {
    let mut frequency = None;
    let mut interval = 1_u32;
    let mut tail = String::new();
    for part in rule.split(';') {
        let (name, value) = part.split_once('=')?;
        match name.trim().to_ascii_uppercase().as_str() {
            "FREQ" => frequency = Some(value.trim().to_ascii_uppercase()),
            "INTERVAL" => interval = value.trim().parse().ok()?,
            "COUNT" => tail.push_str(&format!(", {} times", value.trim().parse::<u32>().ok()?)),
            "UNTIL" => tail.push_str(&format!(", until {}", moment(value.trim()).get(..10)?)),
            "BYDAY" => {
                let mut days = Vec::new();
                for day in value.split(',').take(7) {
                    days.push(match day.trim().to_ascii_uppercase().as_str() {
                        "MO" => "Monday",
                        "TU" => "Tuesday",
                        "WE" => "Wednesday",
                        "TH" => "Thursday",
                        "FR" => "Friday",
                        "SA" => "Saturday",
                        "SU" => "Sunday",
                        _ => return None,
                    });
                }
                tail.insert_str(0, &format!(" on {}", days.join(", ")));
            }
            "WKST" => {}
            _ => return None,
        }
    }
    let unit = match frequency?.as_str() {
        "DAILY" => "day",
        "WEEKLY" => "week",
        "MONTHLY" => "month",
        "YEARLY" => "year",
        _ => return None,
    };
    Some(if interval == 1 {
        format!("every {unit}{tail}")
    } else {
        format!("every {interval} {unit}s{tail}")
    })
}

/// Lines with their continuations, which begin with a blank that is dropped (RFC 5545, 3.1).
fn unfolded(raw: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in raw.lines() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some(last)) => last.push_str(more),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Name with parameters, and value: parted by the first colon outside quotes.
fn split_property(line: &str) -> Option<(&str, &str)> {
    let at = outside_quotes(line, b':')?;
    Some((&line[..at], &line[at + 1..]))
}

fn outside_quotes(text: &str, mark: u8) -> Option<usize> {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'"' {
            quoted = !quoted;
        } else if byte == mark && !quoted {
            return Some(at);
        }
    }
    None
}

fn parameter<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = head;
    while let Some(at) = outside_quotes(rest, b';') {
        rest = &rest[at + 1..];
        let part = &rest[..outside_quotes(rest, b';').unwrap_or(rest.len())];
        if let Some((key, value)) = part.split_once('=')
            && key.trim().eq_ignore_ascii_case(name)
        {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(ch) = chars.next() {
        if ch != '\\' {
            out.push(ch);
            continue;
        }
        match chars.next() {
            Some('n' | 'N') => out.push(' '),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn word(value: &str, warnings: &mut Warnings) -> Option<String> {
    headers::field(&value.to_ascii_lowercase(), warnings)
}

fn is_day(value: &str) -> bool {
    value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// `20260615T100000Z` as `2026-06-15T10:00:00Z`, `20260615` as `2026-06-15`; anything else as it is.
fn moment(value: &str) -> String {
    if let Ok(day) = NaiveDate::parse_from_str(value, "%Y%m%d") {
        return day.to_string();
    }
    let zone = if value.ends_with(['Z', 'z']) { "Z" } else { "" };
    match NaiveDateTime::parse_from_str(value.trim_end_matches(['Z', 'z']), "%Y%m%dT%H%M%S") {
        Ok(time) => format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S")),
        Err(_) => value.to_owned(),
    }
}

/// `PT1H30M`, `P1D`, `P2W` (RFC 5545, 3.3.6).
fn read_duration(value: &str) -> Option<TimeDelta> {
    let rest = value.strip_prefix('+').unwrap_or(value).strip_prefix('P')?;
    let mut total = TimeDelta::zero();
    let mut digits = String::new();
    for ch in rest.chars() {
        if ch.is_ascii_digit() && digits.len() < 9 {
            digits.push(ch);
            continue;
        }
        if ch == 'T' && digits.is_empty() {
            continue;
        }
        let number: i64 = digits.parse().ok()?;
        digits.clear();
        let unit = match ch {
            'W' => 7 * 24 * 3600,
            'D' => 24 * 3600,
            'H' => 3600,
            'M' => 60,
            'S' => 1,
            _ => return None,
        };
        total = total.checked_add(&TimeDelta::try_seconds(number.checked_mul(unit)?)?)?;
    }
    digits.is_empty().then_some(total)
}

fn person(head: &str, value: &str, warnings: &mut Warnings) -> (Option<String>, Option<String>) {
    let address = match value.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => &value[7..],
        _ => value,
    };
    let name = parameter(head, "CN").and_then(|name| headers::field(name, warnings));
    (name, headers::field(address, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(raw: &str) -> Option<Calendar> {
        read(raw, &mut Warnings::default())
    }

    #[test]
    fn an_invitation_says_what_when_where_and_who() {
        let raw = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VTIMEZONE\r\nDTSTART:19700101T000000\r\nEND:VTIMEZONE\r\n\
                   BEGIN:VEVENT\r\nUID:1@example.com\r\nSEQUENCE:2\r\nSUMMARY:Plan\\, part\r\n  one\r\n\
                   DTSTART;TZID=Europe/Berlin:20260615T100000\r\nDTEND;TZID=Europe/Berlin:20260615T110000\r\n\
                   RRULE:FREQ=WEEKLY;COUNT=4;BYDAY=MO\r\nLOCATION:Room 1\r\n\
                   ORGANIZER;CN=\"Ann: lead; team\":mailto:ann@example.com\r\n\
                   ATTENDEE;PARTSTAT=ACCEPTED;CN=Bob:MAILTO:bob@example.com\r\n\
                   ATTENDEE;PARTSTAT=NEEDS-ACTION:mailto:cy@example.com\r\n\
                   BEGIN:VALARM\r\nSUMMARY:ring\r\nEND:VALARM\r\nSTATUS:CONFIRMED\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        let calendar = read_all(raw).unwrap();
        assert_eq!(
            describe(&calendar),
            "Invitation: Plan, part one\nWhen: 2026-06-15 10:00 to 11:00 (Europe/Berlin)\n\
             Repeats: every week on Monday, 4 times\nWhere: Room 1\nOrganiser: Ann: lead; team (ann@example.com)\n\
             Attendees: Bob (bob@example.com) accepted, cy@example.com"
        );
        let event = &calendar.events[0];
        assert_eq!(calendar.method.as_deref(), Some("request"));
        assert_eq!(event.start.as_deref(), Some("2026-06-15T10:00:00"));
        assert_eq!(event.time_zone.as_deref(), Some("Europe/Berlin"));
        assert_eq!((event.sequence, event.all_day), (Some(2), false));
        assert_eq!(event.attendees[0].answer.as_deref(), Some("accepted"));
        assert_eq!(event.status.as_deref(), Some("confirmed"));
        assert_eq!(read_all("no calendar"), None);
        assert_eq!(read_all("BEGIN:VEVENT"), None);
    }

    #[test]
    fn whole_days_end_on_their_last_day() {
        let raw = "BEGIN:VEVENT\nSUMMARY:Fair\nDTSTART;VALUE=DATE:20260615\nDTEND;VALUE=DATE:20260618\nEND:VEVENT\n";
        let calendar = read_all(raw).unwrap();
        assert_eq!(
            describe(&calendar),
            "Event: Fair\nWhen: 2026-06-15 to 2026-06-17 (all day)"
        );
        let one = "BEGIN:VEVENT\nDTSTART;VALUE=DATE:20260615\nDURATION:P1D\nEND:VEVENT\n";
        assert_eq!(
            describe(&read_all(one).unwrap()),
            "Event: without a title\nWhen: 2026-06-15 (all day)"
        );
    }

    #[test]
    fn a_duration_gives_the_end_and_a_cut_part_what_is_known() {
        let raw =
            "METHOD:CANCEL\nBEGIN:VEVENT\nDTSTART:20260615T233000Z\nDURATION:PT1H30M\nSUMMARY:Tea";
        assert_eq!(
            describe(&read_all(raw).unwrap()),
            "Cancelled event: Tea\nWhen: 2026-06-15 23:30 UTC to 2026-06-16 01:00 UTC"
        );
    }

    #[test]
    fn numbers_of_events_and_people_are_bounded() {
        let people = "ATTENDEE:mailto:a@example.com\n".repeat(MAX_ATTENDEES + 1);
        let raw = format!(
            "BEGIN:VEVENT\n{people}END:VEVENT\n{}",
            "BEGIN:VEVENT\nSUMMARY:x\nEND:VEVENT\n".repeat(MAX_EVENTS)
        );
        let mut warnings = Warnings::default();
        let calendar = read(&raw, &mut warnings).unwrap();
        assert_eq!(calendar.events.len(), MAX_EVENTS);
        assert_eq!(calendar.events[0].attendees.len(), MAX_ATTENDEES);
        assert_eq!(warnings.list[0].code, WarningCode::LimitCalendar);
        assert!(describe(&calendar).contains("180 more"));
    }

    #[test]
    fn rules_in_words() {
        for (rule, words) in [
            ("FREQ=DAILY", Some("every day")),
            (
                "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR",
                Some("every 2 weeks on Monday, Friday"),
            ),
            (
                "FREQ=YEARLY;UNTIL=20300101T000000Z",
                Some("every year, until 2030-01-01"),
            ),
            ("FREQ=MONTHLY;BYDAY=2MO", None),
            ("FREQ=MONTHLY;BYSETPOS=-1", None),
            ("nonsense", None),
        ] {
            assert_eq!(recurrence(rule).as_deref(), words, "{rule}");
        }
    }
}
