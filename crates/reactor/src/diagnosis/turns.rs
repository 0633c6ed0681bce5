//! Counts of turns, of a reactor or of a thread.
//!
//! Belongs to the reactor's OS thread.

use std::cell::Cell;

/// Turns with work, and without.
#[derive(Default)]
pub(crate) struct Turns {
    busy: Cell<u64>,
    idle: Cell<u64>,
}

impl Turns {
    /// Counts one more.
    #[inline]
    pub(crate) fn count(&self, busy: bool) {
        let turns = if busy { &self.busy } else { &self.idle };
        turns.set(turns.get() + 1);
    }

    /// Those with work, and those without.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.busy.get(), self.idle.get())
    }
}
