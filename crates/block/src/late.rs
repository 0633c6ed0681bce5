//! What reaches a lane table while it runs: kept until the loop comes by.
//!
//! Owned by the table, beside what the loop borrows, so that anything a lane calls or drops has a place to
//! leave its message. Nothing here calls anybody.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::io::Slot;
use crate::table::Notify;
use crate::{Device, IoId, LaneId};

/// A request whose future is gone.
pub(crate) struct Detached {
    pub(crate) id: IoId,
    /// Where it was submitted.
    pub(crate) lane: u32,
    /// The blocks that it changes there: first and count.
    pub(crate) changes: Option<(u64, u64)>,
}

/// What arrived while the table ran.
#[derive(Default)]
pub(crate) struct LateLists {
    /// Requests dropped by whoever held them.
    pub(crate) fallen: VecDeque<Box<Slot>>,
    /// Lanes that were notified, and the mark to clear.
    pub(crate) ready: VecDeque<(u32, Notify)>,
    /// Requests whose futures are gone.
    pub(crate) detached: VecDeque<Detached>,
    /// Requests that are to end early, and where they were submitted.
    pub(crate) aborts: VecDeque<(u32, IoId)>,
    /// The same, by the device.
    pub(crate) aborts_by_device: VecDeque<(Arc<dyn Device>, IoId)>,
    /// Queue pairs that are gone, and where they submitted.
    pub(crate) pairs: VecDeque<(u32, LaneId)>,
    /// Lanes with one more holder.
    pub(crate) retained: VecDeque<u32>,
    /// Lanes with one holder less.
    pub(crate) released: VecDeque<u32>,
}

/// The lists, and whether any of them holds something.
#[derive(Default)]
pub(crate) struct Late {
    pub(crate) any: Cell<bool>,
    pub(crate) lists: RefCell<LateLists>,
}

impl Late {
    /// Adds to one of the lists.
    pub(crate) fn add(&self, f: impl FnOnce(&mut LateLists)) {
        self.any.set(true);
        f(&mut self.lists.borrow_mut());
    }

    /// The oldest entry of one of the lists.
    pub(crate) fn take<T>(&self, list: impl FnOnce(&mut LateLists) -> &mut VecDeque<T>) -> Option<T> {
        list(&mut self.lists.borrow_mut()).pop_front()
    }
}
