//! The way from one reactor to another: an express ring, a bulk ring, and what neither had room for.
//!
//! Owned by the sending reactor. Nothing is refused, and nothing overtakes what goes to the same thread. Whom
//! a thread floods gets the rest in bulk, and in bulk those who wait take turns: who floods one thread holds
//! up nobody who sends to another.

use std::collections::VecDeque;

use spindle_ring::express::Ticket;

use crate::port::{Envelope, RingOut};

/// Messages to one thread in one turn of the sender that go by express. A thread that answers sends few; who
/// sends more can as well wait its turn.
const EXPRESS_SHARE: u32 = 2;

/// Who waits for room in bulk tries again after so many messages more.
const RETRY: usize = 64;

/// What waits for one thread gets so many places in bulk before it is the next one's turn.
const QUANTUM: usize = 8;

/// The way to one other reactor.
pub(crate) struct Route {
    rings: RingOut,
    /// By the place of the thread that the messages go to.
    flows: Vec<Flow>,
    /// The places of those with something waiting, in the order of their turns.
    turns: VecDeque<usize>,
}

/// The messages to one thread.
#[derive(Default)]
struct Flow {
    /// Those that no ring had room for. Kept for its room.
    waiting: VecDeque<Envelope>,
    /// The last one in bulk, unless that was seen taken: until then the next ones stay behind it.
    in_bulk: Option<Ticket>,
    /// How many were sent in which turn.
    sent: u32,
    turn: u32,
}

impl Route {
    /// Over rings that were just made.
    pub(crate) fn new(rings: RingOut) -> Route {
        Route { rings, flows: Vec::new(), turns: VecDeque::new() }
    }

    /// Sends a message behind all that went to its thread before it, in turn number `turn` of the sender;
    /// false if it waits for room.
    #[inline]
    pub(crate) fn send(&mut self, turn: u32, envelope: Envelope) -> bool {
        let place = envelope.to.slot as usize;
        if place >= self.flows.len() {
            self.flows.resize_with(place + 1, Flow::default);
        }
        let flow = &mut self.flows[place];
        match flow.push(&mut self.rings, turn, envelope) {
            Ok(()) => true,
            Err(envelope) => self.wait(place, envelope),
        }
    }

    /// Has a message wait for room; false if it still does.
    fn wait(&mut self, place: usize, envelope: Envelope) -> bool {
        let waiting = &mut self.flows[place].waiting;
        if waiting.is_empty() {
            self.turns.push_back(place);
        }
        waiting.push_back(envelope);
        // A long flood goes on into the room that the receiver has made meanwhile.
        waiting.len().is_multiple_of(RETRY) && self.flush()
    }

    /// Whether something waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Moves what waits into bulk, until that is full; true if nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(place) = self.turns.pop_front() {
            let flow = &mut self.flows[place];
            let is_full = flow.flush(&mut self.rings);
            if !flow.waiting.is_empty() {
                self.turns.push_back(place);
            }
            if is_full {
                return false;
            }
        }
        true
    }
}

impl Flow {
    /// Puts a message into the ring that it belongs to, or gives it back if it has to wait.
    #[inline]
    fn push(&mut self, rings: &mut RingOut, turn: u32, envelope: Envelope) -> Result<(), Envelope> {
        if self.turn != turn {
            (self.turn, self.sent) = (turn, 0);
            self.in_bulk = self.in_bulk.filter(|last| !rings.has_taken(*last));
        }
        self.sent += 1;
        if !self.waiting.is_empty() {
            return Err(envelope);
        }
        let envelope = match self.in_bulk {
            None if self.sent <= EXPRESS_SHARE => match rings.push_express(envelope) {
                Ok(()) => return Ok(()),
                Err(envelope) => envelope,
            },
            _ => envelope,
        };
        self.in_bulk = Some(rings.push_bulk(envelope)?);
        Ok(())
    }

    /// Moves its share of what waits into bulk; true if that is full.
    fn flush(&mut self, rings: &mut RingOut) -> bool {
        for _ in 0..QUANTUM {
            let Some(envelope) = self.waiting.pop_front() else { return false };
            match rings.push_bulk(envelope) {
                Ok(ticket) => self.in_bulk = Some(ticket),
                Err(envelope) => {
                    self.waiting.push_front(envelope);
                    return true;
                }
            }
        }
        false
    }
}
