//! What is due when: deadlines, timers, timed pollers, and the time that calls take.
//!
//! Data structures without threads, tasks or clock: the caller gives the time.

pub(crate) mod deadlines;
pub(crate) mod due;
pub(crate) mod spent;
pub(crate) mod timers;
