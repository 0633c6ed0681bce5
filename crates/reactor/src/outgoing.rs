//! What one reactor sends to the others: a ring to each, and what a full ring had no room for, in order.
//!
//! Owned by the sending reactor. Nothing is refused and nothing overtakes.

use std::collections::VecDeque;

use crate::port::{Envelope, Port, RingOut};

/// A sender whose ring was full tries again after so many messages.
const OVERFLOW_BATCH: usize = 64;

/// The rings to the other reactors.
pub(crate) struct Outgoing {
    /// By target reactor; made when first used.
    rings: Vec<Option<Route>>,
    /// Targets that got messages in this turn and did not seem asleep: to be looked at once more.
    unsettled: Vec<usize>,
    /// Some ring was full.
    overflowing: bool,
}

/// The way to one other reactor.
struct Route {
    ring: RingOut,
    overflow: VecDeque<Envelope>,
    /// It is among the unsettled.
    unsettled: bool,
}

impl Outgoing {
    /// No rings yet, to `reactors` reactors.
    pub(crate) fn new(reactors: usize) -> Outgoing {
        let rings = (0..reactors).map(|_| None).collect();
        // Room for all of them, so that no message allocates.
        Outgoing { rings, unsettled: Vec::with_capacity(reactors), overflowing: false }
    }

    /// Leaves a message for a thread of another reactor.
    pub(crate) fn send(&mut self, ports: &[Port], reactor: usize, envelope: Envelope) {
        let port = &ports[reactor];
        let route = self.rings[reactor].get_or_insert_with(|| Route {
            ring: port.connect(),
            overflow: VecDeque::new(),
            unsettled: false,
        });
        if !route.push(envelope) {
            self.overflowing = true;
        }
        // A full barrier for each message would cost more than the message: one at the end of the turn
        // serves all, and until then only a reactor that is just falling asleep is overlooked.
        if port.sleep.seems_asleep() {
            port.wake();
        } else if !std::mem::replace(&mut route.unsettled, true) {
            self.unsettled.push(reactor);
        }
    }

    /// Makes sure that no reactor sleeps over what was sent to it. To be called at the end of a turn, and
    /// before any sleep.
    pub(crate) fn settle(&mut self, ports: &[Port]) {
        for reactor in self.unsettled.drain(..) {
            self.rings[reactor].iter_mut().for_each(|route| route.unsettled = false);
            ports[reactor].wake();
        }
    }

    /// Moves what waits for room into the rings; true if something is left.
    pub(crate) fn flush(&mut self, ports: &[Port]) -> bool {
        if !self.overflowing {
            return false;
        }
        self.overflowing = false;
        for (route, port) in self.rings.iter_mut().zip(ports) {
            let Some(route) = route.as_mut().filter(|route| !route.overflow.is_empty()) else { continue };
            self.overflowing |= !route.flush();
            port.wake();
        }
        self.overflowing
    }
}

impl Route {
    /// Puts a message behind all that went before it; false if it waits for room.
    #[inline]
    fn push(&mut self, envelope: Envelope) -> bool {
        if self.overflow.is_empty() {
            match self.ring.push(envelope) {
                Ok(()) => return true,
                Err(envelope) => self.overflow.push_back(envelope),
            }
        } else {
            self.overflow.push_back(envelope);
            // A long flood goes on into the room that the receiver has made meanwhile.
            if self.overflow.len().is_multiple_of(OVERFLOW_BATCH) {
                return self.flush();
            }
        }
        false
    }

    /// Moves what waits into the ring; true if nothing is left.
    fn flush(&mut self) -> bool {
        while let Some(envelope) = self.overflow.pop_front() {
            if let Err(envelope) = self.ring.push(envelope) {
                self.overflow.push_front(envelope);
                return false;
            }
        }
        true
    }
}
