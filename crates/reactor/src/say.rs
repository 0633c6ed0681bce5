//! What a runtime says on standard error.

use std::fmt::Arguments;
use std::time::Duration;

use spindle_engine::report;

/// Says one line. If nobody listens any more, or nobody reads what was said before, nothing is said: the runtime
/// goes on.
pub(crate) fn say(what: Arguments<'_>) {
    report(&format!("spindle: {what}\n"), Duration::ZERO);
}
