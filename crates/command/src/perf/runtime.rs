//! The runtime that is measured on.

use spindle::reactor::Runtime;

use super::Failed;

/// A runtime to measure on, without a watchdog, as a measurement is a long call.
pub(super) fn runtime(reactors: usize) -> Result<Runtime, Failed> {
    Ok(Runtime::builder().reactors(reactors).watchdog(None).build()?)
}
