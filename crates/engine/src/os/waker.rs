//! Ends the sleep of a driver: an eventfd that is written only while the driver sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use spindle_ring::Parking;

use crate::Unpark;

/// Ends a driver's sleep from any OS thread, also from a signal handler: one atomic exchange, and a
/// write when the driver sleeps.
#[derive(Debug)]
pub(crate) struct Waker {
    parking: Parking,
    event: OwnedFd,
    /// Writes to the eventfd, and reads from it.
    wakes: AtomicU64,
    drains: AtomicU64,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (wakes, drains) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Waker { parking: Parking::new(), event, wakes, drains })
    }

    /// Readable when a sleeper must wake.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Before sleeping; false if the driver was notified since it last slept and must not sleep.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.parking.fall_asleep()
    }

    /// After sleeping; counts earlier notifications as seen.
    pub(crate) fn wake_up(&self) {
        self.parking.wake_up();
    }

    /// How often the eventfd was written to, and read.
    pub(crate) fn calls(&self) -> (u64, u64) {
        (self.wakes.load(Ordering::Relaxed), self.drains.load(Ordering::Relaxed))
    }

    /// Empties the eventfd after it was seen readable.
    pub(crate) fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
        // An empty eventfd is fine.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl Unpark for Waker {
    fn unpark(&self) {
        if self.parking.unpark() {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            // Only a full counter can refuse, and that is readable too.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_sleep_is_not_lost_and_counts_once() {
        let waker = Waker::new().unwrap();
        waker.unpark();
        assert!(!waker.fall_asleep(), "notified: must not sleep");
        assert!(waker.fall_asleep(), "the notice was used up");
        waker.unpark();
        assert_eq!(rustix::io::read(&waker.event, &mut [0; 8]), Ok(8), "a sleeper is written to");
        waker.wake_up();
        assert!(waker.fall_asleep());
    }
}
