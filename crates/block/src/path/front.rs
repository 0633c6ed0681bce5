//! What may keep a request in front of its lane (the gate, a range that an older write may still reach,
//! limits, a full lane), how the request continues, and how one that is too large is cut.
//!
//! Part of the table's loop, for lanes that have any of these; other requests never come here.

use spindle_reactor::Time;

use crate::path::cutting::{Cutting, Verdict};
use crate::path::cx::Cx;
use crate::path::lanes::Lanes;
use crate::path::lines::Paid;
use crate::path::meter::NOT_ARRIVED;
use crate::request::io::Held;
use crate::{Gate, Io, IoErrorKind, Submit};

impl Lanes {
    /// Handles a request for a lane with a hindrance.
    #[inline(never)]
    pub(crate) fn descend_hindered(&mut self, to: u32, mut io: Io) {
        let state = &mut self.queues.lanes[to as usize];
        let verdict = state.cutting.as_ref().map_or(Verdict::Passes, |cutting| cutting.look(&io));
        if let (Verdict::Cut, Some(cutting)) = (verdict, state.cutting) {
            return self.cut(to, io, cutting);
        }
        state.arrive(&mut io, &mut self.queues.clock);
        if let Verdict::Refused(kind) = verdict {
            return self.refuse_as(io, kind);
        }
        let gate = state.gate;
        match gate {
            Gate::Husk => return self.refuse(io),
            Gate::Frozen if self.queues.passes_gate(&io) => return self.offer_past(to, io),
            Gate::Frozen => {
                self.queues.stall(to, io);
                // A freeze may wait until only requests in front of the lane are left.
                return self.queues.look_at(to);
            }
            Gate::Open => {}
        }
        let Some(io) = self.admit(to, io) else { return };
        let state = &mut self.queues.lanes[to as usize];
        match state.stalled.is_empty() {
            true => {
                if let Submit::Full(io) = self.submit(to, io) {
                    self.queues.stall_first(to, io);
                }
            }
            false => self.queues.stall(to, io),
        }
    }

    /// Queues the pieces of a request for its lane.
    pub(crate) fn cut(&mut self, to: u32, mut io: Io, cutting: Cutting) {
        let (operation, passes) = (io.operation(), self.queues.passes_ranges(&io));
        let slot = io.slot_mut();
        slot.frames[usize::from(slot.depth)].arrived = NOT_ARRIVED;
        let held = std::mem::replace(&mut slot.held, Held::NOWHERE);
        let cx = &mut Cx { queues: &mut self.queues, this: to };
        let mut split = cx.split(io);
        while split.left() > 0 {
            let rest = cx.queues.joins.rest(split.key);
            let count = cutting.piece(operation, split.start(), split.left(), rest).max(1);
            let mut piece = cx.cut(&mut split, count);
            let slot = piece.slot_mut();
            if let Some(bytes) = cutting.run_bytes() {
                cx.queues.joins.cut_runs(slot, bytes);
            }
            slot.place.passes = passes;
            // In the whole's epoch, whose waiters wait for the pieces then.
            slot.held = held;
            cx.queues.lanes[to as usize].epochs.join(held.epoch);
            cx.queues.down.push_back(piece);
        }
        cx.join(split);
        // The whole itself is in no lane until its pieces are back.
        let queues = &mut self.queues;
        queues.lanes[to as usize].epochs.end(held.epoch, &mut queues.wakes);
        queues.look_at(to);
    }

    /// Lets a request pass, or keeps it until ranges and limits allow it.
    fn admit(&mut self, lane: u32, io: Io) -> Option<Io> {
        let passes = self.queues.passes_ranges(&io);
        let state = &mut self.queues.lanes[lane as usize];
        if !passes && state.must_wait_for_range(&io) {
            state.held_back.push(io);
            state.look();
            self.queues.look_at(lane);
            return None;
        }
        let Some(meter) = &mut state.meter else { return Some(io) };
        if meter.wanted.account.is_none() {
            return Some(io);
        }
        let now = self.queues.clock.now();
        match meter.pay(io, now) {
            Paid::Goes(io, until) => {
                if until.is_some() {
                    self.look_again(lane, until);
                }
                Some(io)
            }
            Paid::Waits(until) => {
                if until.is_some() {
                    self.look_again(lane, until);
                }
                self.queues.look_at(lane);
                if until.is_some_and(|until| until <= now) {
                    self.let_paid_go(lane);
                }
                None
            }
        }
    }

    /// Looks at the limits of a lane again when the time has come.
    fn look_again(&mut self, lane: u32, due: Option<Time>) {
        self.queues.wait_until(due);
        if !std::mem::replace(&mut self.queues.lanes[lane as usize].throttled, true) {
            self.queues.throttled.push_back(lane);
        }
    }

    /// Offers a lane, in order, the requests for which it was full or its gate closed.
    pub(crate) fn retry(&mut self, lane: u32) {
        let state = &mut self.queues.lanes[lane as usize];
        state.retrying = false;
        if state.gate != Gate::Open {
            return;
        }
        while let Some(io) = self.queues.lanes[lane as usize].next_stalled() {
            let Some(io) = self.admit(lane, io) else { continue };
            if let Submit::Full(io) = self.submit(lane, io) {
                self.queues.stall_first(lane, io);
                return;
            }
        }
    }

    /// Retries, in order, the requests that waited for a range.
    pub(crate) fn recheck(&mut self, lane: u32) {
        let state = &mut self.queues.lanes[lane as usize];
        if state.gate != Gate::Open {
            return;
        }
        for io in std::mem::take(&mut state.held_back) {
            if let Some(io) = self.admit(lane, io) {
                self.queues.stall(lane, io);
            }
        }
        self.queues.lanes[lane as usize].look();
        self.queues.look_at(lane);
    }

    /// Offers a request to a lane whose gate keeps all others out.
    fn offer_past(&mut self, to: u32, io: Io) {
        if let Submit::Full(io) = self.submit(to, io) {
            // The device is quiet, so no request will end and make room.
            self.refuse_as(io, IoErrorKind::NoMemory);
        }
    }

    /// Releases requests whose limits allow them now, and polls lanes whose alarm is due; true if there was anything.
    pub(crate) fn let_due_go(&mut self) -> bool {
        let Some(deadline) = self.queues.deadline else { return false };
        if self.queues.clock.read_now() < deadline {
            return false;
        }
        self.queues.deadline = None;
        self.queues.rings = true;
        // Lanes that must wait longer are put at the end.
        for _ in 0..self.queues.throttled.len() {
            let Some(lane) = self.queues.throttled.pop_front() else { break };
            self.queues.lanes[lane as usize].throttled = false;
            self.let_paid_go(lane);
        }
        self.ring_alarms();
        self.queues.rings = false;
        true
    }

    /// Polls the lanes whose alarm is due.
    fn ring_alarms(&mut self) {
        let now = self.queues.clock.now();
        // A lane may set the next one meanwhile.
        for _ in 0..self.queues.alarms.len() {
            let Some(lane) = self.queues.alarms.take_due(now) else { break };
            if self.state_of(lane).is_some() {
                self.poll(lane.index);
            }
        }
        let next = self.queues.alarms.next();
        self.queues.wait_until(next);
    }

    /// Releases the requests in front of a lane that limits no longer keep.
    pub(crate) fn let_paid_go(&mut self, lane: u32) {
        loop {
            let now = self.queues.clock.now();
            let state = &mut self.queues.lanes[lane as usize];
            let open = state.gate == Gate::Open;
            let Some(meter) = &mut state.meter else { return };
            if !open || meter.is_at_rest() {
                break;
            }
            match meter.next_paid(now) {
                Ok(io) => {
                    state.stall(io);
                    self.queues.look_at(lane);
                }
                Err(due) => {
                    if due.is_some() {
                        self.look_again(lane, due);
                    }
                    break;
                }
            }
        }
        // Drops the data beside the lane if nothing waits there and the device wants nothing of it.
        self.queues.lanes[lane as usize].drop_idle_meter();
    }
}
