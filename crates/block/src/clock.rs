//! The time as a lane table tells it: read when it is asked for, once for each pass of the table, and again after
//! 32 requests that asked.
//!
//! So a time is late by at most what 32 requests take, and a table in which nothing is timed reads no clock.

use std::time::Duration;

use spindle_reactor::Time;

/// Requests that one reading serves.
const SHARED: u8 = 32;

/// A table's clock.
#[derive(Default)]
pub(crate) struct Clock {
    now: Time,
    /// Requests for which `now` is good.
    left: u8,
    /// The time away from a Spindle thread.
    by_hand: Time,
}

impl Clock {
    /// A new pass begins.
    #[inline]
    pub(crate) fn begin_pass(&mut self) {
        self.left = 0;
    }

    /// The time.
    #[inline]
    pub(crate) fn now(&mut self) -> Time {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.read(),
        }
        self.now
    }

    /// The time, read again.
    pub(crate) fn read_now(&mut self) -> Time {
        self.read();
        self.now
    }

    #[inline(never)]
    fn read(&mut self) {
        self.now = spindle_reactor::clock().unwrap_or(self.by_hand);
        self.left = SHARED - 1;
    }

    /// Lets time pass on a table away from a Spindle thread.
    pub(crate) fn advance(&mut self, span: Duration) {
        self.by_hand = self.by_hand + span;
        self.left = 0;
    }
}
