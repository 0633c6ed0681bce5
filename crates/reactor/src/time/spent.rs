//! The time of poller calls: some are measured, all are accounted for.
//!
//! Owned by the pollers of one thread. Reading the clock takes longer than an idle poller. So in each walk
//! over the active pollers one in 251 is measured, in rotation; after a new one came, a few walks measure all
//! of them. Of timed pollers every call is measured if the period is long, fewer if it is short: a program may have
//! a thousand of them. A measurement represents all calls since the previous one. The time of the readings is subtracted.
//!
//! Not promised: that rare long calls are seen in a poller that is called often. The watchdog looks for
//! those. In simulation nothing takes time.

use std::cell::Cell;
use std::time::Duration;

use spindle_engine::{Driver, Time};

/// One call in this many is measured. A prime, so that it does not coincide with periods of the program.
const ONE_IN: usize = 251;

/// Walks that measure all pollers after a new one came.
pub(crate) const FIRST_WALKS: u32 = 4;

/// Every call of timed pollers with this period or longer is measured.
const LONG_PERIOD: Duration = Duration::from_millis(10);

/// One call in [`FEWER`] of those with this period or longer.
const MIDDLE_PERIOD: Duration = Duration::from_micros(100);
const FEWER: u64 = 13;

/// Readings used to determine the cost of one.
const TRIALS: usize = 16;

/// Which active pollers are measured in one walk over them, from last to first.
pub(crate) struct Picks {
    /// The next one; beyond the list if there is none.
    next: usize,
    /// Distance from one to the next.
    step: usize,
}

impl Picks {
    /// For walk number `walk` over `len` pollers: all of them, or those in rotation.
    pub(crate) fn new(walk: usize, len: usize, all: bool) -> Picks {
        if all {
            return Picks { next: len.wrapping_sub(1), step: 1 };
        }
        let first = walk % ONE_IN;
        let next = if first < len { first + (len - 1 - first) / ONE_IN * ONE_IN } else { usize::MAX };
        Picks { next, step: ONE_IN }
    }

    /// The number of pollers from the first on up to and including the next measured one, if that is below
    /// `at`; otherwise 0.
    pub(crate) fn next_below(&self, at: usize) -> usize {
        if self.next < at { self.next + 1 } else { 0 }
    }

    /// Moves to the one after.
    pub(crate) fn take(&mut self) {
        self.next = self.next.checked_sub(self.step).unwrap_or(usize::MAX);
    }
}

/// The call of a timed poller that is measured next after call number `number`, which was.
pub(crate) fn next_measured(period: Duration, number: u64) -> u64 {
    let one_in = if period < MIDDLE_PERIOD { ONE_IN as u64 } else { FEWER };
    match period >= LONG_PERIOD || number + 1 < u64::from(FIRST_WALKS) {
        true => number + 1,
        false => (number / one_in + 1) * one_in,
    }
}

/// The time of one poller's calls.
#[derive(Default)]
pub(crate) struct Spent {
    /// Number of calls accounted for.
    accounted: Cell<u64>,
    calls: Cell<Duration>,
    busy_calls: Cell<Duration>,
}

impl Spent {
    /// Adds a call after `before` others that took `span`, which represents those not accounted for yet.
    pub(crate) fn add(&self, before: u64, span: Duration, busy: bool) {
        let all = before + 1;
        let stands_for = u32::try_from(all - self.accounted.replace(all)).unwrap_or(u32::MAX);
        let span = span.saturating_mul(stands_for);
        self.calls.set(self.calls.get().saturating_add(span));
        if busy {
            self.busy_calls.set(self.busy_calls.get().saturating_add(span));
        }
    }

    /// The time of all calls, and of those that found work.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.calls.get(), self.busy_calls.get())
    }
}

/// The time that one reading of the driver's clock adds to a measurement.
pub(crate) fn reading(driver: &mut dyn Driver) -> Duration {
    let mut last = driver.now();
    let mut span = |_| {
        let before: Time = std::mem::replace(&mut last, driver.now());
        last - before
    };
    // The smallest: the others were interrupted.
    (0..TRIALS).map(&mut span).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_stands_for_every_call_up_to_it() {
        let measured = |period| {
            std::iter::successors(Some(0), move |&number| Some(next_measured(period, number)))
                .take_while(|number| *number < 10_000)
        };
        let spent = Spent::default();
        for number in measured(Duration::from_micros(1)) {
            spent.add(number, Duration::from_nanos(1), number % 2 == 0);
            assert_eq!(spent.times().0.as_nanos(), u128::from(number) + 1);
        }
        assert!(spent.times().1 > Duration::ZERO && spent.times().1 < spent.times().0);
        assert!(measured(LONG_PERIOD).eq(0..10_000));
        let first = u64::from(FIRST_WALKS);
        assert!(
            measured(MIDDLE_PERIOD)
                .eq((0..first).chain((1..).map(|n| n * FEWER).take_while(|n| *n < 10_000)))
        );
    }

    #[test]
    fn of_so_many_walks_each_poller_is_measured_in_one() {
        fn measured(mut picks: Picks, len: usize) -> Vec<usize> {
            let mut at = len;
            std::iter::from_fn(|| {
                at = picks.next_below(at).checked_sub(1)?;
                picks.take();
                Some(at)
            })
            .collect()
        }
        for len in [1, 2, ONE_IN - 1, ONE_IN, ONE_IN + 1, 1000] {
            let mut times = vec![0; len];
            for walk in 0..ONE_IN {
                measured(Picks::new(walk, len, false), len).into_iter().for_each(|at| times[at] += 1);
            }
            assert!(times.iter().all(|n| *n == 1), "of {len}");
            assert!(measured(Picks::new(7, len, true), len).into_iter().eq((0..len).rev()));
        }
    }
}
