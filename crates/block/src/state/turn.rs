//! Turns on a device, for operations that must be alone on it: one at a time, on any threads.
//!
//! First come, first served. Protected by the lock of the device's state.

use std::collections::VecDeque;
use std::task::Waker;

use crate::DeviceState;

/// The waiting operations; the first has its turn.
#[derive(Default)]
pub(crate) struct Turns {
    next: u64,
    line: VecDeque<(u64, Waker)>,
}

impl Turns {
    pub(crate) fn ask(&mut self, waker: Waker) -> u64 {
        self.next += 1;
        self.line.push_back((self.next, waker));
        self.next
    }

    pub(crate) fn is_first(&self, key: u64) -> bool {
        self.line.front().is_some_and(|(first, _)| *first == key)
    }

    /// Removes one. Returns the waker of the one that now has its turn.
    pub(crate) fn leave(&mut self, key: u64) -> Option<Waker> {
        self.line.retain(|(known, _)| *known != key);
        self.line.front().map(|(_, waker)| waker.clone())
    }
}

/// A place in the queue. Dropping it passes the turn on.
pub(crate) struct Turn {
    state: DeviceState,
    key: u64,
}

impl Turn {
    pub(crate) fn new(state: DeviceState, key: u64) -> Turn {
        Turn { state, key }
    }

    pub(crate) fn state(&self) -> &DeviceState {
        &self.state
    }

    /// True if its turn has come. Its waker is called then.
    pub(crate) fn has_come(&self) -> bool {
        self.state.turns(|turns| turns.is_first(self.key))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.state.turns(|turns| turns.leave(self.key));
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
