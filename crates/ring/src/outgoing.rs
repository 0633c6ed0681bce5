//! The sending side of one sender: a route to each receiver's port.
//!
//! Owned by the sender, which calls it in turns. Each send glances at the receiver's sleep flag; at the end of
//! the turn one full barrier covers all values that were sent: see [`Sleep`](crate::Sleep).

use crate::Unpark;
use crate::port::{Port, Tagged};
use crate::route::{FLUSH_BUDGET, Place, RETRY, Route};

/// The routes to the other receivers.
pub struct Outgoing<T> {
    /// By receiver; made on first use.
    targets: Vec<Option<Target<T>>>,
    /// Receivers that got values in this turn and did not seem asleep: checked once more in `wake_receivers`.
    unsettled: Vec<usize>,
    /// The sender's turn, by number.
    turn: u32,
    /// True if values wait for room.
    overflowing: bool,
}

/// One other receiver.
struct Target<T> {
    route: Route<T>,
    /// True if it is in `unsettled`.
    unsettled: bool,
}

impl<T: Send> Outgoing<T> {
    /// Without routes yet, for `receivers` receivers.
    pub fn new(receivers: usize) -> Outgoing<T> {
        let targets = (0..receivers).map(|_| None).collect();
        // Capacity for all of them, so that no send allocates.
        Outgoing { targets, unsettled: Vec::with_capacity(receivers), turn: 0, overflowing: false }
    }

    /// Sends a value to the port number `to`, after all earlier values of the same flow. Flows are numbered
    /// from 0, without large gaps; `tag` has 63 bits. The value is made in its slot, which avoids moving it:
    /// `make` must not panic.
    #[inline(always)]
    pub fn send<N, U: Unpark>(
        &mut self,
        to: usize,
        port: &Port<T, N, U>,
        flow: usize,
        tag: u64,
        make: impl FnOnce() -> T,
    ) {
        match self.place(to, port, flow) {
            Place::Express(slot) => {
                slot.fill(tag, make());
            }
            Place::Bulk(slot, last) => *last = Some(slot.fill(tag, make())),
            Place::Waits(waiting) => {
                let waiting = waiting.push(flow, Tagged { tag, value: make() });
                self.waits(to, waiting);
            }
        }
        self.left(to, port);
    }

    #[inline(never)]
    fn place<N, U: Unpark>(&mut self, to: usize, port: &Port<T, N, U>, flow: usize) -> Place<'_, T> {
        let target = self.targets[to]
            .get_or_insert_with(|| Target { route: Route::new(port.connect()), unsettled: false });
        target.route.place(self.turn, flow)
    }

    /// Notes how many values wait in one flow.
    #[inline(never)]
    fn waits(&mut self, to: usize, waiting: usize) {
        self.overflowing = true;
        // A long flood uses the room that the receiver has made meanwhile.
        if waiting.is_multiple_of(RETRY)
            && let Some(target) = &mut self.targets[to]
        {
            target.route.flush(RETRY);
        }
    }

    /// Notes that a value was sent.
    #[inline]
    fn left<N, U: Unpark>(&mut self, to: usize, port: &Port<T, N, U>) {
        // A full barrier per value would cost more than the value. One at the end of the turn serves all;
        // until then only a receiver that is just falling asleep is missed.
        if port.seems_asleep() {
            port.wake();
        } else if let Some(target) = &mut self.targets[to]
            && !std::mem::replace(&mut target.unsettled, true)
        {
            self.unsettled.push(to);
        }
    }

    /// Makes sure that no receiver sleeps although it got a value. Call it at the end of a turn, and before
    /// any sleep.
    pub fn wake_receivers<N, U: Unpark>(&mut self, ports: &[impl AsRef<Port<T, N, U>>]) {
        self.turn = self.turn.wrapping_add(1);
        for to in self.unsettled.drain(..) {
            self.targets[to].iter_mut().for_each(|target| target.unsettled = false);
            ports[to].as_ref().wake();
        }
    }

    /// Moves some of the waiting values into the rings, once a turn; true if some are left.
    pub fn flush<N, U: Unpark>(&mut self, ports: &[impl AsRef<Port<T, N, U>>]) -> bool {
        if !self.overflowing {
            return false;
        }
        self.overflowing = false;
        for (target, port) in self.targets.iter_mut().zip(ports) {
            let Some(target) = target.as_mut().filter(|target| target.route.is_waiting()) else { continue };
            self.overflowing |= !target.route.flush(FLUSH_BUDGET);
            port.as_ref().wake();
        }
        self.overflowing
    }
}
