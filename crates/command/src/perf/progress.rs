//! Shows what is being measured, on standard error and only if that is a terminal.

use std::io::{IsTerminal, Write, stderr};

/// Prints what is being measured, in one line that is replaced each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    pub(crate) fn new() -> Progress {
        Progress { shown: stderr().is_terminal() }
    }

    /// Shows the present measurement.
    pub(crate) fn at(self, what: &str) {
        self.line(&format!("measuring {what} ..."));
    }

    /// Removes the line.
    pub(crate) fn end(self) {
        self.line("");
    }

    fn line(self, text: &str) {
        if self.shown {
            // If standard error is gone, the line is dropped.
            let _ = write!(stderr(), "\r\x1b[K{text}");
            let _ = stderr().flush();
        }
    }
}
