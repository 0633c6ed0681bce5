//! How an event reaches the lanes of other threads: one mailbox for each lane table.
//!
//! Shared by the table and by the states of the devices that have a lane there. A letter comes with an
//! obligation, which is met by dropping it, so that the sender hears of every end: read, lane closed, thread
//! exited. No lock is held while anybody is called.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use spindle_reactor::Thread;

use crate::{LaneEvent, LaneTable, StatisticsReset};

/// A lock that a panic elsewhere does not close: what it guards is whole between any two statements.
pub(crate) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a letter says.
#[derive(Clone)]
pub(crate) enum Body {
    /// Something for the lane to hear.
    Event(LaneEvent),
    /// What the table does beside the lane is to be something else.
    Wanted,
    /// The lane's counts begin anew.
    Reset(StatisticsReset),
    /// What waits in front of the lane may go now.
    Recheck,
    /// The lane has something to do.
    Notify,
}

/// A message for one lane, and what its sender is owed.
pub(crate) struct Letter {
    pub(crate) lane: u32,
    pub(crate) generation: u32,
    pub(crate) body: Body,
    pub(crate) obligation: Option<Obligation>,
}

/// What reaches a table from other threads.
pub(crate) struct Mailbox {
    /// Whose table it is; a table without a thread looks when it is stepped.
    thread: Option<Thread>,
    any: AtomicBool,
    /// `None` once the table is gone.
    letters: Mutex<Option<VecDeque<Letter>>>,
}

impl Mailbox {
    /// The mailbox of a table that the calling thread makes.
    pub(crate) fn new() -> Arc<Mailbox> {
        Arc::new(Mailbox {
            thread: Thread::current(),
            any: AtomicBool::new(false),
            letters: Mutex::new(Some(VecDeque::new())),
        })
    }

    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.thread.as_ref()
    }

    /// Leaves a letter; whether the table must be [rung](Self::ring).
    pub(crate) fn leave(&self, letter: Letter) -> bool {
        let mut letters = locked(&self.letters);
        match &mut *letters {
            Some(list) => list.push_back(letter),
            None => {
                drop(letters);
                drop(letter);
                return false;
            }
        }
        drop(letters);
        !self.any.swap(true, Ordering::AcqRel)
    }

    /// Has the thread read its mail.
    pub(crate) fn ring(self: &Arc<Mailbox>) {
        let Some(thread) = &self.thread else { return };
        let mailbox = self.clone();
        // A thread that has exited took its table, and the letters, with it.
        let _ = thread.send_msg(move || {
            if let Some(table) = LaneTable::current()
                && Arc::ptr_eq(table.0.mailbox(), &mailbox)
            {
                table.0.read_mail();
            }
        });
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// All letters, in order.
    pub(crate) fn take(&self) -> VecDeque<Letter> {
        self.any.store(false, Ordering::Release);
        locked(&self.letters).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The table is gone.
    pub(crate) fn close(&self) {
        let left = locked(&self.letters).take();
        drop(left);
    }
}

/// As [`Notifier`](crate::Notifier), from any thread: has a lane polled, and offered again what it was too full for.
/// Nothing happens if the lane is closed.
#[derive(Clone)]
pub struct RemoteNotifier {
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
}

impl RemoteNotifier {
    pub(crate) fn new(mailbox: Arc<Mailbox>, lane: u32, generation: u32) -> RemoteNotifier {
        RemoteNotifier { mailbox, lane, generation }
    }

    /// Has the lane polled, in a later turn of its thread. A table that is stepped by hand does so when it is.
    pub fn notify(&self) {
        let (lane, generation) = (self.lane, self.generation);
        if self.mailbox.leave(Letter { lane, generation, body: Body::Notify, obligation: None }) {
            self.mailbox.ring();
        }
    }
}

impl PartialEq for RemoteNotifier {
    fn eq(&self, other: &RemoteNotifier) -> bool {
        let lanes = (self.lane, self.generation) == (other.lane, other.generation);
        lanes && Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

impl std::fmt::Debug for RemoteNotifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteNotifier({}, {})", self.lane, self.generation)
    }
}

/// Those who have not yet seen to an event.
#[derive(Default)]
struct Round {
    left: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

/// What one lane owes to the sender of an event; met by dropping it.
pub(crate) struct Obligation(Arc<Round>);

impl Obligation {
    /// One that nobody else has yet, and the wait for it and all that are made of it.
    pub(crate) fn new() -> (Obligation, Delivered) {
        let round = Arc::new(Round { left: AtomicUsize::new(1), waker: Mutex::default() });
        (Obligation(round.clone()), Delivered(round))
    }
}

impl Clone for Obligation {
    fn clone(&self) -> Obligation {
        self.0.left.fetch_add(1, Ordering::Relaxed);
        Obligation(self.0.clone())
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waker = locked(&self.0.waker).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Resolves when every lane that a device had has seen to an event, or is closed. The event is on its way
/// whether this is awaited or dropped.
#[must_use = "the event is on its way, but nothing waits until it has arrived"]
pub struct Delivered(Arc<Round>);

impl Delivered {
    /// Whether it would resolve at once.
    pub fn is_over(&self) -> bool {
        self.0.left.load(Ordering::Acquire) == 0
    }
}

impl Future for Delivered {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        *locked(&self.0.waker) = Some(cx.waker().clone());
        // Looked at again: the last obligation may have been met before the waker was there.
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivered({} lanes left)", self.0.left.load(Ordering::Relaxed))
    }
}
