//! Requests on their way.
//!
//! One request is stored beside the ring and is the next: most requests that a lane passes on or completes
//! are taken out again at once, which then costs one word written and read. So a request that a lane passes on
//! comes before those that waited after the request for which the lane was called.

use std::collections::VecDeque;

use crate::Io;
use crate::request::io::Slot;

/// One of the two queues of a lane table.
#[derive(Default)]
pub(crate) struct Queue {
    /// The next one.
    first: Option<Io>,
    rest: VecDeque<Io>,
}

impl Queue {
    #[inline]
    pub(crate) fn push_back(&mut self, io: Io) {
        if self.first.is_none() {
            self.first = Some(io);
        } else {
            self.rest.push_back(io);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Io> {
        match self.first.take() {
            Some(io) => Some(io),
            None if self.rest.is_empty() => None,
            None => self.rest.pop_front(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }

    /// Removes and returns a request from the middle.
    pub(crate) fn take(&mut self, is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        if self.first.as_ref().is_some_and(|io| is_it(io.slot())) {
            return self.first.take();
        }
        let at = self.rest.iter().position(|io| is_it(io.slot()))?;
        self.rest.remove(at)
    }
}
