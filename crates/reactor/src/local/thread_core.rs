//! The running half of a thread: its messages, tasks, timers, pollers and the values of layers above.
//!
//! Owned by one reactor and never leaves it (`!Send`); it cannot be named elsewhere, so it cannot run
//! elsewhere. One turn does a bounded amount of work, so that no thread starves another.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spindle_engine::Time;
use spindle_ring::Call;

use crate::caught::{drop_caught, panic_message};
use crate::diagnosis::activity::{Activity, CallKind};
use crate::diagnosis::turns::Turns;
use crate::local::Local;
use crate::local::mail::Mail;
use crate::say::ReportLevel;
use crate::shared::port::Address;
use crate::shared::thread::{EXITED, EXITING, ThreadShared};
use crate::task::calls::CallId;
use crate::task::host::Host;
use crate::task::pollers::Pollers;
use crate::task::replies::Replies;
use crate::task::tasks::{LocalFuture, Tasks};
use crate::task::waker::TaskKey;
use crate::time::earlier;
use crate::time::timers::Timers;

/// Most messages in one turn: SPDK's number. More would save little, and delay messages to other threads.
pub(crate) const MESSAGES: usize = 8;

/// Most task polls in one turn. A poll is longer than a message.
const TASKS: usize = 4;

/// Most timers that end in one turn: each makes one task ready, if the task still waits for it.
const TIMERS: usize = 8;

/// The parts of one thread, by device: weak references to its cells, see `thread/io_device.rs`.
pub(crate) type Channels = RefCell<BTreeMap<usize, Box<dyn Any>>>;

/// The running half of a thread.
pub(crate) struct ThreadCore {
    pub(crate) shared: Arc<ThreadShared>,
    pub(crate) local: Rc<Local>,
    /// When the reactor took it over.
    pub(crate) since: Time,
    pub(crate) messages: RefCell<Mail>,
    pub(crate) tasks: Tasks,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) pollers: Pollers,
    pub(crate) replies: RefCell<Replies>,
    /// The few values of layers above, oldest first.
    pub(crate) extensions: RefCell<Vec<(TypeId, Rc<dyn Any>)>>,
    /// Holds that keep the thread from exiting, besides its own lists: channels, counted by device.
    pub(crate) holds: RefCell<BTreeMap<Arc<str>, usize>>,
    /// Its parts of io devices.
    pub(crate) channels: Channels,
    /// Its operations in the engine that end without cancelling.
    pub(crate) ops: Cell<usize>,
    /// Set once its exit was asked for. A copy of what others see, because every turn reads it.
    exiting: Cell<bool>,
    pub(crate) turns: Turns,
    /// Its share of the time of its reactor's busy turns.
    pub(crate) busy_ns: Cell<u64>,
    /// Number of calls in this turn of its reactor: messages, tasks, pollers, completions.
    pub(crate) called: Cell<u32>,
    /// Whether it gets a turn; the number of the reactor's turn in which it had its last one; whether it is
    /// gone.
    pub(crate) listed: Cell<bool>,
    pub(crate) turn_had: Cell<u64>,
    pub(crate) ended: Cell<bool>,
}

impl ThreadCore {
    pub(crate) fn new(shared: Arc<ThreadShared>, local: Rc<Local>) -> ThreadCore {
        ThreadCore {
            shared,
            since: local.now.get(),
            local,
            messages: RefCell::default(),
            tasks: Tasks::default(),
            timers: RefCell::default(),
            pollers: Pollers::default(),
            replies: RefCell::default(),
            extensions: RefCell::default(),
            holds: RefCell::default(),
            channels: RefCell::default(),
            ops: Cell::new(0),
            exiting: Cell::new(false),
            turns: Turns::default(),
            busy_ns: Cell::new(0),
            called: Cell::new(0),
            listed: Cell::new(false),
            turn_had: Cell::new(0),
            ended: Cell::new(false),
        }
    }

    /// One turn at time `now`; the caller has made this the current thread. True if there was work.
    pub(crate) fn turn(self: &Rc<ThreadCore>, now: Time) -> bool {
        self.local.activity().enter(self.shared.id);
        let mut busy = self.run_messages();
        busy |= self.expire_timers(now);
        busy |= self.run_tasks();
        if self.pollers.len() > 0 || self.pollers.has_work() {
            busy |= self.pollers.run(&**self, now);
        }
        self.turns.count(busy);
        busy
    }

    /// Takes its share of a turn that took `ns` nanoseconds and called `all` things.
    pub(crate) fn account(&self, ns: u64, all: u32) {
        let called = self.called.take();
        // Most turns are of one thread, and a division takes as long as a message.
        let share = if called == all { ns } else { ns * u64::from(called) / u64::from(all.max(1)) };
        self.busy_ns.set(self.busy_ns.get() + share);
    }

    /// Calls some of the waiting messages; true if there were any.
    pub(crate) fn run_messages(&self) -> bool {
        // Only those that wait now: a message sent to its own thread runs in the next turn.
        let there = self.messages.borrow().len().min(MESSAGES);
        for _ in 0..there {
            let Some(mut call) = self.messages.borrow_mut().pop() else { break };
            self.run_message(&mut call);
        }
        there > 0
    }

    /// Calls one message; the caller has made this the current thread.
    #[inline]
    pub(crate) fn run_message(&self, call: &mut Call) {
        self.begin(CallKind::Message, None);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call.call_in_place())) {
            self.message_panicked(payload);
        }
    }

    #[cold]
    fn message_panicked(&self, payload: Box<dyn Any + Send>) {
        let what = format!("a message panicked: {}", panic_message(payload));
        self.report(&what);
    }

    /// True if a message to that address is for this thread.
    #[inline]
    pub(crate) fn is_at(&self, to: Address) -> bool {
        self.shared.slot == to.slot && self.shared.id as u32 == to.id
    }

    /// True if its turn would call nothing but messages.
    pub(crate) fn has_only_messages(&self) -> bool {
        self.tasks.ready() == 0 && self.pollers.len() == 0
    }

    /// True if its turn would call nothing but active pollers.
    pub(crate) fn has_only_pollers(&self) -> bool {
        self.pollers.has_active() && self.messages.borrow().is_empty() && self.tasks.ready() == 0
    }

    fn expire_timers(&self, now: Time) -> bool {
        if self.timers.borrow().next_deadline().is_none_or(|deadline| deadline > now) {
            return false;
        }
        let mut expired = self.timers.borrow_mut().expire(now, TIMERS);
        let any = !expired.is_empty();
        for waker in expired.drain(..) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                let what = format!("a waker panicked: {}", panic_message(payload));
                self.report(&what);
            }
        }
        self.timers.borrow_mut().keep(expired);
        any
    }

    fn run_tasks(self: &Rc<ThreadCore>) -> bool {
        // Only those that are ready now: a task that yields gets one poll per turn.
        let ready = self.tasks.ready().min(TASKS);
        for _ in 0..ready {
            self.tasks.poll_one(&**self, |n| self.local.choose(n));
        }
        ready > 0
    }

    /// True if a turn at `now` would find work.
    #[inline]
    pub(crate) fn has_work(&self, now: Time) -> bool {
        self.has_calls() || self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// True if a turn would find work, whatever the time is.
    #[inline]
    pub(crate) fn has_calls(&self) -> bool {
        !self.messages.borrow().is_empty() || self.tasks.ready() > 0 || self.pollers.has_work()
    }

    /// The time at which the thread needs its next turn even if nothing arrives.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        earlier(self.timers.borrow().next_deadline(), self.pollers.next_deadline())
    }

    /// Begins the exit; it completes when nothing is left.
    pub(crate) fn start_exit(&self) {
        self.exiting.set(true);
        self.shared.state.store(EXITING, Ordering::Release);
    }

    /// What an exit would wait for: empty if it may complete now.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut count = |n: usize, what: &str| {
            if n > 0 {
                reasons.push(format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
            }
        };
        count(self.messages.borrow().len(), "message");
        count(self.tasks.len(), "task");
        count(self.pollers.len(), "poller");
        count(self.ops.get(), "operation");
        reasons.extend(self.holds.borrow().iter().map(|(device, count)| {
            format!("{count} channel{} of device {device}", if *count == 1 { "" } else { "s" })
        }));
        reasons
    }

    /// True if exit was asked for and nothing is left.
    #[inline]
    pub(crate) fn may_exit(&self) -> bool {
        self.exiting.get()
            && self.messages.borrow().is_empty()
            && self.tasks.len() == 0
            && self.pollers.len() == 0
            && self.ops.get() == 0
            && self.holds.borrow().is_empty()
    }

    /// Drops everything that still runs here: the runtime stops, and no task can wait for it.
    pub(crate) fn cancel_everything(&self) {
        self.begin(CallKind::End, None);
        self.tasks.cancel_all();
        self.pollers.clear();
        // Taken out first: captures of a message may send messages when dropped, also to this thread.
        let mut messages = std::mem::take(&mut *self.messages.borrow_mut());
        std::iter::from_fn(|| messages.pop()).for_each(drop_caught);
    }

    /// The value of a layer above.
    #[inline]
    pub(crate) fn extension(&self, id: TypeId) -> Option<Rc<dyn Any>> {
        self.extensions.borrow().iter().find(|(of, _)| *of == id).map(|(_, value)| value.clone())
    }

    /// Ends the thread: drops the values of layers above, then notifies waiting tasks.
    pub(crate) fn end(&self) {
        self.begin(CallKind::End, None);
        // One at a time, with the list not borrowed: a destructor may ask for another.
        loop {
            let Some((_, value)) = self.extensions.borrow_mut().pop() else { break };
            drop_caught(value);
        }
        debug_assert!(self.shared.state.load(Ordering::Relaxed) != EXITED, "a thread ends once");
        self.shared.runtime.forget(&self.shared);
        self.shared.set_exited();
    }
}

impl ThreadCore {
    /// Starts a task of this thread.
    pub(crate) fn spawn(
        &self,
        future: LocalFuture,
        spawned_at: &'static Location<'static>,
        call_id: Option<CallId>,
    ) -> TaskKey {
        self.tasks.spawn(&self.shared, self.local.now.get(), future, spawned_at, call_id)
    }
}

impl Host for ThreadCore {
    #[inline]
    fn activity(&self) -> &Activity {
        self.local.activity()
    }

    #[inline]
    fn begin(&self, kind: CallKind, at: Option<&'static Location<'static>>) {
        self.called.set(self.called.get() + 1);
        self.local.activity().begin(kind, at);
    }

    #[inline]
    fn begin_all(&self, kind: CallKind, count: usize) {
        self.called.set(self.called.get() + count as u32);
        self.local.activity().begin(kind, None);
    }

    #[inline]
    fn count_calls(&self, count: u32) {
        self.called.set(self.called.get() + count);
    }

    #[inline]
    fn now(&self) -> Time {
        self.local.now.get()
    }

    fn measure<T>(&self, f: impl FnOnce() -> T) -> (T, Duration) {
        self.local.measure(f)
    }

    fn report(&self, what: &dyn Display) {
        let said = format_args!("thread {} ({}): {what}", self.shared.id, self.shared.name);
        self.local.shared.reports.say(ReportLevel::Error, said);
    }
}
