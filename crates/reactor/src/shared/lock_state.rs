//! The state of a checked lock without its value: its name, and its holder.
//!
//! Shared by the lock, by reactors that wait for it, and by the code that watches them.

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use crate::shared::lock_wait::LockWaits;

/// What a runtime does when one of its locks finds a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockAction {
    /// Panics at the place of the mistake: that task ends, the rest goes on.
    #[default]
    Panic,
    /// Reports it and ends the process, as SPDK does.
    Abort,
}

/// The thread that holds a lock, or waits for it, and the line that takes it.
#[derive(Clone)]
pub(crate) struct Holder {
    /// The id of its Spindle thread, its name, its reactor and the core of that.
    pub(crate) thread: u64,
    pub(crate) name: Arc<str>,
    pub(crate) reactor: usize,
    pub(crate) core: usize,
    /// What the reactors of its runtime wait for.
    pub(crate) waits: Arc<LockWaits>,
    /// Its OS thread: a thread stepped within the call may run on the same one.
    pub(crate) os_thread: ThreadId,
    pub(crate) taken_at: &'static Location<'static>,
}

impl Holder {
    /// The thread and its core, for a report.
    pub(crate) fn place(&self) -> String {
        format!("thread {} ({}) on core {}", self.thread, self.name, self.core)
    }
}

/// A lock without its value.
pub(crate) struct LockState {
    pub(crate) name: Box<str>,
    holder: Mutex<Option<Holder>>,
}

impl LockState {
    pub(crate) fn new(name: &str) -> Arc<LockState> {
        Arc::new(LockState { name: name.into(), holder: Mutex::new(None) })
    }

    /// Its holder.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the holder: the lock was taken, or is about to be free.
    pub(crate) fn set_holder(&self, holder: Option<Holder>) {
        let before =
            std::mem::replace(&mut *self.holder.lock().unwrap_or_else(PoisonError::into_inner), holder);
        drop(before);
    }
}
