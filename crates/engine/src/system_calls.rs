//! Counts of system calls that a driver has made: a criterion where times are too noisy.

use std::fmt;
use std::ops::Sub;

/// The system calls of one driver so far, by kind. All zero in simulation.
///
/// Not counted: those of memory, of files that close, and of the engine's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCalls {
    /// Entries into the engine: io_uring_enter; epoll_wait, and the ppoll before one with a deadline.
    pub enters: u64,
    /// Writes to the driver's eventfd, each by a thread that found it asleep.
    pub wakes: u64,
    /// Reads of that eventfd.
    pub drains: u64,
    /// Calls on sockets that the driver makes itself, on the reactor's OS thread.
    pub sockets: u64,
    /// Operations given to a worker thread, which makes the calls.
    pub handed_over: u64,
}

impl Sub for SystemCalls {
    type Output = SystemCalls;

    fn sub(self, earlier: SystemCalls) -> SystemCalls {
        SystemCalls {
            enters: self.enters - earlier.enters,
            wakes: self.wakes - earlier.wakes,
            drains: self.drains - earlier.drains,
            sockets: self.sockets - earlier.sockets,
            handed_over: self.handed_over - earlier.handed_over,
        }
    }
}

impl fmt::Display for SystemCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SystemCalls { enters, wakes, drains, sockets, handed_over } = self;
        write!(
            f,
            "{enters} entries into the engine, {wakes} wake-ups written and {drains} read, {sockets} on sockets, \
             {handed_over} operations handed to workers"
        )
    }
}
