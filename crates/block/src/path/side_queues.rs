//! Side queues: what reaches a lane table while it runs, kept until the loop takes it.
//!
//! Owned by the table, separate from what the loop borrows, so that anything a lane calls or drops can leave
//! its message here. Nothing here calls a lane or a waker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::path::notifier::Notify;
use crate::request::io::Slot;
use crate::{Device, IoId, LaneId};

/// A request whose future was dropped.
pub(crate) struct Detached {
    pub(crate) id: IoId,
    /// Where it was submitted.
    pub(crate) lane: u32,
    /// The blocks that it changes there: first and count.
    pub(crate) changes: Option<(u64, u64)>,
}

/// What arrived while the table ran.
#[derive(Default)]
pub(crate) struct SideLists {
    /// Requests dropped by their holder.
    pub(crate) dropped: VecDeque<Box<Slot>>,
    /// Requests whose cutting was not ended, with their numbers.
    pub(crate) unjoined: VecDeque<(u32, Box<Slot>)>,
    /// Notified lanes, and the mark to clear.
    pub(crate) ready: VecDeque<(u32, Notify)>,
    /// Requests whose futures were dropped.
    pub(crate) detached: VecDeque<Detached>,
    /// Requests that should end early, and where they were submitted.
    pub(crate) aborts: VecDeque<(u32, IoId)>,
    /// Requests that should end early, by device.
    pub(crate) aborts_by_device: VecDeque<(Arc<dyn Device>, IoId)>,
    /// Closed queue pairs, and where they submitted.
    pub(crate) pairs: VecDeque<(u32, LaneId)>,
    /// Lanes with one more holder.
    pub(crate) retained: VecDeque<u32>,
    /// Lanes with one holder less.
    pub(crate) released: VecDeque<u32>,
}

/// The lists, and whether any of them is not empty.
#[derive(Default)]
pub(crate) struct SideQueues {
    pub(crate) any: Cell<bool>,
    pub(crate) lists: RefCell<SideLists>,
}

impl SideQueues {
    /// Adds to one of the lists.
    pub(crate) fn add(&self, f: impl FnOnce(&mut SideLists)) {
        self.any.set(true);
        f(&mut self.lists.borrow_mut());
    }

    /// The oldest entry of one of the lists.
    pub(crate) fn take<T>(&self, list: impl FnOnce(&mut SideLists) -> &mut VecDeque<T>) -> Option<T> {
        list(&mut self.lists.borrow_mut()).pop_front()
    }
}
