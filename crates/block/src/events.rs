//! How the events of a device come to its lanes on this thread: the gate first, then the lane, then the lanes
//! above whose shape follows.

use crate::lanes::Lanes;
use crate::mailbox::{Letter, Mailbox, Obligation};
use crate::{Gate, LaneEvent, LaneId};

impl Lanes {
    /// Sees to the events that have come from other threads.
    pub(crate) fn take_mail(&mut self, mailbox: &Mailbox) {
        if mailbox.has_mail() {
            for letter in mailbox.take() {
                self.deliver(letter);
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { lane, generation, event, obligation } = letter;
        if self.state_of(LaneId::new(lane, generation)).is_none() {
            // Closed since: there is nobody to tell.
            return self.queues.met.push(obligation);
        }
        match event {
            LaneEvent::Resized => return self.deliver_resize(lane, obligation),
            LaneEvent::Removed | LaneEvent::Freeze | LaneEvent::Thaw => self.turn_gate(lane),
            LaneEvent::Module(_) => {}
        }
        self.tell(lane, &event);
        match event {
            // Who freezes or removes waits for what is in the lane.
            LaneEvent::Freeze | LaneEvent::Removed => {
                self.queues.lanes[lane as usize].quiet.push(obligation);
                self.queues.look_at(lane);
            }
            _ => self.queues.met.push(obligation),
        }
    }

    fn deliver_resize(&mut self, lane: u32, obligation: Obligation) {
        self.look_at_shape(lane);
        self.tell(lane, &LaneEvent::Resized);
        self.resize_above(lane);
        self.queues.met.push(obligation);
    }

    /// Lanes above whose devices follow the size of what they lie on.
    fn resize_above(&mut self, lane: u32) {
        for upper in self.uppers(lane) {
            if self.look_at_shape(upper) {
                self.tell(upper, &LaneEvent::Resized);
                self.resize_above(upper);
            }
        }
    }

    /// Renews the copy of a lane's geometry; whether it was another.
    fn look_at_shape(&mut self, lane: u32) -> bool {
        let state = &self.queues.lanes[lane as usize];
        match (&state.device, &state.shape) {
            (Some(device), Some(shape)) => {
                let now = device.geometry();
                shape.replace(now) != now
            }
            // Nobody has a copy but, perhaps, the lane.
            _ => true,
        }
    }

    fn tell(&mut self, lane: u32, event: &LaneEvent) {
        self.call(lane, |lane, cx| lane.event(event, cx));
    }

    /// Has a lane's gate follow that of its device.
    fn turn_gate(&mut self, lane: u32) {
        let gate = self.device_gate(lane);
        let state = &mut self.queues.lanes[lane as usize];
        state.gate = gate;
        match gate {
            Gate::Open => self.queues.look_at(lane),
            Gate::Frozen => {}
            Gate::Husk => {
                for io in std::mem::take(&mut state.stalled) {
                    self.refuse(io);
                }
            }
        }
    }
}
