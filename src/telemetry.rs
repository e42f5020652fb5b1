//! Where log lines come from: text for people, JSON in Cloud Logging's shape, always on standard
//! error, one line an event.
//!
//! Whatever stands in a message or a field, it cannot begin a second line or steer a terminal. This
//! file must not decide what is logged, but that the heads of the audit log are, and knows no secret.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write as _},
    panic,
    sync::Arc,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::SetGlobalDefaultError,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::{
    config::{LogFormat, Telemetry},
    domain::{Clock, SystemClock, time},
    traces::{TRACE_ID, Traces},
};

/// What a span is called and is for elsewhere; no line of a log needs it.
const FOR_TRACES: &str = "otel.";

/// What is logged under this target is logged whatever the filter says: `audit verify` looks for it.
pub const AUDIT_HEADS: &str = "nucleus::audit_heads";

/// Longest text of one field, in bytes; Cloud Logging takes entries of 256 KB:
/// <https://cloud.google.com/logging/quotas>
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("the log filter cannot be used")]
    Filter(#[from] ParseError),
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    AlreadySet(#[from] SetGlobalDefaultError),
}

/// Sets logging up for the whole process, and the telling of `traces` where there are any; to be called
/// once.
pub fn init(settings: &Telemetry, traces: Option<&Traces>) -> Result<(), TelemetryError> {
    let is_json = match settings.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = Lines {
        is_json,
        clock: Arc::new(SystemClock),
        // A log that cannot be written must not stop the work, and there is nowhere to say so.
        write: Box::new(|line| drop(io::stderr().lock().write_all(line.as_bytes()))),
    };
    let filter = filter(&settings.filter)?;
    match traces {
        None => {
            tracing::subscriber::set_global_default(Registry::default().with(filter).with(lines))?
        }
        // What is left out of the log is traced all the same.
        Some(traces) => tracing::subscriber::set_global_default(
            Registry::default()
                .with(traces.layer())
                .with(lines.with_filter(filter)),
        )?,
    }
    if is_json {
        // The default hook writes several lines, none of them JSON.
        panic::set_hook(Box::new(|panicked| {
            let location = panicked.location().map(ToString::to_string);
            let reason = panicked.payload_as_str().unwrap_or("no reason given");
            tracing::error!(panic.location = location, "panicked: {reason}");
        }));
    }
    Ok(())
}

/// What the text lets through, and the heads of the audit log.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::builder().parse(text)?;
    Ok(filter.add_directive(format!("{AUDIT_HEADS}=info").parse()?))
}

/// Writes each event, with the fields of the spans around it, as one line.
struct Lines {
    is_json: bool,
    clock: Arc<dyn Clock>,
    write: Box<dyn Fn(&str) + Send + Sync>,
}

/// The fields of a span or an event, by name.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // What stands nearer to the event wins.
        let mut fields = Fields::default();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(outer) = span.extensions().get::<Fields>() {
                    fields.0.append(&mut outer.0.clone());
                }
            }
        }
        // A span has no message; a field of that name is not the event's.
        fields.0.remove("message");
        event.record(&mut fields);

        let time = time::rfc3339(self.clock.now());
        let level = *event.metadata().level();
        let target = event.metadata().target();
        let line = if self.is_json {
            json_line(&time, level, target, fields.0)
        } else {
            text_line(&time, level, target, fields.0)
        };
        (self.write)(&line);
    }
}

/// One line in the shape that Cloud Logging understands:
/// <https://cloud.google.com/logging/docs/structured-logging>
fn json_line(time: &str, level: Level, target: &str, mut fields: Map<String, Value>) -> String {
    // These come last, so that no field of that name can take their place.
    if let Some(trace) = fields.remove(TRACE_ID) {
        fields.insert("logging.googleapis.com/trace".to_owned(), trace);
    }
    let message = take_message(&mut fields);
    fields.insert("message".to_owned(), message.into());
    fields.insert("severity".to_owned(), severity(level).into());
    fields.insert("timestamp".to_owned(), time.into());
    fields.insert("target".to_owned(), target.into());
    let json = Value::Object(fields).to_string();
    let mut line = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        // serde_json has escaped what JSON demands; these stand inside strings only.
        if steers_the_reader(character) {
            push(&mut line, format_args!("\\u{:04x}", u32::from(character)));
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

/// One line for people: time, level, message, fields, and where it comes from.
fn text_line(time: &str, level: Level, target: &str, mut fields: Map<String, Value>) -> String {
    let mut line = String::new();
    let message = take_message(&mut fields);
    push(&mut line, format_args!("{time} {level:>5} "));
    push_escaped(&mut line, &message);
    for (name, value) in &fields {
        push(&mut line, format_args!(" {name}="));
        match value {
            Value::String(text) if is_plain(text) => line.push_str(text),
            Value::String(text) => {
                line.push('"');
                push_escaped(&mut line, &text.replace('\\', "\\\\").replace('"', "\\\""));
                line.push('"');
            }
            other => push(&mut line, format_args!("{other}")),
        }
    }
    push(&mut line, format_args!(" ({target})\n"));
    line
}

fn take_message(fields: &mut Map<String, Value>) -> String {
    match fields.remove("message") {
        Some(Value::String(message)) => message,
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Whether a text can stand in a text line without quotes.
fn is_plain(text: &str) -> bool {
    let quoted = |c: char| c.is_whitespace() || c == '"' || c == '=' || steers_the_reader(c);
    !text.is_empty() && !text.contains(quoted)
}

/// A text of somebody else as it may stand in a line: it begins no other line and does not steer a
/// terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push_escaped(&mut line, text);
    line
}

fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if steers_the_reader(character) {
            push(line, format_args!("{}", character.escape_default()));
        } else {
            line.push(character);
        }
    }
}

fn push(line: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = line.write_fmt(text);
}

/// Control characters (C0, DEL and C1, which hold line ends and the start of terminal sequences),
/// Unicode's line and paragraph separators, and the marks that turn the direction of text.
fn steers_the_reader(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}')
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // Macros of the log facade write `r#type` for a field called type.
        let name = field.name().trim_start_matches("r#");
        if name.starts_with(FOR_TRACES) {
            return;
        }
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_TEXT_BYTES {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            text.push('…');
        }
        self.put(field, text);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    /// An error prints its own layer only; the log is where the whole chain is written, once.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            push(&mut text, format_args!(": {error}"));
            cause = error.source();
        }
        self.put_text(field, text);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use async_trait::async_trait;
    use chrono::{DateTime, Utc};

    use super::*;

    struct Fixed;

    #[async_trait]
    impl Clock for Fixed {
        fn now(&self) -> DateTime<Utc> {
            DateTime::from_timestamp(1_800_000_000, 123_456_000).unwrap()
        }

        async fn sleep(&self, _: Duration) {}
    }

    /// What `events` logs, all of it.
    fn logged(is_json: bool, text: &str, events: impl FnOnce()) -> String {
        let output = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&output);
        let lines = Lines {
            is_json,
            clock: Arc::new(Fixed),
            write: Box::new(move |line| sink.lock().unwrap().push_str(line)),
        };
        let subscriber = Registry::default().with(filter(text).unwrap()).with(lines);
        tracing::subscriber::with_default(subscriber, events);
        output.lock().unwrap().clone()
    }

    fn json(events: impl FnOnce()) -> Value {
        let text = logged(true, "trace", events);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with('\n'));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_json_line_has_the_shape_of_cloud_logging() {
        let line = json(|| {
            let outer = tracing::info_span!(
                "request",
                trace.id = "0af7651916cd43dd8448eb211c80319c",
                sync_run.id = tracing::field::Empty,
                depth = 1
            );
            let _outer = outer.enter();
            outer.record("sync_run.id", "r1");
            let _inner = tracing::info_span!("run", integration.id = %7, depth = 2).entered();
            tracing::warn!(duration_ms = 12_u64, ok = true, "page {} stored", 3);
        });
        let expected = serde_json::json!({
            "severity": "WARNING",
            "message": "page 3 stored",
            "timestamp": "2027-01-15T08:00:00.123456Z",
            "target": "nucleus::telemetry::tests",
            "logging.googleapis.com/trace": "0af7651916cd43dd8448eb211c80319c",
            "integration.id": "7",
            "sync_run.id": "r1",
            "depth": 2,
            "duration_ms": 12,
            "ok": true,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn every_level_has_its_severity() {
        let text = logged(true, "trace", || {
            tracing::error!("a");
            tracing::warn!("a");
            tracing::info!("a");
            tracing::debug!("a");
            tracing::trace!("a");
        });
        let mut severities = Vec::new();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            severities.push(value["severity"].as_str().unwrap().to_owned());
        }
        assert_eq!(severities, ["ERROR", "WARNING", "INFO", "DEBUG", "DEBUG"]);
    }

    const HOSTILE: &str = "a\r\nb\0\u{1b}[31m\u{9b}2J\u{7f}\u{2028}\u{202e}\"}\n{\"severity\":\"x";

    #[test]
    fn hostile_text_stays_in_its_string_in_json() {
        let line = json(|| tracing::info!(mail.subject = HOSTILE, "{HOSTILE}"));
        assert_eq!(line["message"], HOSTILE);
        assert_eq!(line["mail.subject"], HOSTILE);
        assert_eq!(line["severity"], "INFO");
        let text = logged(true, "info", || tracing::info!(a = HOSTILE, "{HOSTILE}"));
        let body = text.trim_end_matches('\n');
        assert!(!body.chars().any(steers_the_reader), "{body:?}");
    }

    #[test]
    fn hostile_text_stays_on_its_line_in_text() {
        let text = logged(false, "info", || {
            tracing::info!(mail.subject = HOSTILE, n = 1, "{HOSTILE}");
        });
        assert_eq!(text.matches('\n').count(), 1);
        let body = text.trim_end_matches('\n');
        assert!(!body.chars().any(steers_the_reader), "{body:?}");
        assert!(body.starts_with("2027-01-15T08:00:00.123456Z  INFO a\\r\\nb\\u{0}\\u{1b}[31m"));
        assert!(body.contains(" n=1"), "{body}");
        assert!(body.ends_with(" (nucleus::telemetry::tests)"), "{body}");
    }

    #[test]
    fn no_field_takes_the_place_of_what_cloud_logging_reads() {
        let line = json(|| {
            let _span = tracing::info_span!("s", message = "span", severity = "x").entered();
            tracing::info!(timestamp = "never", target = "none");
        });
        assert_eq!(line["message"], "");
        assert_eq!(line["severity"], "INFO");
        assert_eq!(line["timestamp"], "2027-01-15T08:00:00.123456Z");
    }

    #[test]
    fn an_error_is_written_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("inner"));
        let line = json(|| tracing::error!(error = &error as &dyn Error, "failed"));
        assert_eq!(line["error"], "outer: inner");
    }

    #[test]
    fn what_the_filter_leaves_out_is_not_written() {
        let text = logged(false, "info,nucleus::telemetry=warn", || {
            tracing::info!("quiet")
        });
        assert_eq!(text, "");
    }

    #[test]
    fn no_filter_leaves_out_the_heads_of_the_audit_log() {
        for text in ["warn", "off", "nucleus=error", "nucleus::audit_heads=off"] {
            let text = logged(true, text, || {
                tracing::info!(target: AUDIT_HEADS, "a head");
                tracing::info!("another");
            });
            let lines: Vec<&str> = text.lines().collect();
            assert!(
                matches!(lines[..], [head] if head.contains("a head")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let line = json(|| tracing::info!(a = long, "long"));
        let kept = line["a"].as_str().unwrap();
        assert_eq!(kept.len(), MAX_TEXT_BYTES + '…'.len_utf8());
        assert!(kept.ends_with('…'));
    }
}
