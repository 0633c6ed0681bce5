//! Whether anything may keep requests in front of a lane, in one word, so that a request looks once.
//!
//! The lane's thread sets two bits of it (gate, waiting requests, limits; counting); the device's state counts the held
//! ranges in the others, from any thread. Changed by read-modify-write only.

use std::sync::atomic::{AtomicU32, Ordering};

/// Set by the lane's thread if it may keep requests.
const OWN: u32 = 1 << 31;

/// Set by the lane's thread if requests are only counted as they come.
const COUNTS: u32 = 1 << 30;

/// What a request finds in front of a lane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found(u32);

impl Found {
    /// The request can go straight to the lane.
    pub(crate) const NOTHING: Found = Found(0);
    /// It can, when it is counted.
    pub(crate) const COUNTING: Found = Found(COUNTS);
}

/// The word of one lane.
#[derive(Default)]
pub(crate) struct Hindrance(AtomicU32);

impl Hindrance {
    /// A word with a number of held ranges.
    pub(crate) fn of_ranges(count: usize) -> Hindrance {
        Hindrance(AtomicU32::new(count as u32 & !(OWN | COUNTS)))
    }

    /// Looks, once for a request.
    #[inline]
    pub(crate) fn look(&self) -> Found {
        Found(self.0.load(Ordering::Relaxed))
    }

    /// Sets the bits of the lane's thread.
    pub(crate) fn set_own(&self, hinders: bool, counts: bool) {
        let wanted = if hinders { OWN } else { 0 } | if counts { COUNTS } else { 0 };
        // No other thread changes these two.
        let changed = (self.0.load(Ordering::Relaxed) ^ wanted) & (OWN | COUNTS);
        if changed != 0 {
            self.0.fetch_xor(changed, Ordering::Relaxed);
        }
    }

    /// True if a range of the device is held.
    pub(crate) fn has_ranges(&self) -> bool {
        self.0.load(Ordering::Acquire) & !(OWN | COUNTS) != 0
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
