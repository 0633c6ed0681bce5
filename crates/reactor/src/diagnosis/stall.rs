//! A call that held a reactor too long.

use std::fmt;
use std::time::Duration;

/// One call that held a reactor longer than the watchdog's limit.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The reactor's number, from 0.
    pub reactor: usize,
    /// Its name.
    pub reactor_name: String,
    /// Its core.
    pub core: usize,
    /// The id of the thread that made the call, and its name if it still lives.
    pub thread: (u64, Option<String>),
    /// The call: "the task spawned at FILE:LINE:COLUMN", "the poller made at ...", "a message".
    pub call: String,
    /// How long it had held the reactor when it was last seen, without the time that the core was given to
    /// other processes.
    pub held: Duration,
    /// How often such a call was seen.
    pub times: u64,
}

impl Stall {
    /// True if `other` is of the same call on the same thread.
    pub(crate) fn is_like(&self, other: &Stall) -> bool {
        (self.thread.0, &self.call) == (other.thread.0, &other.call)
    }

    /// True at the first, the tenth, the hundredth time that such a call was seen.
    pub fn is_milestone(&self) -> bool {
        self.times.checked_ilog10().is_some_and(|digits| self.times == 10u64.pow(digits))
    }

    /// What is reported to a programmer.
    pub(crate) fn advice(&self) -> String {
        match self.times {
            0 | 1 => self.to_string(),
            times => format!("{self} ({times} times)"),
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, name) = (self.thread.0, self.thread.1.as_deref().unwrap_or("gone by now"));
        write!(
            f,
            "{} on core {} has been held for {} ms by {} on thread {id} ({name}), and nothing else \
             there can run: do long work in steps with yield_now between them, and blocking calls on an OS \
             thread of their own",
            self.reactor_name,
            self.core,
            self.held.as_millis(),
            self.call
        )
    }
}
