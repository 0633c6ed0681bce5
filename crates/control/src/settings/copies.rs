//! Shallow copies of volumes, by the ids that clients were given.
//!
//! A copy that has ended is kept until a client has asked for its end; the oldest go if no client asks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use spindle_lvol::ShallowCopy;

/// Copies that are kept although they have ended.
const MOST_ENDED: usize = 1024;

/// Copies by the ids that clients were given.
#[derive(Default)]
pub(crate) struct Copies {
    last: Cell<u32>,
    pub(crate) known: RefCell<BTreeMap<u32, ShallowCopy>>,
}

impl Copies {
    /// The next id; it is not reused even if the copy does not start.
    pub(crate) fn next(&self) -> u32 {
        self.last.set(self.last.get().wrapping_add(1));
        self.last.get()
    }

    pub(crate) fn keep(&self, id: u32, copy: ShallowCopy) {
        let mut known = self.known.borrow_mut();
        known.insert(id, copy);
        let ended: Vec<u32> =
            known.iter().filter(|(_, copy)| copy.ended().is_some()).map(|(id, _)| *id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(MOST_ENDED)) {
            known.remove(id);
        }
    }
}
