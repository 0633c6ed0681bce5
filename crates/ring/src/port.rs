//! Where values for one receiver arrive, and how it goes to sleep and is woken.
//!
//! Shared by all who send to it. Other receivers come by rings of their own, made when first used; everybody
//! else by an inbox; what is not a value (news) by a third way. An awake receiver looks into its rings itself,
//! so that a value moves one cache line; its sleep flag is looked at by senders and written only around a
//! sleep. Each way can be closed: what comes later goes back to whom it came from.

use std::collections::VecDeque;
use std::sync::OnceLock;

use crate::express::{self, Receiver, Sender};
use crate::spsc::Front;
use crate::{Closed, Inbox, Sleep, Unpark};

/// Values that a ring holds. What has no room stays with the sender, where it takes turns by its flow. Under
/// loom as few as fill up within a model.
const EXPRESS_SLOTS: usize = if cfg!(loom) { 2 } else { 64 };
const BULK_SLOTS: usize = if cfg!(loom) { 1 } else { 64 };

/// A value from outside, with its tag of 63 bits.
#[derive(Debug, PartialEq, Eq)]
pub struct Tagged<T> {
    /// Whatever sender and receiver agreed on.
    pub tag: u64,
    /// The value.
    pub value: T,
}

/// The receiving side as its senders see it: values `T`, news `N`, and what ends its sleep.
pub struct Port<T, N, U> {
    sleep: Sleep,
    outside: Inbox<Tagged<T>>,
    rings: Inbox<Receiver<T>>,
    news: Inbox<N>,
    /// None before the receiver is there, which then looks before it first sleeps.
    unparker: OnceLock<U>,
}

impl<T: Send, N, U: Unpark> Default for Port<T, N, U> {
    fn default() -> Port<T, N, U> {
        Port::new()
    }
}

impl<T: Send, N, U: Unpark> Port<T, N, U> {
    /// Closed to nobody, and its receiver not there yet.
    pub fn new() -> Port<T, N, U> {
        Port {
            sleep: Sleep::new(),
            outside: Inbox::new(),
            rings: Inbox::new(),
            news: Inbox::new(),
            unparker: OnceLock::new(),
        }
    }

    /// Receiver: says how to wake it; called once.
    pub fn open(&self, unparker: U) {
        // A second call would be a second receiver on one port, which nothing makes.
        let _ = self.unparker.set(unparker);
    }

    /// Sender: makes rings to the receiver. Nobody is woken for that: what goes through them will. Once the
    /// port is closed they lead nowhere, and what is put there is dropped with them.
    pub(crate) fn connect(&self) -> Sender<T> {
        let (sender, receiver) = express::pair(EXPRESS_SLOTS, BULK_SLOTS);
        // Refused: the half is dropped, as if its receiver had ended a moment later.
        let _ = self.rings.push(0, receiver);
        sender
    }

    /// Sender without rings: leaves a value. FIFO per sender and flow; flows are numbered from 0, without large
    /// gaps.
    ///
    /// # Errors
    /// The value comes back once the port is closed.
    pub fn push(&self, flow: usize, tag: u64, value: T) -> Result<(), Closed<Tagged<T>>> {
        self.outside.push(flow, Tagged { tag, value })?;
        self.wake();
        Ok(())
    }

    /// Anybody: leaves news.
    ///
    /// # Errors
    /// They come back once the port is closed.
    pub fn tell(&self, news: N) -> Result<(), Closed<N>> {
        self.news.push(0, news)?;
        self.wake();
        Ok(())
    }

    /// Whether the receiver is seen asleep: a glance, see [`Sleep::seems_asleep`].
    #[inline]
    pub(crate) fn seems_asleep(&self) -> bool {
        self.sleep.seems_asleep()
    }

    /// Sender: wakes the receiver if it sleeps, after leaving something.
    pub(crate) fn wake(&self) {
        if self.sleep.wake() {
            self.unpark();
        }
    }

    /// Makes the receiver look, asleep or not.
    pub fn unpark(&self) {
        self.unparker.get().into_iter().for_each(Unpark::unpark);
    }

    /// Receiver: whether something waits beside the rings that it knows.
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.outside.is_empty() || self.has_news()
    }

    /// Receiver: whether there are rings to take over, or news.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.rings.is_empty() || !self.news.is_empty()
    }

    /// Receiver: up to `budget` of the values from outside, to the end of `into`. Flows take turns.
    #[inline]
    pub fn take_outside(&self, budget: usize, into: &mut VecDeque<Tagged<T>>) {
        self.outside.take(budget, into);
    }

    /// Receiver: the news, to the end of `into`.
    pub fn take_news(&self, into: &mut VecDeque<N>) {
        self.news.take(usize::MAX, into);
    }

    /// Receiver: is about to sleep; false if something came meanwhile and it must not. In either case it is
    /// [`awake`](Self::awake) again before it takes anything.
    pub fn fall_asleep(&self, rings: &Rings<T>) -> bool {
        self.sleep.prepare();
        !self.has_mail() && rings.are_empty()
    }

    /// Receiver: no longer asleep, whoever woke it.
    pub fn awake(&self) {
        self.sleep.cancel();
    }

    /// Receiver, at its end: refuses what comes from now on by inbox or as news; what is left of both comes
    /// back. What is in rings is dropped with them.
    pub fn close(&self) -> (VecDeque<Tagged<T>>, VecDeque<N>) {
        let (mut values, mut news) = (VecDeque::new(), VecDeque::new());
        self.outside.close(&mut values);
        self.news.close(&mut news);
        // Dropped when the lock is open again: what is in them may send when it is dropped.
        let mut rings = VecDeque::new();
        self.rings.close(&mut rings);
        (values, news)
    }
}

/// The receiver's ends of the rings into one port.
pub struct Rings<T> {
    rings: Vec<Receiver<T>>,
    /// The one that is looked at first the next time: what a budget is too small for is not always the same.
    first: usize,
}

impl<T: Send> Default for Rings<T> {
    fn default() -> Rings<T> {
        Rings { rings: Vec::new(), first: 0 }
    }
}

impl<T: Send> Rings<T> {
    /// Takes over what senders have made.
    pub fn adopt<N, U>(&mut self, port: &Port<T, N, U>) {
        let mut new = VecDeque::new();
        port.rings.take(usize::MAX, &mut new);
        self.rings.extend(new);
    }

    /// Whether no ring holds a value.
    pub fn are_empty(&self) -> bool {
        self.rings.iter().all(Receiver::is_empty)
    }

    /// Whether a value came by express: the first ones of a flow that was at rest do.
    #[inline]
    pub fn have_express(&self) -> bool {
        self.rings.iter().any(Receiver::has_express)
    }

    /// Takes what there is in express and up to `budget` values out of bulk; true if there was something. Once
    /// `deliver` has answered false, nothing more comes out of bulk.
    #[inline]
    pub fn take(&mut self, mut budget: usize, mut deliver: impl FnMut(Front<'_, T>) -> bool) -> bool {
        let mut any = false;
        let (last, first) = self.rings.split_at_mut(self.first);
        for ring in first.iter_mut().chain(last) {
            any |= ring.take(&mut budget, &mut deliver);
        }
        self.first = if self.first + 1 < self.rings.len() { self.first + 1 } else { 0 };
        any
    }
}
