//! The time of day, for log lines. A program decides by the driver's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970 in UTC, as the system's clock has it; that may be set forwards and backwards.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks for it")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
