//! The half of a thread that all OS threads of the runtime share.
//!
//! The thread itself lives and dies on its reactor; this half stays while a handle on it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use spindle_engine::CpuSet;

use crate::error::ThreadGone;
use crate::shared::Shared;
use crate::shared::port::Address;
use crate::shared::wait_list::WaitList;

/// The thread runs.
pub(crate) const RUNNING: u8 = 0;
/// Exit was asked for; it runs until nothing is left.
pub(crate) const EXITING: u8 = 1;
/// It has exited.
pub(crate) const EXITED: u8 = 2;

/// The shared half of a thread. Aligned so that its reference counts, which holders on other cores change,
/// have a cache line of their own.
#[repr(align(128))]
pub(crate) struct ThreadShared {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) cpuset: CpuSet,
    /// Its slot in its reactor's table.
    pub(crate) slot: u32,
    pub(crate) reactor: usize,
    pub(crate) runtime: Arc<Shared>,
    pub(crate) state: AtomicU8,
    /// Tasks that wait for its end.
    pub(crate) joining: WaitList,
}

impl ThreadShared {
    #[inline(always)]
    pub(crate) fn address(&self) -> Address {
        Address { slot: self.slot, id: self.id as u32 }
    }

    /// True if exit was asked for and is not complete.
    pub(crate) fn is_exiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == EXITING
    }

    /// True if it has exited.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) == EXITED
    }

    pub(crate) fn gone(&self) -> ThreadGone {
        ThreadGone { thread: self.name.to_string() }
    }

    /// Marks the end and wakes the tasks that wait for it.
    pub(crate) fn set_exited(&self) {
        self.state.store(EXITED, Ordering::Release);
        self.joining.wake_all();
    }
}
