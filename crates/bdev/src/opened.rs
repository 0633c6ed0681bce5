//! A bdev's side of one opening: where its events go, and whether it writes.
//!
//! Shared by the bdev and the descriptor, on any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spindle_reactor::Thread;

use crate::Event;
use crate::event::OnEvent;

/// The bdev's side of one opening.
pub(crate) struct Opened {
    /// The holder named in messages.
    pub(crate) holder: String,
    thread: Thread,
    on_event: Option<OnEvent>,
    writable: AtomicBool,
    closed: AtomicBool,
}

impl Opened {
    /// An opening by a thread.
    pub(crate) fn new(
        thread: Thread,
        holder: Option<String>,
        on_event: Option<OnEvent>,
        writable: bool,
    ) -> Opened {
        let holder = holder.unwrap_or_else(|| format!("thread {:?}", thread.name()));
        Opened {
            holder,
            thread,
            on_event,
            writable: AtomicBool::new(writable),
            closed: AtomicBool::new(false),
        }
    }

    /// Lets it write, by a claim.
    pub(crate) fn let_write(&self) {
        self.writable.store(true, Ordering::Release);
    }

    /// Closes it: no event is delivered any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    /// Delivers an event on the descriptor's thread, unless it is closed by then.
    pub(crate) fn tell(self: Arc<Opened>, event: Event) {
        if self.on_event.is_none() {
            return;
        }
        let opened = self.clone();
        let deliver = move || {
            if let Some(on_event) = &opened.on_event
                && !opened.closed.load(Ordering::Acquire)
            {
                on_event(event);
            }
        };
        // If the thread is gone, the event is dropped, and with it any grace in it.
        let _ = self.thread.send_msg(deliver);
    }
}
