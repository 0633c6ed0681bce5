//! The last step into a sleep and out of it: a state of three values, and the object that the sleeper waits
//! for.
//!
//! For a sleeper that waits for a kernel object (an eventfd), shared with the threads that wake it. Unparking
//! a sleeper must make that object ready; unparking one that is awake leaves a notice, and the next sleep
//! does not begin. What was done before an unpark is visible after the sleep that it ended or prevented. If
//! the object is made ready late, for a sleep that is over, it ends a later one early.
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

/// The state of a sleeper.
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

    /// Sleeper: before sleeping; false if it was notified since it last slept and must not.
    pub fn fall_asleep(&self) -> bool {
        if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Sleeper: after sleeping; counts earlier notifications as seen.
    pub fn wake_up(&self) {
        // An exchange, not a store: it acquires what was done before the last unpark.
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Any thread: ends the sleep, or prevents the next one; true if the caller must make the sleeper's
    /// object ready.
    #[must_use]
    pub fn unpark(&self) -> bool {
        self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP
    }
}
