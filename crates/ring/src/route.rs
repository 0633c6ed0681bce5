//! The way from one sender to one receiver: an express ring, a bulk ring, and what neither had room for.
//!
//! Owned by the sender. Values go in flows. Nothing is refused, and nothing overtakes what goes in the same
//! flow. Of a flow that floods the rest goes in bulk, and in bulk those who wait take turns: who floods in one
//! flow holds up nobody who sends in another.

use crate::express::{BulkSlot, Sender, Ticket};
use crate::lines::Lines;
use crate::port::Tagged;
use crate::spsc::Vacant;

/// Values of one flow in one turn of the sender that go by express. Who answers sends few; who sends more
/// can as well wait its turn.
const EXPRESS_SHARE: u32 = if cfg!(loom) { 1 } else { 2 };

/// Who waits for room in bulk tries again after so many values more.
pub(crate) const RETRY: usize = 64;

/// Values that wait are moved into bulk in one turn at most: what else the sender has to do waits for it.
pub(crate) const FLUSH_BUDGET: usize = 16;

/// The way to one receiver.
pub(crate) struct Route<T> {
    rings: Sender<T>,
    flows: Vec<Flow>,
    /// What no ring had room for, a line for each flow.
    waiting: Lines<Tagged<T>>,
}

/// What is known of one flow.
#[derive(Clone, Copy, Default)]
struct Flow {
    /// The last value in bulk, unless that was seen taken: until then the next ones stay behind it.
    in_bulk: Option<Ticket>,
    /// How many were sent in which turn.
    sent: u32,
    turn: u32,
}

/// Where a value goes.
pub(crate) enum Place<'a, T> {
    Express(Vacant<'a, T>),
    /// And there it is the last one of its flow.
    Bulk(BulkSlot<'a, T>, &'a mut Option<Ticket>),
    Waits(&'a mut Lines<Tagged<T>>),
}

impl<T: Send> Route<T> {
    /// Over rings that were just made.
    pub(crate) fn new(rings: Sender<T>) -> Route<T> {
        Route { rings, flows: Vec::new(), waiting: Lines::new() }
    }

    /// Where the next value of a flow goes, behind all that went there before it, in turn number `turn` of the
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
        // Looked at twice: a slot that is lent cannot be given back for another one.
        if may_go_by_express && self.rings.express().is_some() {
            return self.rings.express().map_or(Place::Waits(&mut self.waiting), Place::Express);
        }
        match self.rings.bulk() {
            Some(slot) => Place::Bulk(slot, &mut flow.in_bulk),
            None => Place::Waits(&mut self.waiting),
        }
    }

    /// Whether something waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.len() > 0
    }

    /// Moves up to `budget` values that wait into bulk, until that is full; true if nothing is left. Without a
    /// budget it would go on for as long as the receiver keeps pace.
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
    /// Counts a value that is sent; whether it may go by express, if nothing waits before it.
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
