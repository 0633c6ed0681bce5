//! The last step into a sleep and out of it: a state of three values, and whatever the sleeper waits for.
//!
//! For a sleeper that waits on something of the kernel (an eventfd), shared with those who end its sleep.
//! Whoever unparks a sleeper must make that thing ready; whoever unparks one that is awake leaves a notice,
//! and the next sleep does not begin. What was done before an unpark is seen after the sleep that it ended or
//! kept from beginning. A thing that is made ready late, for a sleep that is over, ends a later one early.
//!
//! Nothing here blocks or allocates, so a signal handler may unpark.

use crate::primitive::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends a sleep from any OS thread.
pub trait Unpark: Send + Sync {
    /// Makes the current or the next sleep return. A signal handler may call it.
    fn unpark(&self);
}

impl<T: Unpark + ?Sized> Unpark for std::sync::Arc<T> {
    fn unpark(&self) {
        (**self).unpark();
    }
}

/// Whether a sleeper sleeps, or must not.
#[derive(Debug)]
pub struct Parking {
    state: AtomicU8,
}

impl Default for Parking {
    fn default() -> Parking {
        Parking::new()
    }
}

impl Parking {
    /// Awake, and not notified.
    pub fn new() -> Parking {
        Parking { state: AtomicU8::new(AWAKE) }
    }

    /// Sleeper: is about to sleep; false if it was notified since it last slept and must not.
    pub fn fall_asleep(&self) -> bool {
        if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Sleeper: no longer sleeps; what woke it counts as seen.
    pub fn wake_up(&self) {
        // An exchange, not a store: it takes over from the last unpark what was done before that.
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Anybody: ends the sleep, or keeps the next one from beginning; true if the caller must make ready what
    /// the sleeper waits for.
    #[must_use]
    pub fn unpark(&self) -> bool {
        self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP
    }
}
