//! How an event reaches lanes on other threads: one mailbox per lane table.
//!
//! Shared by the table and by the states of the devices that have a lane there. A letter carries an
//! obligation; dropping it meets it, so the sender learns of every end: read, lane closed, thread exited. No
//! lock is held during a call.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use spindle_reactor::Thread;

use crate::{LaneEvent, StatisticsReset};

/// Locks a mutex, ignoring poison: what it guards is whole between any two statements.
pub(crate) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a letter says.
#[derive(Clone)]
pub(crate) enum Body {
    /// An event for the lane.
    Event(LaneEvent),
    /// The device wants other settings beside the lane.
    Wanted,
    /// Resets the lane's counts.
    Reset(StatisticsReset),
    /// Requests in front of the lane may go now.
    Recheck,
    /// Met when the requests that the lane has now have ended or wait in front of it.
    Settle,
    /// Polls the lane.
    Notify,
}

/// A message for one lane, and the obligation towards its sender.
pub(crate) struct Letter {
    pub(crate) lane: u32,
    pub(crate) generation: u32,
    pub(crate) body: Body,
    pub(crate) obligation: Option<Obligation>,
}

/// What reaches a table from other threads.
pub(crate) struct Mailbox {
    /// The table's thread; a table without one reads its mail when it is stepped.
    thread: Option<Thread>,
    /// Makes the table read its mail; called on its thread.
    read: fn(&Arc<Mailbox>),
    any: AtomicBool,
    /// `None` once the table is gone.
    letters: Mutex<Option<VecDeque<Letter>>>,
}

impl Mailbox {
    /// The mailbox of a table that the calling thread makes. `read` makes that table read its mail.
    pub(crate) fn new(read: fn(&Arc<Mailbox>)) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            thread: Thread::current(),
            read,
            any: AtomicBool::new(false),
            letters: Mutex::new(Some(VecDeque::new())),
        })
    }

    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.thread.as_ref()
    }

    /// Leaves a letter; true if the table must be [rung](Self::ring).
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

    /// Makes the thread read its mail.
    pub(crate) fn ring(self: &Arc<Mailbox>) {
        let Some(thread) = &self.thread else { return };
        let mailbox = self.clone();
        // A thread that has exited has dropped its table, and the letters with it.
        let _ = thread.send_msg(move || (mailbox.read)(&mailbox));
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

    /// Closes the mailbox of a dropped table.
    pub(crate) fn close(&self) {
        let left = locked(&self.letters).take();
        drop(left);
    }
}

/// As [`Notifier`](crate::Notifier), from any thread: polls a lane, and offers it again the requests for
/// which it was full.
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

    /// Polls the lane in a later turn of its thread, or in the next step of a table that is stepped by hand.
    pub fn notify(&self) {
        let (lane, generation) = (self.lane, self.generation);
        if self.mailbox.leave(Letter { lane, generation, body: Body::Notify, obligation: None }) {
            self.mailbox.ring();
        }
    }
}

/// As a waker, makes the table poll the lane.
impl Wake for RemoteNotifier {
    fn wake(self: Arc<Self>) {
        self.notify();
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

/// The lanes that have not handled an event yet.
#[derive(Default)]
struct Round {
    left: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

/// What one lane owes to the sender of an event; dropping it meets it.
pub(crate) struct Obligation(Arc<Round>);

impl Obligation {
    /// The first obligation of an event, and the future that waits for it and all its clones.
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

/// Resolves when every lane that a device had has handled an event, or is closed. The event is on its way
/// whether this is awaited or dropped.
#[must_use = "the event is on its way, but nothing waits until it has arrived"]
pub struct Delivered(Arc<Round>);

impl Delivered {
    /// True if it would resolve at once.
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
        // Checked again: the last obligation may have been met before the waker was stored.
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivered({} lanes left)", self.0.left.load(Ordering::Relaxed))
    }
}
