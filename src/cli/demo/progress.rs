//! Progress of a run: a bar on a terminal, a line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Shows how far a run has come.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(name: &str, messages: usize) -> Self {
        let bar = ProgressBar::new(messages as u64);
        let template = "{prefix:>12} [{bar:40}] {pos}/{len} messages, {per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        Self { bar }
    }

    /// Shows the counts of a run. Off a terminal the bar is hidden and nothing is printed.
    pub(super) fn show(&self, counts: &Value) {
        self.bar
            .set_position(counts["listed"].as_u64().unwrap_or(0));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
