//! What one reactor sends to the others: a ring to each, and what a full ring had no room for.
//!
//! Owned by the sending reactor. Nothing is refused, and nothing overtakes what goes to the same thread. What
//! waits takes turns by the thread it goes to: who floods one thread holds up nobody who sends to another.

use std::collections::VecDeque;

use crate::port::{Envelope, Port, RingOut};

/// A sender whose ring was full tries again after so many messages.
const OVERFLOW_BATCH: usize = 64;

/// What waits for one thread gets so many places in the ring before it is the next one's turn.
const QUANTUM: usize = 8;

/// The rings to the other reactors.
pub(crate) struct Outgoing {
    /// By target reactor; made when first used.
    rings: Vec<Option<Route>>,
    /// Targets that got messages in this turn and did not seem asleep: to be looked at once more.
    unsettled: Vec<usize>,
    /// Some ring was full.
    overflowing: bool,
}

/// What waits for room in one ring.
#[derive(Default)]
struct Overflow {
    /// By the place of the thread it goes to. Kept for their room.
    queues: Vec<VecDeque<Envelope>>,
    /// The places whose queues are not empty, in the order of their turns.
    turns: VecDeque<usize>,
}

impl Overflow {
    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether something waits that goes to the same thread.
    #[inline]
    fn holds_up(&self, envelope: &Envelope) -> bool {
        self.queues.get(envelope.to.slot as usize).is_some_and(|queue| !queue.is_empty())
    }

    /// Puts a message behind those that go to the same thread; returns how many these are now.
    fn put(&mut self, envelope: Envelope) -> usize {
        let place = envelope.to.slot as usize;
        if self.queues.len() <= place {
            self.queues.resize_with(place + 1, VecDeque::new);
        }
        let queue = &mut self.queues[place];
        if queue.is_empty() {
            self.turns.push_back(place);
        }
        queue.push_back(envelope);
        queue.len()
    }

    /// Moves what waits into the ring, until that is full.
    fn flush(&mut self, ring: &mut RingOut) {
        while let Some(place) = self.turns.pop_front() {
            let queue = &mut self.queues[place];
            let mut full = false;
            for _ in 0..QUANTUM {
                let Some(envelope) = queue.pop_front() else { break };
                if let Err(envelope) = ring.push(envelope) {
                    queue.push_front(envelope);
                    full = true;
                    break;
                }
            }
            if !queue.is_empty() {
                self.turns.push_back(place);
            }
            if full {
                return;
            }
        }
    }
}

/// The way to one other reactor.
struct Route {
    ring: RingOut,
    overflow: Overflow,
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
            overflow: Overflow::default(),
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
    /// Puts a message behind all that went to its thread before it; false if something waits for room.
    #[inline]
    fn push(&mut self, envelope: Envelope) -> bool {
        if !self.overflow.is_empty() && self.overflow.holds_up(&envelope) {
            // A long flood goes on into the room that the receiver has made meanwhile.
            let waiting = self.overflow.put(envelope);
            return waiting.is_multiple_of(OVERFLOW_BATCH) && self.flush();
        }
        match self.ring.push(envelope) {
            Ok(()) => true,
            Err(envelope) => {
                self.overflow.put(envelope);
                false
            }
        }
    }

    /// Moves what waits into the ring; true if nothing is left.
    fn flush(&mut self) -> bool {
        self.overflow.flush(&mut self.ring);
        self.overflow.is_empty()
    }
}
