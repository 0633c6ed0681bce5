//! What a reactor runs right now, as others see it.
//!
//! Written by the reactor before every call: a few plain stores to a separate cache line. Read by the OS
//! thread that watches the runtime, and for a dump when the reactor itself does not answer. A reader may see
//! parts of two calls; two equal [samples](Sample) some time apart belong to one call.

use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spindle_engine::OsThread;
use spindle_ring::StaticRef;

/// What a reactor may be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// The reactor's own loop, or asleep.
    Nothing = 0,
    Message = 1,
    Task = 2,
    Poller = 3,
    Completion = 4,
    /// Destructors of an ending thread.
    End = 5,
}

const KIND_BITS: u32 = 3;

/// One reactor's activity. On cache lines of its own: it changes with every call.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Activity {
    /// The number of the call and its kind.
    call: AtomicU64,
    /// The id of the Spindle thread.
    thread: AtomicU64,
    /// Where the task was spawned, or the poller made.
    at: StaticRef<Location<'static>>,
    /// Its OS thread; 0 before it runs.
    os_thread: AtomicU32,
}

/// A call whose panic is being reported.
pub(crate) struct Paused(u64);

/// What an [`Activity`] showed at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    call: u64,
    pub(crate) thread: u64,
    at: Option<&'static Location<'static>>,
}

impl Activity {
    /// The reactor now runs on the calling OS thread.
    pub(crate) fn open(&self) {
        self.os_thread.store(OsThread::current().id(), Ordering::Relaxed);
    }

    /// The reactor's OS thread, once it runs.
    pub(crate) fn os_thread(&self) -> Option<OsThread> {
        let id = self.os_thread.load(Ordering::Relaxed);
        (id != 0).then(|| OsThread::from_id(id))
    }

    /// The reactor begins a thread's turn.
    #[inline]
    pub(crate) fn enter(&self, thread: u64) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The reactor is about to call something.
    #[inline]
    pub(crate) fn begin(&self, kind: CallKind, at: Option<&'static Location<'static>>) {
        // One writer: no read-modify-write is needed.
        let number = (self.call.load(Ordering::Relaxed) >> KIND_BITS) + 1;
        self.at.set(at);
        self.call.store(number << KIND_BITS | kind as u64, Ordering::Relaxed);
    }

    /// A call has panicked: until [`resume`](Self::resume) its panic is being reported, which may take long
    /// and is not counted as the call's time.
    pub(crate) fn pause(&self) -> Paused {
        let call = self.call.load(Ordering::Relaxed);
        self.call.store(call >> KIND_BITS << KIND_BITS, Ordering::Relaxed);
        Paused(call)
    }

    /// The report has ended; the call unwinds.
    pub(crate) fn resume(&self, Paused(call): Paused) {
        // A new number, so that its time starts again.
        self.call.store(call + (1 << KIND_BITS), Ordering::Relaxed);
    }

    /// The reactor is about to call its next poller; [`begin`](Self::begin) has set the kind. Two in a row
    /// differ in the place where they were made.
    #[inline]
    pub(crate) fn poller(&self, made_at: &'static Location<'static>) {
        self.at.set(Some(made_at));
    }

    /// What it shows now.
    pub(crate) fn sample(&self) -> Sample {
        let call = self.call.load(Ordering::Relaxed);
        Sample { call, thread: self.thread.load(Ordering::Relaxed), at: self.at.get() }
    }
}

impl Sample {
    /// True if the reactor was in its own loop, or asleep.
    pub(crate) fn is_nothing(&self) -> bool {
        self.call & ((1 << KIND_BITS) - 1) == CallKind::Nothing as u64
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            CallKind::Nothing,
            CallKind::Message,
            CallKind::Task,
            CallKind::Poller,
            CallKind::Completion,
            CallKind::End,
        ];
        let kind = kinds[(self.call & ((1 << KIND_BITS) - 1)) as usize % kinds.len()];
        match (kind, self.at) {
            (CallKind::Task, Some(at)) => write!(f, "the task spawned at {at}"),
            (CallKind::Poller, Some(at)) => write!(f, "the poller made at {at}"),
            (CallKind::Message, _) => f.write_str("a message"),
            (CallKind::Completion, _) => f.write_str("the handling of a completed operation"),
            (CallKind::End, _) => f.write_str("the end of the thread: what it drops"),
            (CallKind::Task, None) => f.write_str("a task"),
            (CallKind::Poller, None) => f.write_str("a poller"),
            (CallKind::Nothing, _) => f.write_str("the reactor's own loop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_names_the_call_and_differs_from_that_of_the_next_call() {
        let activity = Activity::default();
        activity.enter(3);
        activity.begin(CallKind::Message, None);
        let first = activity.sample();
        assert_eq!((first.thread, first.to_string().as_str(), first.is_nothing()), (3, "a message", false));
        activity.begin(CallKind::Task, Some(Location::caller()));
        let second = activity.sample();
        assert!(first != second && second.to_string().starts_with("the task spawned at crates/reactor/"));
        activity.begin(CallKind::Nothing, None);
        assert!(activity.sample().is_nothing());
    }
}
