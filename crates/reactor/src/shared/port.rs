//! The receiving end of one reactor, and its switches.
//!
//! Shared by all its senders. Messages, sleep and exit are the work of [`spindle_ring::Port`]; this module
//! defines what is sent: messages with the address of their thread, new threads, and questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use spindle_engine::Unparker;
use spindle_ring::Call;

use crate::diagnosis::activity::Activity;
use crate::diagnosis::dump::ReactorDump;
use crate::diagnosis::load::Load;
use crate::mode::Mode;
use crate::shared::thread::ThreadShared;

/// Identifies the thread of a reactor that a message is for.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    /// Its slot in the reactor's table: below 2^31.
    pub(crate) slot: u32,
    /// The low half of its id: a late message to a slot with a new owner is dropped.
    pub(crate) id: u32,
}

impl Address {
    /// Encoded in 63 bits, as it travels beside the message.
    #[inline]
    pub(crate) fn tag(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.id)
    }

    #[inline]
    pub(crate) fn of_tag(tag: u64) -> Address {
        Address { slot: (tag >> 32) as u32, id: tag as u32 }
    }
}

/// Events for a reactor besides messages.
pub(crate) enum News {
    /// A new thread that will live there.
    Thread(Arc<ThreadShared>),
    /// A request for the reactor's state. Dropped, it counts as answered: the reactor has ended.
    Question(Question),
}

/// Receives a description of the reactor.
pub(crate) type Question = Box<dyn FnOnce(ReactorDump) + Send>;

/// A message from outside, in transit.
pub(crate) type Tagged = spindle_ring::Tagged<Call>;

/// The ends of the rings into one reactor.
pub(crate) type Rings = spindle_ring::Rings<Call>;

type Incoming = spindle_ring::Port<Call, News, Unparker>;

/// The receiving side of one reactor, as its senders see it.
pub(crate) struct Port {
    pub(crate) incoming: Incoming,
    /// A [`Mode`], by its number.
    mode: AtomicU8,
    pub(crate) activity: Arc<Activity>,
    pub(crate) load: Arc<Load>,
}

impl AsRef<Incoming> for Port {
    fn as_ref(&self) -> &Incoming {
        &self.incoming
    }
}

impl Port {
    /// Open, for a reactor that does not run yet.
    pub(crate) fn new(mode: Mode) -> Port {
        Port {
            incoming: Incoming::new(),
            mode: AtomicU8::new(mode as u8),
            activity: Arc::default(),
            load: Arc::default(),
        }
    }

    /// Asks for the reactor's state. If it has ended, the question is dropped.
    pub(crate) fn ask(&self, question: Question) {
        // If refused, it is dropped here.
        let _ = self.incoming.tell(News::Question(question));
    }

    /// The mode of the reactor.
    pub(crate) fn mode(&self) -> Mode {
        Mode::of(self.mode.load(Ordering::Relaxed))
    }

    /// Changes the mode, and wakes the reactor to see it.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
        self.incoming.unpark();
    }
}
