//! The receiving end: where values for one receiver arrive, and how it sleeps and is woken.
//!
//! Shared by all its senders. Other receivers send through rings of their own, made on first use; other
//! threads through an inbox; events that are not values (news) through a third queue. An awake receiver reads
//! its rings itself, so that a value moves one cache line; senders read its sleep flag, which is written only
//! around a sleep. Each way can be closed: later values are returned to their senders.

use std::collections::VecDeque;
use std::sync::OnceLock;

use crate::express::{self, Receiver, Sender};
use crate::spsc::Front;
use crate::{Closed, Inbox, Sleep, Unpark};

/// Values that a ring holds. Further ones stay with the sender, where flows take turns. Under loom, few
/// enough to fill up within a model.
const EXPRESS_SLOTS: usize = if cfg!(loom) { 2 } else { 64 };
const BULK_SLOTS: usize = if cfg!(loom) { 1 } else { 64 };

/// A value from the inbox, with its tag of 63 bits.
#[derive(Debug, PartialEq, Eq)]
pub struct Tagged<T> {
    /// Its meaning is agreed on by sender and receiver.
    pub tag: u64,
    /// The value.
    pub value: T,
}

/// The receiving end as its senders see it: values `T`, news `N`, and the waker `U`.
pub struct Port<T, N, U> {
    sleep: Sleep,
    inbox: Inbox<Tagged<T>>,
    rings: Inbox<Receiver<T>>,
    news: Inbox<N>,
    /// Not set before the receiver exists, which reads its queues before it first sleeps.
    unparker: OnceLock<U>,
}

impl<T: Send, N, U: Unpark> Default for Port<T, N, U> {
    fn default() -> Port<T, N, U> {
        Port::new()
    }
}

impl<T: Send, N, U: Unpark> Port<T, N, U> {
    /// Open, for a receiver that does not exist yet.
    pub fn new() -> Port<T, N, U> {
        Port {
            sleep: Sleep::new(),
            inbox: Inbox::new(),
            rings: Inbox::new(),
            news: Inbox::new(),
            unparker: OnceLock::new(),
        }
    }

    /// Receiver: sets its waker; called once.
    pub fn open(&self, unparker: U) {
        // A second call would be a second receiver on one port, which is never made.
        let _ = self.unparker.set(unparker);
    }

    /// Sender: makes rings to the receiver, which is not woken for that: the first value will. Once the port
    /// is closed they lead nowhere, and values put there are dropped with them.
    pub(crate) fn connect(&self) -> Sender<T> {
        let (sender, receiver) = express::pair(EXPRESS_SLOTS, BULK_SLOTS);
        // Refused: the half is dropped, as if its receiver had ended a moment later.
        let _ = self.rings.push(0, receiver);
        sender
    }

    /// Sender without rings: sends a value. FIFO per sender and flow; flows are numbered from 0, without
    /// large gaps.
    ///
    /// # Errors
    /// The value is returned once the port is closed.
    pub fn push(&self, flow: usize, tag: u64, value: T) -> Result<(), Closed<Tagged<T>>> {
        self.inbox.push(flow, Tagged { tag, value })?;
        self.wake();
        Ok(())
    }

    /// Any thread: sends news.
    ///
    /// # Errors
    /// The news is returned once the port is closed.
    pub fn tell(&self, news: N) -> Result<(), Closed<N>> {
        self.news.push(0, news)?;
        self.wake();
        Ok(())
    }

    /// True if the receiver seems asleep: a glance, see [`Sleep::seems_asleep`].
    #[inline]
    pub(crate) fn seems_asleep(&self) -> bool {
        self.sleep.seems_asleep()
    }

    /// Sender: wakes the receiver if it sleeps, after sending.
    pub(crate) fn wake(&self) {
        if self.sleep.wake() {
            self.unpark();
        }
    }

    /// Wakes the receiver, asleep or not.
    pub fn unpark(&self) {
        self.unparker.get().into_iter().for_each(Unpark::unpark);
    }

    /// Receiver: true if anything waits outside its known rings.
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.inbox.is_empty() || self.has_news()
    }

    /// Receiver: true if there are rings to take over, or news.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.rings.is_empty() || !self.news.is_empty()
    }

    /// Receiver: moves up to `budget` values out of the inbox to the end of `into`. Flows take turns.
    #[inline]
    pub fn take_inbox(&self, budget: usize, into: &mut VecDeque<Tagged<T>>) {
        self.inbox.take(budget, into);
    }

    /// Receiver: moves the news to the end of `into`.
    pub fn take_news(&self, into: &mut VecDeque<N>) {
        self.news.take(usize::MAX, into);
    }

    /// Receiver: before sleeping; false if anything arrived meanwhile and it must not. In either case call
    /// [`awake`](Self::awake) before taking anything.
    pub fn fall_asleep(&self, rings: &Rings<T>) -> bool {
        self.sleep.prepare();
        !self.has_mail() && rings.are_empty()
    }

    /// Receiver: after sleeping, for any reason of the wake-up.
    pub fn awake(&self) {
        self.sleep.cancel();
    }

    /// Receiver, at its end: refuses later values in the inbox and news, and returns those left in both.
    /// Values in rings are dropped with them.
    pub fn close(&self) -> (VecDeque<Tagged<T>>, VecDeque<N>) {
        let (mut values, mut news) = (VecDeque::new(), VecDeque::new());
        self.inbox.close(&mut values);
        self.news.close(&mut news);
        // Dropped after the lock is released: the destructors of values may send.
        let mut rings = VecDeque::new();
        self.rings.close(&mut rings);
        (values, news)
    }
}

/// The receiver's ends of the rings into one port.
pub struct Rings<T> {
    rings: Vec<Receiver<T>>,
    /// The ring to read first the next time, so that a small budget does not always favour the same one.
    first: usize,
}

impl<T: Send> Default for Rings<T> {
    fn default() -> Rings<T> {
        Rings { rings: Vec::new(), first: 0 }
    }
}

impl<T: Send> Rings<T> {
    /// Takes over rings made by senders.
    pub fn adopt<N, U>(&mut self, port: &Port<T, N, U>) {
        let mut new = VecDeque::new();
        port.rings.take(usize::MAX, &mut new);
        self.rings.extend(new);
    }

    /// True if no ring holds a value.
    pub fn are_empty(&self) -> bool {
        self.rings.iter().all(Receiver::is_empty)
    }

    /// True if a value came by express, as the first ones of a flow at rest do.
    #[inline]
    pub fn have_express(&self) -> bool {
        self.rings.iter().any(Receiver::has_express)
    }

    /// Takes the values in express and up to `budget` values out of bulk; true if there were any. Once
    /// `deliver` returns false, nothing more is taken out of bulk.
    #[inline]
    pub fn take(&mut self, mut budget: usize, mut deliver: impl FnMut(Front<'_, T>) -> bool) -> bool {
        // A receiver that is alone has none.
        if self.rings.is_empty() {
            return false;
        }
        let mut any = false;
        let (last, first) = self.rings.split_at_mut(self.first);
        for ring in first.iter_mut().chain(last) {
            any |= ring.take(&mut budget, &mut deliver);
        }
        self.first = if self.first + 1 < self.rings.len() { self.first + 1 } else { 0 };
        any
    }
}
