//! The clock of a lane table: read on first use in each pass of the table, and again after 32 requests that
//! asked.
//!
//! So a time is late by at most what 32 requests take, and a table that times nothing reads no clock.

use std::time::Duration;

use spindle_reactor::Time;

/// Requests served by one reading.
const SHARED: u8 = 32;

/// A table's clock.
#[derive(Default)]
pub(crate) struct Clock {
    now: Time,
    /// Requests for which `now` is still good.
    left: u8,
    /// The time of a table without a Spindle thread.
    by_hand: Time,
}

impl Clock {
    /// Begins a new pass: the next question reads the clock.
    #[inline]
    pub(crate) fn begin_pass(&mut self) {
        self.left = 0;
    }

    /// The time, possibly read earlier in this pass.
    #[inline]
    pub(crate) fn now(&mut self) -> Time {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.read(),
        }
        self.now
    }

    /// Reads the clock again.
    pub(crate) fn read_now(&mut self) -> Time {
        self.read();
        self.now
    }

    #[inline(never)]
    fn read(&mut self) {
        self.now = spindle_reactor::clock().unwrap_or(self.by_hand);
        self.left = SHARED - 1;
    }

    /// Moves the time of a table without a Spindle thread.
    pub(crate) fn advance(&mut self, span: Duration) {
        self.by_hand = self.by_hand + span;
        self.left = 0;
    }
}
