//! Pollers: functions that a thread calls again and again.
//!
//! Owned by the [`Poller`] handle on the thread that made it (`!Send`); dropping the handle stops it, also
//! from within its own call. Active pollers are called in every turn of their thread, newest first as in
//! SPDK; timed ones in the first turn at or after their time, and then a whole period later, so there are no
//! bursts to catch up.
//!
//! An active poller names what it waits for, so that an idle reactor may sleep: a reactor awake for any
//! reason calls all of them. One that must [spin](Wake::Spin) keeps its core awake, and dumps name it.

use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::caught::drop_caught;
use crate::local::current;
use crate::local::thread_core::ThreadCore;
use crate::task::poller_cell::{Busy, Kind, PollerCell, State, Wake};

/// A poller of the current thread. Dropping it stops the poller, and drops its function with its captures: at
/// once, or, while active pollers are being called, after all of them have been. `!Send`.
#[must_use = "dropping the handle stops the poller"]
pub struct Poller {
    cell: Rc<PollerCell>,
    core: Weak<ThreadCore>,
}

impl Poller {
    /// Calls `function` in every turn of the current thread.
    ///
    /// # Panics
    /// Outside a Spindle thread.
    #[track_caller]
    pub fn active(name: &str, wake: Wake, function: impl FnMut() -> Busy + 'static) -> Poller {
        // No sleep is short enough, so it is treated and named as spinning.
        let wake = if wake == Wake::Every(Duration::ZERO) { Wake::Spin } else { wake };
        let core = current::expect("a poller");
        let cell = PollerCell::new(name, Kind::Active(wake), None);
        core.pollers.insert_active(cell.clone(), Box::new(function));
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Calls `function` once per `period`, the first time one period from now. With a period of 0 it is an
    /// active poller that [spins](Wake::Spin).
    ///
    /// # Panics
    /// Outside a Spindle thread.
    #[track_caller]
    pub fn timed(name: &str, period: Duration, function: impl FnMut() -> Busy + 'static) -> Poller {
        if period.is_zero() {
            return Poller::active(name, Wake::Spin, function);
        }
        let core = current::expect("a poller");
        let cell = PollerCell::new(name, Kind::Timed(period), Some(Box::new(function)));
        core.pollers.insert_timed(cell.clone(), period, core.local.clock());
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Stops the calls until [`resume`](Self::resume). A second call has no effect.
    pub fn pause(&self) {
        if self.cell.turn_from(State::Active, State::Paused)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.paused();
        }
    }

    /// Restarts the calls; a timed poller waits a whole period first. A second call has no effect.
    pub fn resume(&self) {
        if self.cell.turn_from(State::Paused, State::Active)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.resume(&self.cell, core.local.clock());
        }
    }

    /// Calls so far, and calls that found work.
    pub fn runs(&self) -> (u64, u64) {
        (self.cell.runs.get(), self.cell.busy_runs.get())
    }

    /// The time of all calls so far, and of those that found work. For a poller that is called often this is
    /// an estimate: one call in 251 is measured, and represents 251, because measuring takes longer than an
    /// idle call. Zero in simulation, where nothing takes time.
    pub fn times(&self) -> (Duration, Duration) {
        self.cell.spent.times()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // A poller that panicked is stopped already.
        if self.cell.state.replace(State::Stopped) == State::Stopped {
            return;
        }
        // A thread that is gone has stopped all its pollers.
        if let Some(core) = self.core.upgrade() {
            core.pollers.forget_stopped();
            // Taken out first: the function's captures may hold pollers.
            let function = core.pollers.take_function(&self.cell);
            drop_caught(function);
        }
    }
}
