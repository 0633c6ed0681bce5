//! Delivers a device's events to its lanes on this thread: first to the gate, then to the lane, then to lanes
//! above whose shape follows.

use crate::path::lanes::Lanes;
use crate::state::mailbox::{Body, Letter, Obligation};
use crate::{Gate, LaneEvent, LaneId};

impl Lanes {
    /// Handles events that came from other threads.
    pub(crate) fn take_mail(&mut self) {
        if self.mailbox.has_mail() {
            for letter in self.mailbox.take() {
                self.deliver(letter);
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { lane, generation, body, obligation } = letter;
        if self.state_of(LaneId::new(lane, generation)).is_none() {
            // The lane has closed: dropping the letter meets its obligation.
            return self.queues.met.extend(obligation);
        }
        match body {
            Body::Event(event) => return self.deliver_event(lane, &event, obligation),
            Body::Wanted => self.follow_wanted(lane),
            Body::Reset(what) => {
                let counters = self.queues.lanes[lane as usize].counters();
                counters.into_iter().for_each(|counters| counters.reset(what));
            }
            Body::Recheck => self.recheck(lane),
            Body::Settle => {
                self.queues.lanes[lane as usize].settle(obligation);
                return self.queues.look_at(lane);
            }
            Body::Notify => {
                self.poll(lane);
            }
        }
        self.queues.met.extend(obligation);
    }

    fn deliver_event(&mut self, lane: u32, event: &LaneEvent, obligation: Option<Obligation>) {
        match event {
            LaneEvent::Resized => {
                self.look_at_shape(lane);
            }
            LaneEvent::Removed | LaneEvent::Freeze | LaneEvent::Thaw => self.turn_gate(lane),
            LaneEvent::Reset | LaneEvent::Module(_) => {}
        }
        self.tell(lane, event);
        match event {
            // The sender waits for the requests that are in the lane.
            LaneEvent::Freeze | LaneEvent::Removed => {
                self.queues.lanes[lane as usize].quiet.extend(obligation);
                self.queues.lanes[lane as usize].look();
                self.queues.look_at(lane);
                if self.queues.lanes[lane as usize].is_emptying() {
                    self.queues.begin_to_empty(lane);
                }
            }
            LaneEvent::Resized => {
                self.resize_above(lane);
                self.queues.met.extend(obligation);
            }
            LaneEvent::Thaw | LaneEvent::Reset | LaneEvent::Module(_) => self.queues.met.extend(obligation),
        }
    }

    /// Adapts the data beside a lane to what its device wants now.
    fn follow_wanted(&mut self, lane: u32) {
        self.queues.lanes[lane as usize].follow_wanted();
        self.let_paid_go(lane);
    }

    /// Updates lanes above whose devices follow the size of this one.
    fn resize_above(&mut self, lane: u32) {
        for upper in self.uppers(lane) {
            if self.look_at_shape(upper) {
                self.tell(upper, &LaneEvent::Resized);
                self.resize_above(upper);
            }
        }
    }

    /// Renews the copy of a lane's geometry; true if it changed.
    fn look_at_shape(&mut self, lane: u32) -> bool {
        let state = &self.queues.lanes[lane as usize];
        match (&state.device, &state.shape) {
            (Some(device), Some(shape)) => {
                let now = device.geometry();
                shape.replace(now) != now
            }
            // No copy exists outside the lane.
            _ => true,
        }
    }

    fn tell(&mut self, lane: u32, event: &LaneEvent) {
        self.call(lane, |lane, cx| lane.event(event, cx));
    }

    /// Sets a lane's gate to that of its device.
    fn turn_gate(&mut self, lane: u32) {
        let gate = self.device_gate(lane);
        let state = &mut self.queues.lanes[lane as usize];
        state.gate = gate;
        state.look();
        match gate {
            Gate::Open => {
                self.queues.look_at(lane);
                self.recheck(lane);
                self.let_paid_go(lane);
            }
            Gate::Frozen => {}
            Gate::Husk => {
                for io in state.take_all_waiting() {
                    self.refuse(io);
                }
                self.queues.look_at_limits();
            }
        }
    }
}
