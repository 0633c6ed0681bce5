//! What is being measured right now, on standard error and only if that is a terminal.

use std::io::{IsTerminal, Write, stderr};

/// Says what is being measured, in one line that the next one replaces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    pub(crate) fn new() -> Progress {
        Progress { shown: stderr().is_terminal() }
    }

    /// Now this is being measured.
    pub(crate) fn at(self, what: &str) {
        self.line(&format!("measuring {what} ..."));
    }

    /// Takes the line away.
    pub(crate) fn end(self) {
        self.line("");
    }

    fn line(self, text: &str) {
        if self.shown {
            // Nobody to tell if it is gone.
            let _ = write!(stderr(), "\r\x1b[K{text}");
            let _ = stderr().flush();
        }
    }
}
