//! What a lane table does for a lane besides passing requests to it: counting, timing, limits.
//!
//! Boxed, and allocated only while the device wants one of these: other lanes pay nothing.

use std::sync::Arc;

use spindle_reactor::Time;

use crate::path::lines::{Lines, Paid};
use crate::request::io::Slot;
use crate::state::limits::Account;
use crate::state::wanted::Wanted;
use crate::{Io, Operation};

/// Counting, timing and limits of one lane.
pub(crate) struct Meter {
    pub(crate) wanted: Wanted,
    /// Bytes in a block of the device, as a shift.
    block_shift: u32,
    lines: Lines,
}

impl Meter {
    pub(crate) fn new(wanted: Wanted, block_shift: u32) -> Meter {
        Meter { wanted, block_shift, lines: Lines::new(block_shift) }
    }

    fn bytes_of(&self, slot: &Slot) -> u64 {
        slot.count << self.block_shift
    }

    /// Counts a request when it arrives.
    #[inline]
    pub(crate) fn begin(&mut self, slot: &mut Slot, now: Time) {
        slot.frames[usize::from(slot.depth)].arrived = now;
        slot.paid = NOT_PAID;
        if let Some(counters) = &self.wanted.counters {
            counters.begin();
        }
    }

    /// Counts a request when it leaves.
    #[inline]
    pub(crate) fn end(&mut self, slot: &Slot, now: Time) {
        let took = now.0.saturating_sub(slot.frames[usize::from(slot.depth)].arrived.0);
        if let Some(counters) = &self.wanted.counters {
            counters.end(slot.operation, slot.status.is_ok().then(|| (self.bytes_of(slot), took)));
        }
        if let Some(histogram) = &self.wanted.histogram
            && slot.status.is_ok()
        {
            histogram.tally(slot.operation, took);
        }
    }

    /// Charges a request to the limits, after what its user owes; or puts it in line.
    pub(crate) fn pay(&mut self, io: Io, now: Time) -> Paid {
        let slot = io.slot();
        let paid = slot.paid == slot.depth;
        let Some(account) = &self.wanted.account else { return Paid::Goes(io, None) };
        if paid || !Account::limits_operation(slot.operation) {
            return Paid::Goes(io, None);
        }
        let writes = slot.operation == Operation::Write && !account.has_one_line();
        let user = if slot.opener == 0 { slot.user } else { slot.opener };
        match self.lines.pay(io, (user, writes), account, now) {
            Paid::Goes(io, until) => Paid::Goes(paid_here(io), until),
            waits => waits,
        }
    }

    /// The next request whose time has come; otherwise the time at which to look again, unless all users are at rest.
    pub(crate) fn next_paid(&mut self, now: Time) -> Result<Io, Option<Time>> {
        self.lines.next(self.wanted.account.as_deref(), now).map(paid_here)
    }

    /// Removes and returns a request that waits for a limit.
    pub(crate) fn take_waiting(&mut self, is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        self.lines.take(is_it, self.wanted.account.as_deref())
    }

    /// Removes all requests that wait for limits.
    pub(crate) fn take_all_waiting(&mut self, all: &mut Vec<Io>) {
        self.lines.take_all(all, self.wanted.account.as_deref());
    }

    /// Takes over new settings.
    pub(crate) fn change(&mut self, wanted: Wanted) {
        let same = match (&self.wanted.account, &wanted.account) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let before = std::mem::replace(&mut self.wanted, wanted).account;
        if !same {
            self.lines.change(before.as_deref(), self.wanted.account.as_deref());
        }
    }

    /// True if no request waits for limits and no user owes anything.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lines.are_at_rest()
    }

    /// Requests that wait for limits, of those that `counts` accepts.
    pub(crate) fn waiting_where(&self, counts: &dyn Fn(&Slot) -> bool) -> usize {
        self.lines.waiting_where(counts)
    }

    /// Requests that wait for limits.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.waiting()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(account) = &self.wanted.account {
            self.lines.settle(account);
        }
    }
}

/// Notes that limits need not be asked again for a request at this depth.
fn paid_here(mut io: Io) -> Io {
    let slot = io.slot_mut();
    slot.paid = slot.depth;
    io
}

/// Stands in a request's slot for the time at which it came to a lane that made it.
pub(crate) const NOT_ARRIVED: Time = Time(u64::MAX);

/// Stands in a request's slot for a lane that it has not paid at: deeper than any.
pub(crate) const NOT_PAID: u8 = u8::MAX;
