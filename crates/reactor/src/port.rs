//! Where messages for one reactor arrive.
//!
//! Shared by all who send to it. Other reactors come by a ring of their own, made when first used; plain
//! OS threads and runners by the inbox. One bit per sending reactor says which ring to look into.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use spindle_engine::Unparker;
use spindle_ring::{Call, Closed, Inbox, Pending, Sleep, spsc};

use crate::thread::ThreadShared;

/// Messages that a ring holds before its sender keeps the rest.
const RING_SLOTS: usize = 256;

/// A message on its way: one cache line.
pub(crate) struct Envelope {
    /// The target's place in its reactor's table.
    pub(crate) slot: u32,
    /// The low half of the target's id: a late message to a place that has a new owner is dropped.
    pub(crate) id: u32,
    pub(crate) call: Call,
}

/// A ring made by a sender, to be taken over by the receiver.
type NewRing = (usize, spsc::Consumer<Envelope>);

/// The receiving side of one reactor, as its senders see it.
pub(crate) struct Port {
    pending: Pending,
    pub(crate) sleep: Sleep,
    inbox: Inbox<Envelope>,
    new_rings: Mutex<Vec<NewRing>>,
    adoptions: Mutex<Vec<Arc<ThreadShared>>>,
    /// Something is in `adoptions`.
    adopting: AtomicBool,
    unparker: OnceLock<Unparker>,
}

impl Port {
    /// A port for a runtime of `reactors` reactors.
    pub(crate) fn new(reactors: usize) -> Port {
        Port {
            pending: Pending::new(reactors),
            sleep: Sleep::new(),
            inbox: Inbox::new(),
            new_rings: Mutex::default(),
            adoptions: Mutex::default(),
            adopting: AtomicBool::new(false),
            unparker: OnceLock::new(),
        }
    }

    /// Says how to wake the reactor; called once, by it.
    pub(crate) fn open(&self, unparker: Unparker) {
        // A second call would be a second reactor on one port, which nothing makes.
        let _ = self.unparker.set(unparker);
    }

    /// Makes the ring from reactor `sender`.
    pub(crate) fn connect(&self, sender: usize) -> spsc::Producer<Envelope> {
        let (producer, consumer) = spsc::ring(RING_SLOTS);
        lock(&self.new_rings).push((sender, consumer));
        producer
    }

    /// Says that `sender` has pushed into its ring.
    #[inline]
    pub(crate) fn pushed_by(&self, sender: usize) {
        if self.pending.set(sender) {
            self.wake();
        }
    }

    /// Leaves a message from outside of the runtime's reactors.
    pub(crate) fn push_foreign(&self, envelope: Envelope) -> Result<(), Closed<Envelope>> {
        self.inbox.push(envelope)?;
        self.wake();
        Ok(())
    }

    /// Hands a new thread to the reactor.
    pub(crate) fn adopt(&self, thread: Arc<ThreadShared>) {
        lock(&self.adoptions).push(thread);
        self.adopting.store(true, Ordering::Release);
        self.wake();
    }

    /// Receiver: the threads handed over since the last call.
    pub(crate) fn take_adoptions(&self) -> Vec<Arc<ThreadShared>> {
        if !self.adopting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut adoptions = lock(&self.adoptions);
        self.adopting.store(false, Ordering::Relaxed);
        std::mem::take(&mut *adoptions)
    }

    /// Receiver: moves what came in to `into`: at most `budget` messages of each ring, all of the inbox.
    pub(crate) fn receive(&self, rings: &mut Rings, budget: usize, into: &mut VecDeque<Envelope>) {
        self.pending.take_all(|sender| rings.mark(sender, self));
        rings.drain(budget, into);
        self.inbox.drain(into);
    }

    /// Receiver: whether something waits. To be asked between raising the sleep flag and sleeping.
    pub(crate) fn has_mail(&self) -> bool {
        self.pending.any() || !self.inbox.is_empty() || self.adopting.load(Ordering::Acquire)
    }

    /// Receiver: refuses foreign messages from now on; what is left is dropped.
    pub(crate) fn close(&self) {
        let mut left = VecDeque::new();
        self.inbox.close(&mut left);
    }

    /// Wakes the reactor if it sleeps.
    pub(crate) fn wake(&self) {
        if self.sleep.wake() {
            self.unpark();
        }
    }

    /// Makes the reactor look, asleep or not.
    pub(crate) fn unpark(&self) {
        if let Some(unparker) = self.unparker.get() {
            unparker.unpark();
        }
    }
}

/// The receiver's ends of the rings into one reactor.
#[derive(Default)]
pub(crate) struct Rings {
    /// By sender.
    consumers: Vec<Option<spsc::Consumer<Envelope>>>,
    /// Senders whose ring may hold something.
    marked: Vec<usize>,
}

impl Rings {
    /// Whether a ring was left with messages in it.
    pub(crate) fn has_more(&self) -> bool {
        !self.marked.is_empty()
    }

    fn mark(&mut self, sender: usize, port: &Port) {
        if self.consumers.get(sender).is_none_or(Option::is_none) {
            for (sender, consumer) in lock(&port.new_rings).drain(..) {
                if self.consumers.len() <= sender {
                    self.consumers.resize_with(sender + 1, || None);
                }
                self.consumers[sender] = Some(consumer);
            }
        }
        if !self.marked.contains(&sender) {
            self.marked.push(sender);
        }
    }

    fn drain(&mut self, budget: usize, into: &mut VecDeque<Envelope>) {
        let consumers = &mut self.consumers;
        self.marked.retain(|&sender| {
            let Some(Some(consumer)) = consumers.get_mut(sender) else { return false };
            for _ in 0..budget {
                match consumer.pop() {
                    Some(envelope) => into.push_back(envelope),
                    None => return false,
                }
            }
            true
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while these short lists are locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
