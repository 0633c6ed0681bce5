//! The way from one sender to one receiver: an express ring, a bulk ring, and a queue for values without
//! room.
//!
//! Owned by the sender. Values belong to flows. Nothing is refused, and nothing overtakes earlier values of
//! its flow. A flow that floods is moved to bulk, where flows take turns: a flood in one flow does not delay
//! other flows.

use crate::express::{BulkSlot, Sender, Ticket};
use crate::lines::Lines;
use crate::port::Tagged;
use crate::spsc::Vacant;

/// Values of one flow that go by express in one turn of the sender. A sender of answers sends few; one that
/// sends more can wait its turn.
const EXPRESS_SHARE: u32 = if cfg!(loom) { 1 } else { 2 };

/// While values wait for room in bulk, it is tried again after this many more.
pub(crate) const RETRY: usize = 64;

/// Most waiting values moved into bulk in one turn, in favour of the sender's other work.
pub(crate) const FLUSH_BUDGET: usize = 16;

/// The way to one receiver.
pub(crate) struct Route<T> {
    rings: Sender<T>,
    flows: Vec<Flow>,
    /// Values for which no ring had room, a line for each flow.
    waiting: Lines<Tagged<T>>,
}

/// The state of one flow.
#[derive(Clone, Copy, Default)]
struct Flow {
    /// Its last value in bulk, until that is known to be taken: the next ones must go after it.
    in_bulk: Option<Ticket>,
    /// Number of values sent, and in which turn.
    sent: u32,
    turn: u32,
}

/// The place for a value.
pub(crate) enum Place<'a, T> {
    Express(Vacant<'a, T>),
    /// A bulk slot, and where to note it as the last of its flow.
    Bulk(BulkSlot<'a, T>, &'a mut Option<Ticket>),
    Waits(&'a mut Lines<Tagged<T>>),
}

impl<T: Send> Route<T> {
    /// A route through newly made rings.
    pub(crate) fn new(rings: Sender<T>) -> Route<T> {
        Route { rings, flows: Vec::new(), waiting: Lines::new() }
    }

    /// The place for the next value of a flow, after all its earlier ones, in turn number `turn` of the
    /// sender.
    pub(crate) fn place(&mut self, turn: u32, number: usize) -> Place<'_, T> {
        if number >= self.flows.len() {
            self.flows.resize(number + 1, Flow::default());
        }
        let flow = &mut self.flows[number];
        let may_go_by_express = flow.count(turn, &mut self.rings);
        if self.waiting.has(number) {
            return Place::Waits(&mut self.waiting);
        }
        // Asked twice, because the borrow of a slot cannot be exchanged for another.
        if may_go_by_express && self.rings.express().is_some() {
            return self.rings.express().map_or(Place::Waits(&mut self.waiting), Place::Express);
        }
        match self.rings.bulk() {
            Some(slot) => Place::Bulk(slot, &mut flow.in_bulk),
            None => Place::Waits(&mut self.waiting),
        }
    }

    /// True if a value waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.len() > 0
    }

    /// Moves up to `budget` waiting values into bulk, until it is full; true if nothing is left. Without a
    /// budget this would go on for as long as the receiver keeps pace.
    pub(crate) fn flush(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            if !self.is_waiting() {
                break;
            }
            let Some(slot) = self.rings.bulk() else { break };
            let Some((number, Tagged { tag, value })) = self.waiting.pop() else { break };
            self.flows[number].in_bulk = Some(slot.fill(tag, value));
        }
        !self.is_waiting()
    }
}

impl Flow {
    /// Counts a value; true if it may go by express, provided that nothing waits before it.
    #[inline]
    fn count<T: Send>(&mut self, turn: u32, rings: &mut Sender<T>) -> bool {
        if self.turn != turn {
            (self.turn, self.sent) = (turn, 0);
            self.in_bulk = self.in_bulk.filter(|last| !rings.has_taken(*last));
        }
        self.sent += 1;
        self.sent <= EXPRESS_SHARE && self.in_bulk.is_none()
    }
}
