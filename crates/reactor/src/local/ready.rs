//! The threads of a reactor that get a turn, and the deadlines of the others.
//!
//! Used on the reactor's OS thread only. A thread is listed when a message arrives for it, or when code ran
//! on it that may have changed what it waits for; its turn decides whether it stays listed. Threads that are
//! not listed cost nothing, however many there are; their deadlines are in `deadlines`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use spindle_engine::Time;

use crate::local::thread_core::ThreadCore;
use crate::time::deadlines::Deadlines;

/// The listed threads of one reactor, and the deadlines of the others.
#[derive(Default)]
pub(crate) struct Ready {
    /// Listed threads without a turn in this turn of the reactor, in the order of listing.
    now: RefCell<VecDeque<Rc<ThreadCore>>>,
    /// Listed threads that had one: they come again in the next.
    next: RefCell<VecDeque<Rc<ThreadCore>>>,
    /// The number of the reactor's turn.
    turn: Cell<u64>,
    /// Deadlines by slot.
    deadlines: RefCell<Deadlines>,
}

impl Ready {
    /// Lists the thread: for this turn of the reactor if it had none in it yet.
    #[inline]
    pub(crate) fn list(&self, core: &Rc<ThreadCore>) {
        if !core.listed.get() {
            self.list_now(core);
        }
    }

    fn list_now(&self, core: &Rc<ThreadCore>) {
        if core.ended.get() {
            return;
        }
        core.listed.set(true);
        let queue = if core.turn_had.get() == self.turn.get() { &self.next } else { &self.now };
        queue.borrow_mut().push_back(core.clone());
    }

    /// True if no thread is listed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.now.borrow().is_empty() && self.next.borrow().is_empty()
    }

    /// Begins a turn of the reactor. Calls `due` with the slot of each thread whose deadline has passed.
    pub(crate) fn begin_turn(&self, now: Time, mut due: impl FnMut(usize)) {
        self.turn.set(self.turn.get() + 1);
        {
            let (mut first, mut then) = (self.now.borrow_mut(), self.next.borrow_mut());
            if first.is_empty() {
                std::mem::swap(&mut *first, &mut *then);
            } else {
                first.append(&mut then);
            }
        }
        loop {
            let Some(place) = self.deadlines.borrow_mut().take_due(now) else { break };
            due(place);
        }
    }

    /// The next thread to get its turn: the first, or the one that `choose` picks.
    pub(crate) fn take(&self, choose: impl FnOnce(usize) -> usize) -> Option<Rc<ThreadCore>> {
        let mut now = self.now.borrow_mut();
        let pick = if now.len() > 1 { choose(now.len()) } else { 0 };
        let core = if pick == 0 { now.pop_front() } else { now.remove(pick) }?;
        core.turn_had.set(self.turn.get());
        Some(core)
    }

    /// Puts back a [taken](Self::take) thread that has more to do in the next turn.
    pub(crate) fn put_back(&self, core: Rc<ThreadCore>) {
        self.next.borrow_mut().push_back(core);
    }

    /// Removes a [taken](Self::take) thread that has nothing to do before `deadline`.
    #[inline]
    pub(crate) fn leave(&self, core: &ThreadCore, deadline: Option<Time>) {
        core.listed.set(false);
        self.deadlines.borrow_mut().set(core.shared.slot as usize, deadline);
    }

    /// Removes a thread that has ended.
    pub(crate) fn end(&self, core: &ThreadCore) {
        core.ended.set(true);
        self.deadlines.borrow_mut().set(core.shared.slot as usize, None);
    }

    /// The earliest time at which a thread needs a turn.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        // Deadlines of listed threads may have changed since their last turn.
        let mut deadlines = self.deadlines.borrow_mut();
        self.each(|core| deadlines.set(core.shared.slot as usize, core.next_deadline()));
        deadlines.first()
    }

    /// True if a poller keeps the reactor awake. Threads with active pollers stay listed.
    pub(crate) fn is_spinning(&self) -> bool {
        let mut spinning = false;
        self.each(|core| spinning |= core.pollers.has_work());
        spinning
    }

    fn each(&self, mut f: impl FnMut(&ThreadCore)) {
        self.now.borrow().iter().chain(self.next.borrow().iter()).for_each(|core| f(core));
    }

    /// Drops the lists: the reactor has ended.
    pub(crate) fn clear(&self) {
        // Taken out first: these may be the last handles on a thread's values.
        let lists = (self.now.take(), self.next.take());
        drop(lists);
    }
}
