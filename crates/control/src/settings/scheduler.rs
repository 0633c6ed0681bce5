//! The scheduler's settings: kept and shown without effect, as no thread moves.

use std::cell::Cell;

use spindle_reactor::CpuSet;

/// The settings.
#[derive(Default)]
pub(crate) struct SchedulerSettings {
    pub(crate) period: Cell<u64>,
    /// The core that SPDK's scheduler would run on, if it was set.
    pub(crate) core: Cell<Option<usize>>,
    /// Cores that a scheduler would leave alone.
    pub(crate) isolated: Cell<CpuSet>,
}
