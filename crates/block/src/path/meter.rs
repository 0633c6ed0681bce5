//! What a lane table does for a lane besides passing requests to it: counting, timing, limits.
//!
//! Boxed, and allocated only while the device wants one of these: other lanes pay nothing.

use std::sync::Arc;

use spindle_reactor::Time;

use crate::path::line::{Line, Turn};
use crate::request::io::Slot;
use crate::state::limits::Account;
use crate::state::wanted::Wanted;
use crate::{Io, Operation};

/// Counting, timing and limits of one lane.
pub(crate) struct Meter {
    pub(crate) wanted: Wanted,
    /// Bytes in a block of the device, as a shift.
    block_shift: u32,
    /// One for each user with waiting requests or debt; a new user takes over a line that rests.
    lines: Vec<Line>,
    /// The line whose turn is next.
    next: usize,
}

/// Whether limits let a request go, and when to look at the lane again, if at all.
pub(crate) enum Paid {
    Goes(Io, Option<Time>),
    Waits(Option<Time>),
}

impl Meter {
    pub(crate) fn new(wanted: Wanted, block_shift: u32) -> Meter {
        Meter { wanted, block_shift, lines: Vec::new(), next: 0 }
    }

    fn bytes_of(&self, slot: &Slot) -> u64 {
        slot.count << self.block_shift
    }

    /// Counts a request when it arrives.
    pub(crate) fn begin(&mut self, slot: &mut Slot, now: Time) {
        slot.arrived[usize::from(slot.depth)] = now;
        slot.paid = NOT_PAID;
        if let Some(counters) = &self.wanted.counters {
            counters.begin();
        }
    }

    /// Counts a request when it leaves.
    pub(crate) fn end(&mut self, slot: &Slot, now: Time) {
        let took = now.0.saturating_sub(slot.arrived[usize::from(slot.depth)].0);
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
    pub(crate) fn pay(&mut self, mut io: Io, now: Time) -> Paid {
        let slot = io.slot_mut();
        let paid = slot.paid == slot.depth;
        let Some(account) = &self.wanted.account else { return Paid::Goes(io, None) };
        if paid || !Account::limits_operation(slot.operation) {
            return Paid::Goes(io, None);
        }
        let writes = slot.operation == Operation::Write && !account.has_one_line();
        let user = if slot.opener == 0 { slot.user } else { slot.opener };
        let (operation, bytes) = (slot.operation, slot.count << self.block_shift);
        let line = line_of(&mut self.lines, (user, writes));
        if line.rests() {
            return match line.go_at_once(account, operation, bytes, now) {
                Ok(()) => Paid::Goes(paid_here(io), line.goes_on(account, self.block_shift, now)),
                Err(due) => {
                    line.push(io);
                    Paid::Waits(Some(due))
                }
            };
        }
        let waits = !line.waiting().is_empty();
        line.push(io);
        if waits {
            return Paid::Waits(None);
        }
        match line.turn(account, self.block_shift, now) {
            Turn::Goes => match line.pop() {
                Some(io) => Paid::Goes(paid_here(io), line.goes_on(account, self.block_shift, now)),
                None => Paid::Waits(None),
            },
            Turn::Waits(due) => Paid::Waits(Some(due)),
            Turn::Rests => Paid::Waits(None),
        }
    }

    /// The next request whose time has come, of each line in turn; otherwise the time at which to look again, if any
    /// line does not rest.
    pub(crate) fn next_paid(&mut self, now: Time) -> Result<Io, Option<Time>> {
        let mut until: Option<Time> = None;
        for _ in 0..self.lines.len() {
            self.next = (self.next + 1) % self.lines.len();
            let line = &mut self.lines[self.next];
            let turn = match &self.wanted.account {
                Some(account) => line.turn(account, self.block_shift, now),
                None => Turn::Goes,
            };
            match turn {
                Turn::Goes => {
                    if let Some(io) = line.pop() {
                        return Ok(paid_here(io));
                    }
                }
                Turn::Waits(due) => until = Some(until.map_or(due, |other| other.min(due))),
                Turn::Rests => {}
            }
        }
        Err(until)
    }

    /// Removes and returns a request that waits for a limit.
    pub(crate) fn take_waiting(&mut self, is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        for line in &mut self.lines {
            if let Some(at) = line.waiting().iter().position(|io| is_it(io.slot())) {
                return line.remove(at, self.wanted.account.as_deref());
            }
        }
        None
    }

    /// Takes over new settings.
    pub(crate) fn change(&mut self, wanted: Wanted) {
        let same = match (&self.wanted.account, &wanted.account) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let before = std::mem::replace(&mut self.wanted, wanted).account;
        if !same {
            let now = self.wanted.account.as_deref();
            self.lines.iter_mut().for_each(|line| line.change(before.as_deref(), now));
        }
    }

    /// True if no request waits for limits and no user owes anything.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lines.iter().all(Line::rests)
    }

    /// Requests that wait for limits, of those that `counts` accepts.
    pub(crate) fn waiting_where(&self, counts: &dyn Fn(&Slot) -> bool) -> usize {
        self.lines.iter().flat_map(Line::waiting).filter(|io| counts(io.slot())).count()
    }

    /// Requests that wait for limits.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.waiting().len()).sum()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(account) = &self.wanted.account {
            self.lines.iter_mut().for_each(|line| line.settle(account));
        }
    }
}

/// The line of a user; a new one takes the place of one that rests.
fn line_of(lines: &mut Vec<Line>, user: (u32, bool)) -> &mut Line {
    let known = lines.iter().position(|line| line.user == user);
    let at = known.or_else(|| lines.iter().position(Line::rests)).unwrap_or(lines.len());
    match lines.get_mut(at) {
        Some(line) => line.user = user,
        None => lines.push(Line::of(user)),
    }
    &mut lines[at]
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
