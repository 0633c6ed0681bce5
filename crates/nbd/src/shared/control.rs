//! The server's view of a connection, and its means to stop it, from any thread.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use spindle_engine::Time;

use super::{Exported, Options};
use crate::origin::Origin;
use crate::stats::Counters;

/// What a connection must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stop {
    /// Go on.
    No = 0,
    /// Finish requests under way, refuse later ones, and end. A client that does not read the replies has a while.
    Gently = 1,
    /// End without sending another byte.
    AtOnce = 2,
}

/// The half of a connection that every thread can use.
pub(crate) struct Control {
    pub(crate) id: u64,
    /// The other end, for messages.
    pub(crate) peer: String,
    pub(crate) origin: Origin,
    /// Set when a client begins to use an export.
    export: Mutex<Option<Arc<Exported>>>,
    pub(crate) counters: Counters,
    stop: AtomicU8,
    task: Mutex<Option<Waker>>,
    /// Set once TLS has begun.
    encrypted: AtomicBool,
    /// Set when the client leaves as the protocol says.
    left_properly: AtomicBool,
    /// When the send that is under way began.
    sending_since: Moment,
    /// When the last bytes of a payload came that memory is held for.
    owing_since: Moment,
}

/// A time that any thread reads, or none.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, time: Option<Time>) {
        self.0.store(time.map_or(0, |time| time.as_nanos().max(1)), Ordering::Relaxed);
    }

    /// True if the time is set, and longer ago than `span`.
    fn is_over(&self, now: Time, span: Duration) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            nanos => now.since(Time(nanos)) > span,
        }
    }
}

impl Control {
    pub(crate) fn new(id: u64, peer: String, origin: Origin) -> Control {
        Control {
            id,
            peer,
            origin,
            export: Mutex::default(),
            counters: Counters::default(),
            stop: AtomicU8::new(Stop::No as u8),
            task: Mutex::default(),
            encrypted: AtomicBool::new(false),
            left_properly: AtomicBool::new(false),
            sending_since: Moment::default(),
            owing_since: Moment::default(),
        }
    }

    /// The export in use.
    pub(crate) fn export(&self) -> Option<Arc<Exported>> {
        self.export.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the export in use.
    pub(crate) fn set_export(&self, exported: Option<Arc<Exported>>) {
        *self.export.lock().unwrap_or_else(PoisonError::into_inner) = exported;
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the connection; never weakens an earlier stop.
    pub(crate) fn stop(&self, stop: Stop) {
        if self.stop.fetch_max(stop as u8, Ordering::AcqRel) < stop as u8 {
            let task = self.task().clone();
            task.into_iter().for_each(Waker::wake);
        }
    }

    /// The present order.
    pub(crate) fn told(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Gently,
            _ => Stop::AtOnce,
        }
    }

    /// Sets the task to wake: call it before [`told`](Self::told), and again if the task has another waker.
    pub(crate) fn belong_to(&self, cx: &Context<'_>) {
        *self.task() = Some(cx.waker().clone());
    }

    /// Notes that the connection is encrypted from here on.
    pub(crate) fn encrypted(&self) {
        self.encrypted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted.load(Ordering::Relaxed)
    }

    /// Notes that the client leaves as the protocol says.
    pub(crate) fn leaves_properly(&self) {
        self.left_properly.store(true, Ordering::Relaxed);
    }

    /// True if the client has made a request or left as the protocol says.
    pub(crate) fn came_to_something(&self) -> bool {
        self.left_properly.load(Ordering::Relaxed) || self.counters.counts().requests() > 0
    }

    /// Notes that a send begins, or that none is under way.
    pub(crate) fn sending(&self, since: Option<Time>) {
        self.sending_since.set(since);
    }

    /// Notes when the last bytes came of a payload that memory is held for, or that the client owes none.
    pub(crate) fn owing(&self, since: Option<Time>) {
        self.owing_since.set(since);
    }

    /// True if the client has for too long held memory that others may wait for.
    pub(crate) fn is_stuck(&self, now: Time, options: &Options) -> bool {
        self.sending_since.is_over(now, options.stalled) || self.owing_since.is_over(now, options.withheld)
    }
}
