//! How an event source of this thread has the table poll a lane.
//!
//! Kept by the source, which may outlive the lane and the table.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use crate::request::io::Home;

/// Set while a lane's notification is pending.
pub(crate) type Notify = Rc<Cell<bool>>;

/// Tells the table that a lane has work: the table polls it, and offers it again the requests for which it
/// was full. Kept by event sources of this thread (a completion sink, a task). `!Send`.
#[derive(Clone)]
pub struct Notifier {
    home: Weak<dyn Home>,
    lane: u32,
    waiting: Notify,
}

impl Notifier {
    pub(crate) fn new(home: Weak<dyn Home>, lane: u32, waiting: Notify) -> Notifier {
        Notifier { home, lane, waiting }
    }

    /// Polls the lane: now, or at the end of the table's loop if it runs. No effect if the lane is closed.
    pub fn notify(&self) {
        if let Some(home) = self.home.upgrade()
            && !self.waiting.replace(true)
        {
            home.notify(self.lane, &self.waiting);
        }
    }
}
