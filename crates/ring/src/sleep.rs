//! The handshake between a receiver about to sleep and senders that must wake it.
//!
//! The receiver raises the flag and looks for messages again; a sender stores its message and looks at the
//! flag. A full barrier on each side between write and look makes at least one see the other: either the
//! receiver finds the message and does not sleep, or the sender finds the flag and wakes it. Exactly one
//! sender is told to wake, so a flood costs one system call.

use crate::primitive::{AtomicBool, Ordering, fence};

/// The flag that a receiver is about to sleep.
pub struct Sleep {
    asleep: AtomicBool,
}

impl Default for Sleep {
    fn default() -> Sleep {
        Sleep::new()
    }
}

impl Sleep {
    /// Awake.
    pub fn new() -> Sleep {
        Sleep { asleep: AtomicBool::new(false) }
    }

    /// Receiver: raises the flag. Look for messages again after this, and sleep only if there are none.
    #[inline]
    pub fn prepare(&self) {
        // Read-modify-write, here and below: all changes of the flag have one order.
        self.asleep.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Receiver: awake again, for any reason.
    #[inline]
    pub fn cancel(&self) {
        self.asleep.swap(false, Ordering::AcqRel);
    }

    /// Sender, after sending: true if the receiver is seen asleep. Without the barrier of
    /// [`wake`](Self::wake), so after `false` the sender must call `wake` before it sleeps itself.
    #[inline]
    pub fn seems_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Sender, after sending: true if the caller must wake the receiver.
    #[inline]
    #[must_use]
    pub fn wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}
