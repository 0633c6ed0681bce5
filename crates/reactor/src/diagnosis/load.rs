//! The busy share of a reactor in the last second, as others see it.
//!
//! Written by the reactor when it accounts for a turn: a few plain accesses to a separate cache line. Read on any
//! OS thread, without asking the reactor. One turn counts where it ends, so that a long one is seen late, and in
//! one piece.

use std::sync::atomic::{AtomicU64, Ordering};

use spindle_engine::Time;

/// A piece of time is 2^27 ns, an eighth of a second.
const PIECE: u32 = 27;

/// The last second in pieces, without the one that is not over.
const PIECES: u64 = 7;

/// Busy time by piece: the number of the piece in the upper half, its busy nanoseconds in the lower.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Load([AtomicU64; 8]);

impl Load {
    /// Adds a busy turn that ended at `now`.
    #[inline]
    pub(crate) fn add(&self, now: Time, ns: u64) {
        let number = now.as_nanos() >> PIECE;
        let place = &self.0[number as usize % self.0.len()];
        // One writer: no read-modify-write is needed.
        let known = place.load(Ordering::Relaxed);
        let before =
            if known >> 32 == number & u64::from(u32::MAX) { known & u64::from(u32::MAX) } else { 0 };
        let busy = (before + ns).min(u64::from(u32::MAX));
        place.store(number << 32 | busy, Ordering::Relaxed);
    }

    /// The busy share, 0 to 1, of the whole pieces in the second before `now`.
    pub(crate) fn share(&self, now: Time) -> f64 {
        let current = now.as_nanos() >> PIECE;
        let busy: u64 = (current.saturating_sub(PIECES)..current)
            .map(|number| (number, self.0[number as usize % self.0.len()].load(Ordering::Relaxed)))
            .filter(|(number, known)| known >> 32 == number & u64::from(u32::MAX))
            .map(|(_, known)| known & u64::from(u32::MAX))
            .sum();
        (busy as f64 / (PIECES << PIECE) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_last_second_and_falls_to_nothing_after_it() {
        let load = Load::default();
        let at = |ms: u64| Time(ms * 1_000_000);
        assert_eq!(load.share(at(0)), 0.0);
        // A quarter of each ms for three seconds.
        (0..3000).for_each(|ms| load.add(at(ms), 250_000));
        let share = load.share(at(3000));
        assert!((0.24..0.26).contains(&share), "{share}");
        let later = load.share(at(3500));
        assert!((0.1..0.2).contains(&later), "{later}");
        assert_eq!(load.share(at(4100)), 0.0);
        // One long turn, and times beyond 32 bits.
        load.add(at(5_000_000_000), 5_000_000_000);
        assert_eq!(load.share(at(5_000_000_140)), 1.0);
    }
}
