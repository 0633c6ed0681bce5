//! The half of a reactor that its threads reach: its driver, its clock, its table of threads, and the way to
//! other reactors.
//!
//! On the reactor's OS thread only, in an `Rc`, with the running halves of its threads. Code above finds both
//! through [`current`]. The loop itself is the reactor's own half.

pub(crate) mod current;
pub(crate) mod mail;
pub(crate) mod ops;
pub(crate) mod ready;
pub(crate) mod thread_core;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Driver, Time};
use spindle_ring::{Call, Outgoing};

use crate::caught::drop_caught;
use crate::diagnosis::activity::Activity;
use crate::diagnosis::turns::Turns;
use crate::local::ops::{OpId, Ops};
use crate::local::ready::Ready;
use crate::local::thread_core::ThreadCore;
use crate::shared::Shared;
use crate::shared::lock_order::HeldLock;
use crate::shared::port::{Address, News, Port, Question};
use crate::shared::thread::ThreadShared;
use crate::time::spent;

/// The half of a reactor that its threads reach: on the same OS thread, in an `Rc`.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) driver: RefCell<Box<dyn Driver>>,
    pub(crate) ops: Ops,
    /// The clock as read at the start of the turn.
    pub(crate) now: Cell<Time>,
    /// The threads, by slot.
    threads: RefCell<Vec<Option<Rc<ThreadCore>>>>,
    /// What it is running now; the port has it too.
    activity: Arc<Activity>,
    /// Messages to the other reactors.
    outgoing: RefCell<Outgoing<Call>>,
    /// News taken and not handled yet; kept for its capacity.
    news: RefCell<VecDeque<News>>,
    /// Questions to answer between two turns.
    questions: RefCell<Vec<Question>>,
    /// The slot of the only thread with work, and whether another one got a message since.
    alone: Cell<usize>,
    others_have_messages: Cell<bool>,
    /// The threads that get a turn.
    pub(crate) ready: Ready,
    pub(crate) simulated: bool,
    /// For threads that are made here.
    this: Weak<Local>,
    /// Turns, the time of those with work, and sleeps.
    pub(crate) turns: Turns,
    pub(crate) busy_ns: Cell<u64>,
    pub(crate) sleeps: Cell<u64>,
    /// The cost of one reading of the clock.
    reading: Duration,
    /// The checked locks held here, newest last, if their order is checked.
    pub(crate) locks: RefCell<Vec<HeldLock>>,
}

impl Local {
    /// A reactor's shared half, without threads yet.
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        mut driver: Box<dyn Driver>,
        simulated: bool,
    ) -> Rc<Local> {
        let reading = if simulated { Duration::ZERO } else { spent::reading(&mut *driver) };
        let outgoing = RefCell::new(Outgoing::new(shared.ports.len()));
        let activity = shared.ports[index].activity.clone();
        Rc::new_cyclic(|this| Local {
            shared,
            activity,
            index,
            driver: RefCell::new(driver),
            ops: Ops::default(),
            now: Cell::default(),
            threads: RefCell::default(),
            outgoing,
            news: RefCell::default(),
            questions: RefCell::default(),
            alone: Cell::new(usize::MAX),
            others_have_messages: Cell::new(false),
            ready: Ready::default(),
            simulated,
            this: this.clone(),
            turns: Turns::default(),
            busy_ns: Cell::new(0),
            sleeps: Cell::new(0),
            reading,
            locks: RefCell::default(),
        })
    }

    /// Where messages from outside arrive.
    pub(crate) fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }

    /// Sends the message that `make` returns to a thread of this runtime. Always inlined, with its callers:
    /// the message is then constructed in its slot instead of being copied from frame to frame.
    #[inline(always)]
    pub(crate) fn send(&self, reactor: usize, to: Address, make: impl FnOnce() -> Call) {
        if reactor == self.index {
            return self.enqueue(to, make);
        }
        let port = &self.shared.ports[reactor].incoming;
        self.outgoing.borrow_mut().send(reactor, port, to.slot as usize, to.tag(), make);
    }

    /// Wakes the reactors that may be sleeping although a message was sent to them from here.
    pub(crate) fn wake_receivers(&self) {
        self.outgoing.borrow_mut().wake_receivers(&self.shared.ports);
    }

    /// Sends messages that had no room before; true if some are still waiting.
    pub(crate) fn flush(&self) -> bool {
        self.outgoing.borrow_mut().flush(&self.shared.ports)
    }

    /// The thread was not found: it may just have been created and not taken over yet. If it is gone, the
    /// message is dropped.
    #[cold]
    fn enqueue_for_unknown(&self, to: Address, call: Call) {
        self.take_news();
        let core = self.threads.borrow().get(to.slot as usize).cloned().flatten();
        match core.filter(|core| core.is_at(to)) {
            Some(core) => {
                self.others_have_messages.set(true);
                core.messages.borrow_mut().push(|| call);
                self.ready.list(&core);
            }
            None => drop_caught(call),
        }
    }

    /// Gives the message that `make` returns to a thread of this reactor.
    #[inline(always)]
    pub(crate) fn enqueue(&self, to: Address, make: impl FnOnce() -> Call) {
        let threads = self.threads.borrow();
        match threads.get(to.slot as usize) {
            Some(Some(core)) if core.is_at(to) => {
                if to.slot as usize != self.alone.get() {
                    self.others_have_messages.set(true);
                }
                core.messages.borrow_mut().push(make);
                self.ready.list(core);
            }
            _ => {
                drop(threads);
                self.enqueue_for_unknown(to, make());
            }
        }
    }

    /// Marks one thread as the only one with work, until another one [gets a message](Self::others_have_messages).
    pub(crate) fn mark_alone(&self, core: &ThreadCore) {
        self.alone.set(core.shared.slot as usize);
        self.others_have_messages.set(false);
    }

    /// True if a thread other than the marked one got a message.
    #[inline]
    pub(crate) fn others_have_messages(&self) -> bool {
        self.others_have_messages.get()
    }

    /// Takes over newly created threads, and stores questions; true if there were any.
    pub(crate) fn take_news(&self) -> bool {
        let mut news = self.news.borrow_mut();
        self.port().incoming.take_news(&mut news);
        let any = !news.is_empty();
        for news in news.drain(..) {
            match news {
                News::Thread(shared) => self.adopt(shared),
                News::Question(question) => self.questions.borrow_mut().push(question),
            }
        }
        any
    }

    /// True if there are questions that were not [taken](Self::take_questions) yet.
    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.borrow().is_empty()
    }

    /// Takes the questions to answer now.
    pub(crate) fn take_questions(&self) -> Vec<Question> {
        self.questions.take()
    }

    fn adopt(&self, shared: Arc<ThreadShared>) {
        let slot = shared.slot as usize;
        let local = self.this.upgrade().expect("a reactor that adopts is alive");
        let core = Rc::new(ThreadCore::new(shared, local));
        let mut threads = self.threads.borrow_mut();
        if threads.len() <= slot {
            threads.resize_with(slot + 1, || None);
        }
        threads[slot] = Some(core);
    }

    /// The time now, by a new reading: the code that ran in this turn may have taken long.
    pub(crate) fn clock(&self) -> Time {
        self.driver.borrow_mut().now()
    }

    /// Calls `f` and measures its time. In simulation it takes no time.
    #[inline(never)]
    pub(crate) fn measure<T>(&self, f: impl FnOnce() -> T) -> (T, Duration) {
        if self.simulated {
            return (f(), Duration::ZERO);
        }
        let began = self.clock();
        let value = f();
        let span = self.clock() - began;
        (value, span.saturating_sub(self.reading))
    }

    /// What it is running now.
    #[inline]
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Picks one of `n` equally good choices: the first, or the seed's.
    pub(crate) fn choose(&self, n: usize) -> usize {
        if self.simulated { self.driver.borrow_mut().choose(n) } else { 0 }
    }

    /// Asks an operation to end early, if it has not ended.
    pub(crate) fn cancel(&self, id: OpId) {
        if self.ops.is_live(id) {
            self.driver.borrow_mut().cancel(id.0);
        }
    }

    /// Asks to be told of a quiet send as soon as it has ended.
    pub(crate) fn hurry(&self, id: OpId) {
        if self.ops.is_live(id) {
            self.driver.borrow_mut().hurry(id.0);
        }
    }

    /// The threads on this reactor, in the order of their slots.
    pub(crate) fn cores(&self) -> Vec<Rc<ThreadCore>> {
        self.threads.borrow().iter().flatten().cloned().collect()
    }

    /// The earliest time at which a thread needs a turn even if nothing arrives.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.ready.next_deadline()
    }

    /// True if a poller keeps the reactor awake.
    pub(crate) fn is_spinning(&self) -> bool {
        self.ready.is_spinning()
    }

    /// True if all threads have ended.
    pub(crate) fn has_no_threads(&self) -> bool {
        self.threads.borrow().iter().flatten().next().is_none()
    }

    /// Begins a turn of the reactor: threads whose deadlines have passed get a turn in it.
    pub(crate) fn begin_turn(&self, now: Time) {
        self.ready.begin_turn(now, |place| {
            let threads = self.threads.borrow();
            threads.get(place).into_iter().flatten().for_each(|core| self.ready.list(core));
        });
    }

    /// The next thread to get its turn.
    #[inline]
    pub(crate) fn next_ready(&self) -> Option<Rc<ThreadCore>> {
        self.ready.take(|n| self.choose(n))
    }

    /// Ends a thread whose exit is complete; the caller has made it the current thread.
    pub(crate) fn end(&self, core: &Rc<ThreadCore>) {
        // Out of the table first: a late message is dropped, not queued.
        self.threads.borrow_mut()[core.shared.slot as usize] = None;
        self.ready.end(core);
        core.end();
    }
}
