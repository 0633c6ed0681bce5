//! Where messages for one reactor arrive, and its switches.
//!
//! Shared by all who send to it. The way in, to sleep and out of it is [`spindle_ring::Port`]; here is what
//! goes that way: messages with the address of their thread, new threads, and questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use spindle_engine::Unparker;
use spindle_ring::Call;

use crate::activity::Activity;
use crate::dump::ReactorDump;
use crate::mode::Mode;
use crate::thread::ThreadShared;

/// Which thread of a reactor a message is for.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    /// Its place in the reactor's table: below 2^31.
    pub(crate) slot: u32,
    /// The low half of its id: a late message to a place that has a new owner is dropped.
    pub(crate) id: u32,
}

impl Address {
    /// As it travels beside the message, in 63 bits.
    #[inline]
    pub(crate) fn tag(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.id)
    }

    #[inline]
    pub(crate) fn of_tag(tag: u64) -> Address {
        Address { slot: (tag >> 32) as u32, id: tag as u32 }
    }
}

/// What a reactor is told beside messages.
pub(crate) enum News {
    /// A new thread is to live there.
    Thread(Arc<ThreadShared>),
    /// Somebody wants to know what it is doing. Dropped, the question counts as answered: it has ended.
    Question(Question),
}

/// Takes a description of the reactor.
pub(crate) type Question = Box<dyn FnOnce(ReactorDump) + Send>;

/// A message from outside, on its way.
pub(crate) type Tagged = spindle_ring::Tagged<Call>;

/// The ends of the rings into one reactor.
pub(crate) type Rings = spindle_ring::Rings<Call>;

type Door = spindle_ring::Port<Call, News, Unparker>;

/// The receiving side of one reactor, as its senders see it.
pub(crate) struct Port {
    pub(crate) door: Door,
    /// A [`Mode`], by its number.
    mode: AtomicU8,
    pub(crate) activity: Arc<Activity>,
}

impl AsRef<Door> for Port {
    fn as_ref(&self) -> &Door {
        &self.door
    }
}

impl Port {
    /// Closed to nobody, and its reactor not there yet.
    pub(crate) fn new(mode: Mode) -> Port {
        Port { door: Door::new(), mode: AtomicU8::new(mode as u8), activity: Arc::default() }
    }

    /// Asks what the reactor is doing. One that has ended drops the question.
    pub(crate) fn ask(&self, question: Question) {
        // Refused, it is dropped here.
        let _ = self.door.tell(News::Question(question));
    }

    /// What the reactor does when it has nothing to do.
    pub(crate) fn mode(&self) -> Mode {
        Mode::of(self.mode.load(Ordering::Relaxed))
    }

    /// Changes the mode, and has the reactor see it.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
        self.door.unpark();
    }
}
