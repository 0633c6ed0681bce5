//! The state of zeroing ahead, which [`super::zero_ahead`] does.

use std::cell::{Cell, RefCell};

use spindle_reactor::Poller;

use crate::waiting::TaskLock;

/// How far clusters are zeroed ahead, and whether that is being done.
#[derive(Default)]
pub(crate) struct ZeroAhead {
    /// Held while clusters are zeroed in the background.
    pub(super) lock: TaskLock,
    /// True while that runs.
    pub(super) runs: Cell<bool>,
    /// How many zeroed clusters it keeps ready.
    pub(super) target: Cell<usize>,
    /// Number of times a write needed a new cluster.
    pub(super) asked: Cell<u64>,
    /// Runs while there are zeroes written ahead, and gives them back when `asked` stands still.
    pub(super) idle: RefCell<Option<Poller>>,
}
