//! Whether anything may keep requests in front of a lane, in one word, so that a request looks once.
//!
//! The lane's thread sets one bit of it (gate, waiting requests, limits); the device's state counts the held
//! ranges in the others, from any thread. Changed by read-modify-write only.

use std::sync::atomic::{AtomicU32, Ordering};

/// The bit of the lane's own thread.
const OWN: u32 = 1 << 31;

/// The word of one lane.
#[derive(Default)]
pub(crate) struct Hindrance(AtomicU32);

impl Hindrance {
    /// A word with a number of held ranges.
    pub(crate) fn of_ranges(count: usize) -> Hindrance {
        Hindrance(AtomicU32::new(count as u32 & !OWN))
    }

    /// True if a request can go straight to the lane.
    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Sets or clears the bit of the lane's thread.
    pub(crate) fn set_own(&self, yes: bool) {
        match yes {
            true => self.0.fetch_or(OWN, Ordering::Relaxed),
            false => self.0.fetch_and(!OWN, Ordering::Relaxed),
        };
    }

    /// True if a range of the device is held.
    pub(crate) fn has_ranges(&self) -> bool {
        self.0.load(Ordering::Acquire) & !OWN != 0
    }

    /// Counts one more held range.
    pub(crate) fn add_range(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Counts one held range less.
    pub(crate) fn remove_range(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
