//! The cores on which the kernel may run a reactor's OS thread.
//!
//! Owned by that OS thread. A reactor that polls has its core to itself. One that sleeps whenever it is idle may
//! run on any core of the runtime: the kernel then wakes it where that is cheapest, often beside the process that
//! waits for its answer, since waking another core costs more than the work itself.

use spindle_engine::{CpuSet, run_on};

use crate::mode::Mode;

/// Where one reactor may run.
pub(crate) struct Placement {
    own: CpuSet,
    all: CpuSet,
    /// True if it may run on all of them now.
    floats: bool,
}

impl Placement {
    /// For the reactor of `core` among those of `cores`. Its OS thread is pinned to its core.
    pub(crate) fn pinned(core: usize, cores: &[usize]) -> Placement {
        Placement { own: CpuSet::from_iter([core]), all: cores.iter().copied().collect(), floats: false }
    }

    /// Moves the calling OS thread, if the mode has changed.
    #[inline]
    pub(crate) fn follow(&mut self, mode: Mode) {
        let floats = mode == Mode::Interrupt;
        if floats != self.floats {
            self.floats = floats;
            run_on(if floats { &self.all } else { &self.own });
        }
    }
}
