//! The half of a reactor that its threads reach: its driver, its clock, its table of threads, and the way to
//! other reactors.
//!
//! On the reactor's OS thread only, behind `Rc`. The loop itself is the reactor's own half.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Driver, Time};
use spindle_ring::Call;

use crate::activity::Activity;
use crate::core::ThreadCore;
use crate::current::Entered;
use crate::ops::{OpId, Ops};
use crate::outgoing::Outgoing;
use crate::port::{Address, Envelope, Port};
use crate::say::say;
use crate::shared::Shared;
use crate::spent;
use crate::task::{LocalFuture, Origin, TaskKey, drop_caught};
use crate::thread::ThreadShared;

/// The half of a reactor that its threads reach: on the same OS thread, behind `Rc`.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) driver: RefCell<Box<dyn Driver>>,
    pub(crate) ops: Ops,
    /// The clock as read at the start of the turn.
    pub(crate) now: Cell<Time>,
    /// By slot.
    threads: RefCell<Vec<Option<Rc<ThreadCore>>>>,
    /// Where it shows what it is running; the port has it too.
    activity: Arc<Activity>,
    /// What goes to the other reactors.
    outgoing: RefCell<Outgoing>,
    /// Threads came or went since the loop last looked.
    changed: Cell<bool>,
    pub(crate) simulated: bool,
    /// For the threads that are made here.
    this: Weak<Local>,
    /// Turns with work and without, the time of those with work, and sleeps.
    pub(crate) busy_turns: Cell<u64>,
    pub(crate) idle_turns: Cell<u64>,
    pub(crate) busy_ns: Cell<u64>,
    pub(crate) sleeps: Cell<u64>,
    /// What a reading of the clock takes.
    reading: Duration,
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
            changed: Cell::new(false),
            simulated,
            this: this.clone(),
            busy_turns: Cell::new(0),
            idle_turns: Cell::new(0),
            busy_ns: Cell::new(0),
            sleeps: Cell::new(0),
            reading,
        })
    }

    /// Its place for messages from outside.
    pub(crate) fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }

    /// Leaves a message for a thread of this runtime. Always inlined, with what leads here: the message is
    /// then built where it is left, and not copied from frame to frame.
    #[inline(always)]
    pub(crate) fn send(&self, reactor: usize, to: Address, call: Call) {
        if reactor != self.index {
            return self.send_away(reactor, Envelope { to, call });
        }
        if let Err(call) = self.leave(to, call) {
            self.leave_again(to, call);
        }
    }

    fn send_away(&self, reactor: usize, envelope: Envelope) {
        self.outgoing.borrow_mut().send(&self.shared.ports, reactor, envelope);
    }

    /// Makes sure that no reactor sleeps over what was sent to it from here.
    pub(crate) fn settle(&self) {
        self.outgoing.borrow_mut().settle(&self.shared.ports);
    }

    /// Sends what had no room; true if something still waits.
    pub(crate) fn flush(&self) -> bool {
        self.outgoing.borrow_mut().flush(&self.shared.ports)
    }

    /// The thread was not there: it may have been created a moment ago, and wait to be taken over. To one
    /// that is gone the message is dropped.
    #[cold]
    fn leave_again(&self, to: Address, call: Call) {
        self.take_over_threads();
        if let Err(call) = self.leave(to, call) {
            drop_caught(call);
        }
    }

    /// Hands a message to its thread here, if that is there.
    #[inline(always)]
    fn leave(&self, to: Address, call: Call) -> Result<(), Call> {
        let threads = self.threads.borrow();
        match threads.get(to.slot as usize) {
            Some(Some(core)) if core.shared.id as u32 == to.id => {
                core.messages.borrow_mut().push_back(call);
                Ok(())
            }
            _ => Err(call),
        }
    }

    /// Takes over the threads created since the last look; true if there were some.
    pub(crate) fn take_over_threads(&self) -> bool {
        let adopted = self.port().take_adoptions();
        let any = !adopted.is_empty();
        adopted.into_iter().for_each(|shared| self.adopt(shared));
        any
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
        self.changed.set(true);
    }

    /// The time now, read from the clock: what ran in this turn may have taken long.
    pub(crate) fn clock(&self) -> Time {
        self.driver.borrow_mut().now()
    }

    /// Calls `f`, and says how long that took. In simulation it takes no time.
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

    /// Where it shows what it is running.
    #[inline]
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Picks one of `n` equally good choices: the first, or the seed's.
    pub(crate) fn choose(&self, n: usize) -> usize {
        if self.simulated { self.driver.borrow_mut().choose(n) } else { 0 }
    }

    /// Asks that an operation end early, if it has not ended.
    pub(crate) fn cancel(&self, id: OpId) {
        if self.ops.is_live(id) {
            self.driver.borrow_mut().cancel(id.0);
        }
    }

    /// Says on standard error what a task, message or poller did. Who waits for a task gets it as an
    /// error too.
    pub(crate) fn report(&self, thread: &ThreadShared, what: &dyn std::fmt::Display) {
        say(format_args!("thread {} ({}): {what}", thread.id, thread.name));
    }

    /// The threads that live here, in the order of their places.
    pub(crate) fn cores(&self) -> Vec<Rc<ThreadCore>> {
        self.threads.borrow().iter().flatten().cloned().collect()
    }

    /// When the first of them wants to run by itself.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.threads.borrow().iter().flatten().filter_map(|core| core.next_deadline()).min()
    }

    /// Whether a poller of theirs keeps the reactor awake.
    pub(crate) fn is_spinning(&self) -> bool {
        self.threads.borrow().iter().flatten().any(|core| core.pollers.has_work())
    }

    /// Whether all of them have ended.
    pub(crate) fn has_no_threads(&self) -> bool {
        self.threads.borrow().iter().flatten().next().is_none()
    }

    /// Whether threads came or went since this was asked last.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed.take()
    }

    /// Ends a thread whose exit is complete.
    pub(crate) fn end(&self, core: &Rc<ThreadCore>) {
        let _on_thread = Entered::new(core);
        // Out of the table first: a late message to it is dropped, not queued for nobody.
        self.threads.borrow_mut()[core.shared.slot as usize] = None;
        self.changed.set(true);
        core.end();
    }
}

impl ThreadCore {
    /// Starts a task of this thread.
    pub(crate) fn spawn(
        &self,
        future: LocalFuture,
        spawned_at: &'static std::panic::Location<'static>,
        origin: Option<Origin>,
    ) -> TaskKey {
        self.tasks.spawn(&self.shared, self.local.now.get(), future, spawned_at, origin)
    }
}
