//! The scheduler's settings: kept and shown without effect, as no thread moves.

use std::cell::Cell;

use spindle_reactor::CpuSet;
use spindle_rpc::State;

/// The period that SPDK shows once a scheduler was set, in microseconds.
const PERIOD: u64 = 1_000_000;

/// The settings.
#[derive(Default)]
pub(crate) struct SchedulerSettings {
    /// A scheduler was set, by a call or by the start of the framework.
    chosen: Cell<bool>,
    period: Cell<u64>,
    /// The core that SPDK's scheduler would run on, if it was set.
    pub(crate) core: Cell<Option<usize>>,
    /// Cores that a scheduler would leave alone.
    pub(crate) isolated: Cell<CpuSet>,
}

impl SchedulerSettings {
    /// Sets the scheduler if none is set yet. Its start forgets the period, as that of SPDK's static one does.
    pub(crate) fn choose(&self) {
        if !self.chosen.replace(true) {
            self.period.set(0);
        }
    }

    /// Whether a scheduler is set. The framework sets one when it starts.
    pub(crate) fn is_chosen(&self, state: State) -> bool {
        if state == State::Runtime {
            self.choose();
        }
        self.chosen.get()
    }

    /// In microseconds.
    pub(crate) fn period(&self, state: State) -> u64 {
        self.is_chosen(state);
        self.period.get()
    }

    /// Sets the period. If it is 0 it stays as it is, but is never 0.
    pub(crate) fn set_period(&self, state: State, asked: u64) {
        let period = if asked == 0 { self.period(state) } else { asked };
        self.is_chosen(state);
        self.period.set(if period == 0 { PERIOD } else { period });
    }
}
