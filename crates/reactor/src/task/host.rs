//! What a thread provides to its tasks and pollers while it calls them.
//!
//! Implemented by the running half of a thread alone. Tasks and pollers know it by this trait, so that they can
//! be read, and tested, without threads and reactors.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

use spindle_engine::Time;

use crate::diagnosis::activity::{Activity, CallKind};

/// The thread that calls.
pub(crate) trait Host {
    /// What the reactor runs now, as others see it.
    fn activity(&self) -> &Activity;

    /// Call this before each message, task, poller or completion.
    fn begin(&self, kind: CallKind, at: Option<&'static Location<'static>>);

    /// Call this before `count` pollers; each of them then announces itself.
    fn begin_all(&self, kind: CallKind, count: usize);

    /// Counts further calls, after [`begin_all`](Self::begin_all).
    fn count_calls(&self, count: u32);

    /// The time at which the turn began.
    fn now(&self) -> Time;

    /// Calls `f` and measures its time. In simulation it takes no time.
    fn measure<T>(&self, f: impl FnOnce() -> T) -> (T, Duration);

    /// Reports what a task, message or poller did. A task's waiter also gets it as an
    /// error.
    fn report(&self, what: &dyn Display);
}
