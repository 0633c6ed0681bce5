//! The wakers of tasks.
//!
//! Made by the thread's tasks, reused by them, and held by anything that a task waits for, on any OS thread. A
//! waker carries the thread, the place and a generation, so that a late wake finds another task, or none, and
//! has no effect. Waking sends a message, so `Wake` is implemented where messages are sent:
//! `message/send.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::thread::ThreadShared;

/// Identifies one task, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Schedules a task: directly on its own thread, by message from elsewhere.
pub(crate) struct TaskWaker {
    pub(crate) thread: Arc<ThreadShared>,
    pub(crate) key: TaskKey,
    /// Set while the task is scheduled: further wakes have no effect.
    queued: AtomicBool,
}

impl TaskWaker {
    /// A waker that counts as woken: a new task is scheduled.
    pub(super) fn new(thread: Arc<ThreadShared>, key: TaskKey) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { thread, key, queued: AtomicBool::new(true) })
    }

    /// Makes it the waker of a new task.
    pub(super) fn reuse(&mut self, key: TaskKey) {
        self.key = key;
        *self.queued.get_mut() = true;
    }

    /// The task is about to be polled: the next wake schedules it again.
    pub(super) fn begin_poll(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Marks the task as scheduled; true if it was not, and the caller must schedule it.
    pub(crate) fn mark(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// True if the task is scheduled, for a dump.
    pub(super) fn is_marked(&self) -> bool {
        self.queued.load(Ordering::Relaxed)
    }
}
