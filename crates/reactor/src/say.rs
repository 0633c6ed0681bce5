//! Writes the runtime's reports to standard error.

use std::fmt::Arguments;
use std::time::Duration;

use spindle_engine::report;

/// Writes one line. If standard error is closed or its pipe is full, the line is dropped: the runtime continues.
pub(crate) fn say(what: Arguments<'_>) {
    report(&format!("spindle: {what}\n"), Duration::ZERO);
}
