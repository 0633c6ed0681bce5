//! Where messages for one reactor arrive.
//!
//! Shared by all who send to it. Other reactors come by a ring of their own, made when first used; plain
//! OS threads and runners by the inbox. An awake reactor looks into its rings itself, so that a message
//! moves one cache line; its sleep flag is looked at by senders and written only around a sleep.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use spindle_engine::Unparker;
use spindle_ring::express::{self, Ticket};
use spindle_ring::{Call, Closed, Inbox, Sleep};

use crate::activity::Activity;
use crate::dump::ReactorDump;
use crate::mode::Mode;
use crate::thread::ThreadShared;

/// Messages that a ring holds. What has no room stays with the sender, where it takes turns by the thread it
/// goes to.
const EXPRESS_SLOTS: usize = 64;
const BULK_SLOTS: usize = 64;

/// Messages taken out of bulk in one turn: what comes another way waits for them.
const BULK_BUDGET: usize = 4;

/// Which thread of a reactor a message is for.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    /// Its place in the reactor's table: below 2^31.
    pub(crate) slot: u32,
    /// The low half of its id: a late message to a place that has a new owner is dropped.
    pub(crate) id: u32,
}

impl Address {
    /// As it travels beside the message in a ring, in 63 bits.
    fn tag(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.id)
    }

    fn of_tag(tag: u64) -> Address {
        Address { slot: (tag >> 32) as u32, id: tag as u32 }
    }
}

/// A message on its way.
pub(crate) struct Envelope {
    pub(crate) to: Address,
    pub(crate) call: Call,
}

/// The sender's end of the rings to another reactor.
pub(crate) struct RingOut(express::Sender<Call>);

impl RingOut {
    /// Leaves a message where it is taken first, or gives it back if there is no room.
    #[inline]
    pub(crate) fn push_express(&mut self, envelope: Envelope) -> Result<(), Envelope> {
        let Envelope { to, call } = envelope;
        self.0.push_express(to.tag(), call).map_err(|call| Envelope { to, call })
    }

    /// Leaves a message behind all others, or gives it back if there is no room.
    #[inline]
    pub(crate) fn push_bulk(&mut self, envelope: Envelope) -> Result<Ticket, Envelope> {
        let Envelope { to, call } = envelope;
        self.0.push_bulk(to.tag(), call).map_err(|call| Envelope { to, call })
    }

    /// Whether that one was taken out of bulk.
    #[inline]
    pub(crate) fn has_taken(&mut self, ticket: Ticket) -> bool {
        self.0.has_taken(ticket)
    }
}

/// The receiving side of one reactor, as its senders see it.
pub(crate) struct Port {
    pub(crate) sleep: Sleep,
    inbox: Inbox<Envelope>,
    new_rings: Mutex<Vec<express::Receiver<Call>>>,
    adoptions: Mutex<Vec<Arc<ThreadShared>>>,
    /// Something is in `new_rings`, `adoptions` or `questions`.
    news: AtomicBool,
    /// Who wants to know what the reactor is doing.
    /// None: it has ended, and asking is answered by dropping the question.
    questions: Mutex<Option<Vec<Question>>>,
    unparker: OnceLock<Unparker>,
    /// A [`Mode`], by its number.
    mode: AtomicU8,
    pub(crate) activity: Arc<Activity>,
}

/// Takes a description of the reactor.
pub(crate) type Question = Box<dyn FnOnce(ReactorDump) + Send>;

impl Port {
    /// Closed to nobody, and its reactor not there yet.
    pub(crate) fn new(mode: Mode) -> Port {
        Port {
            sleep: Sleep::new(),
            inbox: Inbox::new(),
            new_rings: Mutex::default(),
            adoptions: Mutex::default(),
            news: AtomicBool::new(false),
            questions: Mutex::new(Some(Vec::new())),
            unparker: OnceLock::new(),
            mode: AtomicU8::new(mode as u8),
            activity: Arc::default(),
        }
    }

    /// Says how to wake the reactor; called once, by it.
    pub(crate) fn open(&self, unparker: Unparker) {
        // A second call would be a second reactor on one port, which nothing makes.
        let _ = self.unparker.set(unparker);
    }

    /// Makes rings from another reactor.
    pub(crate) fn connect(&self) -> RingOut {
        let (sender, receiver) = express::pair(EXPRESS_SLOTS, BULK_SLOTS);
        lock(&self.new_rings).push(receiver);
        self.news.store(true, Ordering::Release);
        RingOut(sender)
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
        self.news.store(true, Ordering::Release);
        self.wake();
    }

    /// Asks what the reactor is doing.
    pub(crate) fn ask(&self, question: Question) {
        match &mut *lock(&self.questions) {
            Some(questions) => questions.push(question),
            None => return,
        }
        self.news.store(true, Ordering::Release);
        self.wake();
    }

    /// Receiver: those who have asked since the last call.
    pub(crate) fn take_questions(&self) -> Vec<Question> {
        lock(&self.questions).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What the reactor does when it has nothing to do.
    pub(crate) fn mode(&self) -> Mode {
        Mode::of(self.mode.load(Ordering::Relaxed))
    }

    /// Changes the mode, and has the reactor see it.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
        self.unpark();
    }

    /// Receiver: whether there are rings or threads to take over, or questions to answer. To be asked once, before taking them.
    pub(crate) fn has_news(&self) -> bool {
        // Looked at first: this line is shared while it says no, and an exchange would not leave it so.
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::AcqRel)
    }

    /// Receiver: the threads handed over since the last call.
    pub(crate) fn take_adoptions(&self) -> Vec<Arc<ThreadShared>> {
        std::mem::take(&mut *lock(&self.adoptions))
    }

    /// Receiver: the messages from outside, to the end of `into`.
    pub(crate) fn take_foreign(&self, into: &mut VecDeque<Envelope>) {
        self.inbox.drain(into);
    }

    /// Receiver: whether something waits beside the rings. To be asked between raising the sleep flag and
    /// sleeping.
    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty() || self.news.load(Ordering::Acquire)
    }

    /// Receiver: refuses foreign messages from now on; what is left is dropped.
    pub(crate) fn close(&self) {
        let mut left = VecDeque::new();
        self.inbox.close(&mut left);
        let unanswered = lock(&self.questions).take();
        drop(unanswered);
    }

    /// Wakes the reactor if it sleeps, after leaving something.
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
pub(crate) struct Rings(Vec<express::Receiver<Call>>);

impl Rings {
    /// Takes over what senders have made.
    pub(crate) fn adopt(&mut self, port: &Port) {
        self.0.append(&mut lock(&port.new_rings));
    }

    /// Whether no ring holds a message.
    pub(crate) fn are_empty(&self) -> bool {
        self.0.iter().all(express::Receiver::is_empty)
    }

    /// Whether a message came by express: the first ones to a thread that does nothing do.
    #[inline]
    pub(crate) fn have_express(&self) -> bool {
        self.0.iter().any(express::Receiver::has_express)
    }

    /// Takes what one turn has time for; true if there was something.
    #[inline]
    pub(crate) fn drain(&mut self, mut deliver: impl FnMut(Address, Call)) -> bool {
        let mut any = false;
        for ring in &mut self.0 {
            any |= ring.take(BULK_BUDGET, |tag, call| deliver(Address::of_tag(tag), call));
        }
        any
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while these short lists are locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
