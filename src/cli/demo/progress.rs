//! Progress of a run: a bar on a terminal, a line for each quarter elsewhere.

use std::{
    cell::Cell,
    io::{IsTerminal, Write},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Shows how far a run has come, on standard error.
pub(super) struct Progress {
    name: String,
    messages: u64,
    /// Absent where nobody watches.
    bar: Option<ProgressBar>,
    /// Quarters that a line was written for.
    quarters: Cell<u64>,
}

impl Progress {
    pub(super) fn new(name: &str, messages: usize) -> Self {
        let messages = messages as u64;
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new(messages));
        if let Some(bar) = &bar {
            let template = "{prefix:>12} [{bar:40}] {pos}/{len} messages, {per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name.to_owned());
        }
        Self {
            name: name.to_owned(),
            messages,
            bar,
            quarters: Cell::new(0),
        }
    }

    /// Shows the counts of a run.
    pub(super) fn show(&self, counts: &Value) {
        let listed = counts["listed"].as_u64().unwrap_or(0);
        if let Some(bar) = &self.bar {
            bar.set_position(listed);
            return;
        }
        let quarters = listed * 4 / self.messages.max(1);
        if quarters > self.quarters.replace(quarters) {
            let line = format!("{}: {listed} of {} messages", self.name, self.messages);
            // Whoever reads it may have gone away.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
