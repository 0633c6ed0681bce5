//! Progress of long work, on standard error and only if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Work that ends sooner than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar of bytes that appears when the work turns out to be long and vanishes when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Creates a bar for work on `bytes` bytes.
    pub(crate) fn new(what: &'static str, bytes: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} ({binary_bytes_per_sec}, {eta} left)";
        let style = ProgressStyle::with_template(template).expect("the template is a constant and valid");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what);
        Progress { bar, shown: false }
    }

    /// Updates the progress; the total may still change.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        if !self.shown && self.bar.elapsed() > PATIENCE {
            // Draws nothing if standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
