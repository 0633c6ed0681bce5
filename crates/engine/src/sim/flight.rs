//! Operations under way in a world: each takes effect at one seeded moment and completes at a later one, so
//! that concurrent operations overtake each other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use slab::Slab;

use super::disk::InCache;
use super::storage::Effects;
use super::world::Inner;
use crate::{Completion, Op, Output, Time, Token};

/// One operation under way.
pub(super) struct Flight {
    /// Never reused, unlike the key: a left-over event of a cancelled operation is recognised.
    serial: u64,
    core: usize,
    pub(super) token: Token,
    pub(super) op: Op,
    /// Set when it has taken effect.
    result: Option<io::Result<Output>>,
    /// True if it waits to be handed out.
    ready: bool,
    /// True for a quiet send that nothing waits for.
    quiet: bool,
    /// A write to acknowledge when the submitter is told.
    pub(super) in_cache: Option<InCache>,
    /// Data that an operation keeps from its submission.
    pub(super) effects: Effects,
    /// Bytes of a send that the peer's buffer has taken.
    pub(super) sent: usize,
}

/// The next event of a flight: time, a seeded tie-breaker, serial number, key.
type Due = Reverse<(Time, u64, u64, usize)>;

/// All operations under way, and their next events. Warm, it allocates nothing.
#[derive(Default)]
pub(super) struct Flights {
    slots: Slab<Flight>,
    due: BinaryHeap<Due>,
    next_serial: u64,
}

impl Flights {
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }
}

impl Inner {
    /// A seeded delay: usually some microseconds, sometimes none, sometimes long.
    fn delay(&mut self) -> u64 {
        match self.rng.below(16) {
            0..=2 => 0,
            15 => self.rng.below(2_000_000) as u64,
            _ => self.rng.below(20_000) as u64,
        }
    }

    fn schedule(&mut self, key: usize, delay: u64) {
        let at = Time(self.clock.as_nanos() + delay);
        let serial = self.flights.slots[key].serial;
        let tie = self.rng.next_u64();
        self.flights.due.push(Reverse((at, tie, serial, key)));
    }

    /// Schedules operations again whose wait may be over.
    pub(super) fn retry_woken(&mut self) {
        let mut woken = std::mem::take(&mut self.woken);
        // A woken one may have been removed since.
        for key in woken.drain(..) {
            if self.flights.slots.contains(key) {
                let delay = self.delay();
                self.schedule(key, delay);
            }
        }
        self.woken = woken;
    }

    pub(super) fn submit(&mut self, core: usize, token: Token, op: Op, refused: Option<io::Error>) {
        let entered = self.enter(core);
        entered.in_flight += 1;
        // All may be ready at once: the room is reserved here, so that it depends on the depth alone.
        entered.ready.reserve(entered.in_flight - entered.ready.len());
        self.trace.add((core, token.0));
        self.trace.add(op.name());
        self.trace.add(extent(&op));
        let effects = self.storage.at_submission(&op);
        let serial = self.flights.next_serial;
        self.flights.next_serial += 1;
        let result = refused.map(Err);
        let quiet = matches!(op, Op::SendQuietly { .. });
        let flight =
            Flight { serial, core, token, op, result, ready: false, quiet, in_cache: None, effects, sent: 0 };
        let key = self.flights.slots.insert(flight);
        let flight = &self.flights.slots[key];
        if flight.result.is_none() {
            self.net.at_submission(key, &flight.op);
        }
        let delay = self.delay();
        self.schedule(key, delay);
    }

    /// Handles every event that is due.
    pub(super) fn complete_due(&mut self) {
        while let Some(Reverse((at, _, serial, key))) = self.flights.due.peek().copied()
            && at <= self.clock
        {
            self.flights.due.pop();
            let Some(flight) = self.flights.slots.get_mut(key).filter(|f| f.serial == serial) else {
                continue;
            };
            if let Some(result) = &flight.result {
                let core = flight.core;
                let is_quiet = flight.quiet && result.is_ok();
                if let Some(core) = self.cores.get_mut(&core)
                    && !std::mem::replace(&mut flight.ready, true)
                {
                    let list = if is_quiet { &mut core.quiet } else { &mut core.ready };
                    list.push(key);
                }
            } else if let Some(result) = self.take_effect(key) {
                self.flights.slots[key].result = self.tell_of_more(key, result);
                let delay = self.delay();
                self.schedule(key, delay);
            }
        }
    }

    /// Hands out a result that is not the last; returns the last one, if the operation does not go on.
    fn tell_of_more(&mut self, key: usize, result: io::Result<Output>) -> Option<io::Result<Output>> {
        let Flight { core, token, op, .. } = &self.flights.slots[key];
        let comes_back_later = matches!(op, Op::SendZeroCopy { .. });
        match result {
            Ok(output) if comes_back_later || (op.goes_on() && !output.is_end()) => {
                self.trace.add((token.0, output.bytes() as u64));
                let core = self.cores.get_mut(core).expect("a core with operations lives");
                core.came.push(Completion::one_of_many(*token, output));
                comes_back_later.then_some(Ok(Output::Done))
            }
            last => Some(last),
        }
    }

    /// Performs the operation; returns its result, or none if it must wait on.
    fn take_effect(&mut self, key: usize) -> Option<io::Result<Output>> {
        let flight = &mut self.flights.slots[key];
        match &flight.op {
            Op::Open { .. }
            | Op::Inspect { .. }
            | Op::Read { .. }
            | Op::Write { .. }
            | Op::Flush { .. }
            | Op::Seek { .. }
            | Op::ZeroRange { .. }
            | Op::Discard { .. } => Some(self.storage.perform(flight, &self.maker)),
            Op::UnderWay => Some(Ok(Output::Done)),
            Op::Poll { .. } | Op::PollMany { .. } => Some(Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a foreign descriptor follows no seed: it cannot be waited for in simulation",
            ))),
            _ => {
                let result = self.net.perform(key, flight, &self.maker, &mut self.rng, &mut self.woken);
                self.retry_woken();
                result
            }
        }
    }

    pub(super) fn cancel(&mut self, core: usize, token: Token) {
        self.enter(core);
        self.trace.add(("cancel", token.0));
        self.hurry(core, token);
        let waits = |f: &Flight| f.core == core && f.token == token && f.result.is_none();
        let found: Vec<usize> = self.flights.slots.iter().filter(|(_, f)| waits(f)).map(|(k, _)| k).collect();
        for key in found {
            // A write or flush that reached the disk cannot be cancelled, as with a real one.
            if !matches!(self.flights.slots[key].op, Op::Write { .. } | Op::Flush { .. }) {
                self.net.forget(key, &mut self.woken);
                self.flights.slots[key].result = Some(Err(interrupted()));
                self.schedule(key, 0);
            }
        }
        self.retry_woken();
    }

    /// See [`Driver::hurry`](crate::Driver::hurry).
    pub(super) fn hurry(&mut self, core: usize, token: Token) {
        self.enter(core);
        let entered = self.cores.get_mut(&core).expect("just entered");
        let is_it = |flight: &Flight| flight.core == core && flight.token == token;
        for (key, flight) in self.flights.slots.iter_mut().filter(|(_, flight)| is_it(flight)) {
            flight.quiet = false;
            if let Some(place) = entered.quiet.iter().position(|quiet| *quiet == key) {
                entered.ready.push(entered.quiet.swap_remove(place));
            }
        }
    }

    /// Hands out finished operations of a core, in a seeded order, sometimes not all of them.
    pub(super) fn reap(&mut self, core: usize, out: &mut Vec<Completion>) {
        self.enter(core);
        self.look();
        self.complete_due();
        let entered = self.cores.get_mut(&core).expect("entered above");
        entered.ready.append(&mut entered.quiet);
        out.append(&mut entered.came);
        loop {
            let ready = &mut self.cores.get_mut(&core).expect("entered above").ready;
            if ready.is_empty() {
                return;
            }
            let key = ready.swap_remove(self.rng.below(ready.len()));
            let completion = self.land(key);
            out.push(completion);
            if self.rng.below(8) == 0 {
                return;
            }
        }
    }

    fn land(&mut self, key: usize) -> Completion {
        let mut flight = self.flights.slots.remove(key);
        let core = self.cores.get_mut(&flight.core).expect("a core with operations ready lives");
        core.in_flight -= 1;
        let result = flight.result.take().expect("only finished operations are ready");
        self.storage.acknowledge(&flight);
        let word = match &result {
            Ok(output) => output.bytes() as u64,
            Err(error) => !(error.kind() as u64),
        };
        self.trace.add((flight.token.0, word));
        Completion { token: flight.token, result, op: flight.op, more: false }
    }

    /// Removes the operations of a core whose driver was dropped.
    pub(super) fn abandon(&mut self, core: usize) {
        let of_core = |(key, flight): (usize, &Flight)| (flight.core == core).then_some(key);
        let keys: Vec<usize> = self.flights.slots.iter().filter_map(of_core).collect();
        for key in keys {
            self.net.forget(key, &mut self.woken);
            self.flights.slots.remove(key);
        }
        self.retry_woken();
        self.cores.remove(&core);
    }

    pub(super) fn in_flight(&self, core: usize) -> usize {
        self.cores.get(&core).map_or(0, |core| core.in_flight)
    }
}

/// Where in the file and how much: for the trace.
fn extent(op: &Op) -> (u64, u64) {
    match op {
        Op::Read { offset, buffers, .. } | Op::Write { offset, buffers, .. } => {
            (*offset, buffers.len() as u64)
        }
        Op::ZeroRange { offset, length, .. } | Op::Discard { offset, length, .. } => (*offset, *length),
        Op::Recv { buffers, .. }
        | Op::Send { buffers, .. }
        | Op::SendQuietly { buffers, .. }
        | Op::SendZeroCopy { buffers, .. } => (0, buffers.len() as u64),
        _ => (0, 0),
    }
}

fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "cancelled")
}
