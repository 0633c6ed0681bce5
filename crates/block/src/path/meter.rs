//! What a lane table does for a lane beside passing requests to it: counting, timing, limits.
//!
//! Boxed, and allocated only while the device wants one of these: other lanes pay nothing.

use std::collections::VecDeque;

use spindle_reactor::Time;

use crate::request::io::Slot;
use crate::state::limits::Account;
use crate::state::wanted::Wanted;
use crate::{Io, Operation};

/// Requests of one kind that wait for a limit.
#[derive(Default)]
struct Line {
    /// First in, first out.
    waiting: VecDeque<Io>,
    /// When the first of them may go; already charged to the account.
    due: Option<Time>,
}

/// Counting, timing and limits of one lane.
pub(crate) struct Meter {
    pub(crate) wanted: Wanted,
    /// Bytes in a block of the device, as a shift.
    block_shift: u32,
    /// Reads and writes, which may have separate limits.
    lines: [Line; 2],
}

/// The line in which an operation waits.
fn line_of(operation: Operation) -> usize {
    usize::from(operation == Operation::Write)
}

impl Meter {
    pub(crate) fn new(wanted: Wanted, block_shift: u32) -> Meter {
        Meter { wanted, block_shift, lines: Default::default() }
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

    /// Charges a request to the limits and returns it if it may go. Otherwise it is queued; the error is the
    /// time at which it may go, if it is the first in its line.
    pub(crate) fn pay(&mut self, mut io: Io, now: Time) -> Result<Io, Option<Time>> {
        let slot = io.slot_mut();
        let paid = slot.paid == slot.depth;
        let Some(account) = &self.wanted.account else { return Ok(io) };
        if paid || !Account::limits_operation(slot.operation) {
            return Ok(io);
        }
        let (operation, bytes) = (slot.operation, slot.count << self.block_shift);
        let line = &mut self.lines[line_of(operation)];
        if line.waiting.is_empty() {
            let due = account.reserve(operation, bytes, now);
            if due <= now {
                slot.paid = slot.depth;
                return Ok(io);
            }
            line.due = Some(due);
        }
        line.waiting.push_back(io);
        Err(line.due)
    }

    /// The next request whose time has come; otherwise the time of the first that waits, if any.
    pub(crate) fn next_paid(&mut self, now: Time) -> Result<Io, Option<Time>> {
        let mut until: Option<Time> = None;
        for line in &mut self.lines {
            let Some(first) = line.waiting.front() else { continue };
            if let Some(account) = &self.wanted.account {
                let (operation, bytes) = (first.operation(), first.count() << self.block_shift);
                let due = *line.due.get_or_insert_with(|| account.reserve(operation, bytes, now));
                if due > now {
                    until = Some(until.map_or(due, |other| other.min(due)));
                    continue;
                }
            }
            line.due = None;
            if let Some(mut io) = line.waiting.pop_front() {
                let slot = io.slot_mut();
                slot.paid = slot.depth;
                return Ok(io);
            }
        }
        Err(until)
    }

    /// Removes and returns a request that waits for a limit.
    pub(crate) fn take_waiting(&mut self, is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        for line in &mut self.lines {
            let Some(at) = line.waiting.iter().position(|io| is_it(io.slot())) else { continue };
            let io = line.waiting.remove(at)?;
            if at == 0
                && line.due.take().is_some()
                && let Some(account) = &self.wanted.account
            {
                account.refund(io.operation(), io.count() << self.block_shift);
            }
            return Some(io);
        }
        None
    }

    /// Takes over new settings: the first request of each line is charged anew.
    pub(crate) fn change(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.lines.iter_mut().for_each(|line| line.due = None);
    }

    /// Requests that wait for limits, of those that `counts` accepts.
    pub(crate) fn waiting_where(&self, counts: &dyn Fn(&Slot) -> bool) -> usize {
        self.lines.iter().flat_map(|line| &line.waiting).filter(|io| counts(io.slot())).count()
    }

    /// Requests that wait for limits.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len()).sum()
    }
}

/// Stands in a request's slot for the time at which it came to a lane that made it.
pub(crate) const NOT_ARRIVED: Time = Time(u64::MAX);

/// Stands in a request's slot for a lane that it has not paid at: deeper than any.
pub(crate) const NOT_PAID: u8 = u8::MAX;
