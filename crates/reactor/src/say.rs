//! What a runtime says on standard error.

use std::fmt::Arguments;
use std::io::Write;

/// Says one line. If nobody listens any more, nothing is said: the runtime goes on.
pub(crate) fn say(what: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "spindle: {what}");
}
