//! What is due when: deadlines, timers, timed pollers, and the time that calls take.
//!
//! Data structures without threads, tasks or clock: the caller gives the time.

pub(crate) mod deadlines;
pub(crate) mod due;
pub(crate) mod spent;
pub(crate) mod timers;

use spindle_engine::Time;

/// The earlier of two times, each of which may be missing.
#[inline]
pub(crate) fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
