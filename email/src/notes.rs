//! Calendar entries and delivery reports as a few readable lines. It reads what people would ask for first, not the
//! whole of iCalendar (RFC 5545) or RFC 3464.

use super::text;

/// Most recipients of a report that are named.
const MAX_RECIPIENTS: usize = 20;
/// Longest value that is written, in bytes.
const MAX_VALUE_BYTES: usize = 1_000;
/// Most of a part that is looked at, in bytes.
const MAX_READ_BYTES: usize = 256 << 10;

/// The first event of a calendar part.
pub(super) fn calendar(raw: &str) -> Option<String> {
    let mut method = String::new();
    let mut fields: [Option<String>; 5] = Default::default();
    let mut within = false;
    let mut nested = 0_usize;
    for line in unfolded(text::prefix(raw, MAX_READ_BYTES), "") {
        let Some((head, value)) = split_property(&line) else {
            continue;
        };
        let name = head.split(';').next().unwrap_or(head).to_ascii_uppercase();
        match name.as_str() {
            "METHOD" => method = value.trim().to_ascii_lowercase(),
            "BEGIN" if within => nested += 1,
            "BEGIN" => within = ["VEVENT", "VTODO"].contains(&value.trim()),
            "END" if nested > 0 => nested -= 1,
            "END" if within => break,
            _ => {}
        }
        if !within || nested > 0 {
            continue;
        }
        let (slot, written) = match name.as_str() {
            "SUMMARY" => (0, unescaped(value)),
            "DTSTART" => (1, moment(head, value)),
            "DTEND" | "DUE" => (2, moment(head, value)),
            "LOCATION" => (3, unescaped(value)),
            "ORGANIZER" => (4, organiser(head, value)),
            _ => continue,
        };
        if fields[slot].is_none() && !written.is_empty() {
            fields[slot] = Some(text::prefix(&written, MAX_VALUE_BYTES).to_owned());
        }
    }
    if !within {
        return None;
    }
    let [summary, start, end, location, organiser] = fields;
    let kind = match method.as_str() {
        "cancel" => "Cancelled event",
        "reply" => "Answer to an invitation",
        "request" => "Invitation",
        _ => "Event",
    };
    let mut note = format!(
        "{kind}: {}",
        summary.unwrap_or_else(|| "without a title".to_owned())
    );
    if let Some(start) = start {
        note.push_str("\nWhen: ");
        note.push_str(&start);
        if let Some(end) = end {
            note.push_str(" to ");
            note.push_str(&end);
        }
    }
    if let Some(location) = location {
        note.push_str("\nWhere: ");
        note.push_str(&location);
    }
    if let Some(organiser) = organiser {
        note.push_str("\nOrganiser: ");
        note.push_str(&organiser);
    }
    Some(note)
}

/// The recipients of a delivery or disposition report, one a line.
pub(super) fn report(raw: &str) -> Option<String> {
    let mut lines = Vec::new();
    let mut recipient = String::new();
    let mut outcome = String::new();
    let mut status = String::new();
    let mut reason = String::new();
    let mut fields = unfolded(text::prefix(raw, MAX_READ_BYTES), " ");
    // The end of the last group.
    fields.push(String::new());
    for line in fields {
        if line.trim().is_empty() {
            if !outcome.is_empty() && lines.len() < MAX_RECIPIENTS {
                let mut written = format!(
                    "Report: {} {outcome}",
                    if recipient.is_empty() {
                        "message"
                    } else {
                        &recipient
                    }
                );
                if !status.is_empty() {
                    written.push_str(&format!(" ({status})"));
                }
                if !reason.is_empty() {
                    written.push_str(&format!(": {reason}"));
                }
                lines.push(written);
            }
            for value in [&mut recipient, &mut outcome, &mut status, &mut reason] {
                value.clear();
            }
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = text::prefix(value.trim(), MAX_VALUE_BYTES);
        let untyped = value.split_once(';').map_or(value, |(_, rest)| rest).trim();
        let slot = match name.trim().to_ascii_lowercase().as_str() {
            "final-recipient" => &mut recipient,
            "action" | "disposition" => &mut outcome,
            "status" => &mut status,
            "diagnostic-code" => &mut reason,
            _ => continue,
        };
        let plain = matches!(
            name.trim().to_ascii_lowercase().as_str(),
            "action" | "status"
        );
        (if plain { value } else { untyped }).clone_into(slot);
    }
    if lines.is_empty() {
        None
    } else {
        Some(lines.join("\n"))
    }
}

/// Lines with their continuations, which begin with a blank; `joint` stands for it (RFC 5545 drops it, RFC 5322 keeps it).
fn unfolded(raw: &str, joint: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in raw.lines() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some(last)) if !last.is_empty() && !more.trim().is_empty() => {
                last.push_str(joint);
                last.push_str(more);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Name with parameters, and value: parted by the first colon outside quotes.
fn split_property(line: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b':' if !quoted => return Some((&line[..at], &line[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.trim().chars();
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

fn parameter<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    for part in head.split(';').skip(1) {
        if let Some((key, value)) = part.split_once('=')
            && key.eq_ignore_ascii_case(name)
        {
            return Some(value.trim_matches('"'));
        }
    }
    None
}

/// `20260615T100000Z` as `2026-06-15 10:00 UTC`; anything else as it is.
fn moment(head: &str, value: &str) -> String {
    let value = value.trim();
    let digits = |range: std::ops::Range<usize>| {
        value
            .get(range)
            .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (Some(year), Some(month), Some(day)) = (digits(0..4), digits(4..6), digits(6..8)) else {
        return value.to_owned();
    };
    let mut out = format!("{year}-{month}-{day}");
    if let (Some(hour), Some(minute)) = (digits(9..11), digits(11..13)) {
        out.push_str(&format!(" {hour}:{minute}"));
        if value.ends_with('Z') {
            out.push_str(" UTC");
        } else if let Some(zone) = parameter(head, "TZID") {
            out.push_str(&format!(" ({zone})"));
        }
    }
    out
}

fn organiser(head: &str, value: &str) -> String {
    let value = value.trim();
    let address = match value.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => &value[7..],
        _ => value,
    };
    match parameter(head, "CN") {
        Some(name) if !name.eq_ignore_ascii_case(address) => format!("{name} ({address})"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_says_what_when_where_and_who() {
        let raw = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VTIMEZONE\r\nDTSTART:19700101T000000\r\nEND:VTIMEZONE\r\n\
                   BEGIN:VEVENT\r\nSUMMARY:Plan\\, part\r\n  one\r\nDTSTART;TZID=Europe/Berlin:20260615T100000\r\n\
                   DTEND:20260615T110000Z\r\nLOCATION:Room 1\r\nORGANIZER;CN=\"Ann: lead\":mailto:ann@example.com\r\n\
                   BEGIN:VALARM\r\nSUMMARY:ring\r\nEND:VALARM\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        assert_eq!(
            calendar(raw).unwrap(),
            "Invitation: Plan, part one\nWhen: 2026-06-15 10:00 (Europe/Berlin) to 2026-06-15 11:00 UTC\n\
             Where: Room 1\nOrganiser: Ann: lead (ann@example.com)"
        );
        assert_eq!(calendar("no calendar"), None);
    }

    #[test]
    fn a_bounce_names_recipient_and_reason() {
        let raw = "Reporting-MTA: dns; mx.example.com\n\nFinal-Recipient: rfc822; a@example.com\nAction: failed\n\
                   Status: 5.1.1\nDiagnostic-Code: smtp; 550 no\n such user\n\nFinal-Recipient: rfc822; b@example.com\nAction: delayed\n";
        assert_eq!(
            report(raw).unwrap(),
            "Report: a@example.com failed (5.1.1): 550 no such user\nReport: b@example.com delayed"
        );
    }
}
