//! Two rings from one producer to one consumer: the express ring is emptied first, the bulk ring within a
//! budget.
//!
//! A producer that puts a flood into bulk keeps the express ring free for other values. Nothing in bulk
//! overtakes values put into express before it. A value in express may overtake one in bulk until
//! [`Sender::has_taken`] returns true for that. Each half lives on one core, like those of [`spsc`].

use crate::spsc::{self, Front};

/// The half that fills the rings.
pub struct Sender<T> {
    express: spsc::Producer<T>,
    bulk: spsc::Producer<T>,
}

/// The half that empties them.
pub struct Receiver<T> {
    express: spsc::Consumer<T>,
    bulk: spsc::Consumer<T>,
    express_slots: usize,
}

/// Identifies a value in the bulk ring: the number of values put there up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(usize);

/// A free slot of the bulk ring.
pub(crate) struct BulkSlot<'a, T>(spsc::Vacant<'a, T>);

impl<T: Send> BulkSlot<'_, T> {
    /// Puts a value there, with a tag of 63 bits beside it.
    #[inline]
    pub(crate) fn fill(self, tag: u64, value: T) -> Ticket {
        Ticket(self.0.fill(tag, value))
    }
}

/// Makes two rings with these numbers of slots, rounded up to powers of two.
pub fn pair<T: Send>(express_slots: usize, bulk_slots: usize) -> (Sender<T>, Receiver<T>) {
    let (express_in, express) = spsc::ring(express_slots);
    let (bulk_in, bulk) = spsc::ring(bulk_slots);
    let express_slots = express_slots.next_power_of_two();
    (Sender { express: express_in, bulk: bulk_in }, Receiver { express, bulk, express_slots })
}

impl<T: Send> Sender<T> {
    /// Puts a value, with a tag of 63 bits beside it, into the express ring.
    ///
    /// # Errors
    /// The value is returned if the ring is full.
    #[inline]
    pub fn push_express(&mut self, tag: u64, value: T) -> Result<(), T> {
        match self.express() {
            Some(slot) => {
                slot.fill(tag, value);
                Ok(())
            }
            None => Err(value),
        }
    }

    /// Puts a value, with a tag of 63 bits beside it, after all values put into either ring before.
    ///
    /// # Errors
    /// The value is returned if the ring is full.
    #[inline]
    pub fn push_bulk(&mut self, tag: u64, value: T) -> Result<Ticket, T> {
        match self.bulk() {
            Some(slot) => Ok(slot.fill(tag, value)),
            None => Err(value),
        }
    }

    /// A slot of the express ring; none if that is full.
    #[inline]
    pub(crate) fn express(&mut self) -> Option<spsc::Vacant<'_, T>> {
        self.express.vacant()
    }

    /// A slot of the bulk ring; none if that is full.
    #[inline]
    pub(crate) fn bulk(&mut self) -> Option<BulkSlot<'_, T>> {
        self.bulk.vacant().map(BulkSlot)
    }

    /// True if the consumer has taken that value out of bulk. Reads the consumer's cache line if the last
    /// call returned false.
    #[inline]
    pub fn has_taken(&mut self, ticket: Ticket) -> bool {
        self.bulk.has_popped(ticket.0)
    }
}

impl<T: Send> Receiver<T> {
    /// Takes up to `budget` values out of bulk, counting it down, and the values in express; true if there
    /// were any. Express comes last, so that values that came meanwhile need not wait for the next call. Once
    /// `deliver` returns false, the budget is 0.
    #[inline]
    pub fn take(&mut self, budget: &mut usize, mut deliver: impl FnMut(Front<'_, T>) -> bool) -> bool {
        let (mut any, mut bulk) = (false, false);
        while *budget > 0 && !self.bulk.is_empty() {
            // All values put into express before this one are visible now.
            any |= self.take_express(budget, &mut deliver);
            if *budget == 0 {
                break;
            }
            let Some(front) = self.bulk.front() else { break };
            bulk = true;
            *budget -= 1;
            if !deliver(front) {
                *budget = 0;
            }
        }
        if bulk {
            self.bulk.publish();
        }
        self.take_express(budget, &mut deliver) || any || bulk
    }

    /// Takes the values there now, not those that arrive meanwhile.
    #[inline]
    fn take_express(&mut self, budget: &mut usize, deliver: &mut impl FnMut(Front<'_, T>) -> bool) -> bool {
        let mut taken = 0;
        while taken < self.express_slots
            && let Some(front) = self.express.front()
        {
            taken += 1;
            if !deliver(front) {
                *budget = 0;
            }
        }
        if taken > 0 {
            self.express.publish();
        }
        taken > 0
    }

    /// True if a value waits in express: quicker than [`is_empty`](Self::is_empty).
    #[inline]
    pub fn has_express(&self) -> bool {
        !self.express.is_empty()
    }

    /// True if there is nothing to take now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.express.is_empty() && self.bulk.is_empty()
    }
}
