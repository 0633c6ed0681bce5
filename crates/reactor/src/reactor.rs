//! One reactor: an engine's driver, the threads placed on it, and the rings into it.
//!
//! Owned by one OS thread (or, in simulation, by the loop that runs all of them in turn). A turn reads the
//! clock once, takes what came in, reaps completions, gives every thread that has work one bounded turn,
//! and ends threads whose exit is complete.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Completion, Driver, Time};
use spindle_ring::Call;

use crate::activity::{Activity, CallKind};
use crate::core::ThreadCore;
use crate::current::Entered;
use crate::dump::ReactorDump;
use crate::mode::Mode;
use crate::ops::Ops;
use crate::port::{Address, Envelope, RingOut, Rings};
use crate::shared::Shared;
use crate::task::{LocalFuture, Origin, TaskKey, drop_caught};
use crate::thread::ThreadShared;

/// Messages taken from each ring in one turn.
const RING_BUDGET: usize = 256;

/// What the adaptive mode keeps polling for after the last work: about what a sleep and a wake cost.
const LINGER: Duration = Duration::from_micros(50);

/// A sender whose ring was full tries again after so many messages.
const OVERFLOW_BATCH: usize = 64;

/// Looks for messages between two turns of a reactor that polls and has nothing to do. A turn also asks for
/// completions, so these looks take no longer than it.
const LOOKS_PER_TURN: usize = 16;

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
    outgoing: RefCell<AllOutgoing>,
    /// Threads came or went since the loop last looked.
    changed: Cell<bool>,
    /// Some ring was full.
    overflowing: Cell<bool>,
    simulated: bool,
    /// For the threads that are made here.
    this: Weak<Local>,
    /// Turns with work and without, the time of those with work, and sleeps.
    pub(crate) busy_turns: Cell<u64>,
    pub(crate) idle_turns: Cell<u64>,
    pub(crate) busy: Cell<Duration>,
    pub(crate) sleeps: Cell<u64>,
}

/// The rings to the other reactors.
struct AllOutgoing {
    /// By target reactor.
    rings: Vec<Option<Outgoing>>,
    /// Targets that got messages in this turn and did not seem asleep: to be looked at once more.
    unsettled: Vec<usize>,
}

/// The ring to one other reactor, and what it had no room for, in order.
struct Outgoing {
    ring: RingOut,
    overflow: VecDeque<Envelope>,
    /// It is among the unsettled.
    unsettled: bool,
}

impl Outgoing {
    /// Puts a message behind all that went before it; false if it waits for room.
    #[inline]
    fn push(&mut self, envelope: Envelope) -> bool {
        if self.overflow.is_empty() {
            match self.ring.push(envelope) {
                Ok(()) => return true,
                Err(envelope) => self.overflow.push_back(envelope),
            }
        } else {
            self.overflow.push_back(envelope);
            // A long flood goes on into the room that the receiver has made meanwhile.
            if self.overflow.len().is_multiple_of(OVERFLOW_BATCH) {
                return self.flush();
            }
        }
        false
    }

    /// Moves what waits into the ring; true if nothing is left.
    fn flush(&mut self) -> bool {
        while let Some(envelope) = self.overflow.pop_front() {
            if let Err(envelope) = self.ring.push(envelope) {
                self.overflow.push_front(envelope);
                return false;
            }
        }
        true
    }
}

impl Local {
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
        let outgoing = &mut *self.outgoing.borrow_mut();
        let port = &self.shared.ports[reactor];
        let out = outgoing.rings[reactor].get_or_insert_with(|| Outgoing {
            ring: port.connect(),
            overflow: VecDeque::new(),
            unsettled: false,
        });
        if !out.push(envelope) {
            self.overflowing.set(true);
        }
        // A full barrier for each message would cost more than the message: one at the end of the turn
        // serves all, and until then only a reactor that is just falling asleep is overlooked.
        if port.sleep.seems_asleep() {
            port.wake();
        } else if !std::mem::replace(&mut out.unsettled, true) {
            outgoing.unsettled.push(reactor);
        }
    }

    /// Makes sure that no reactor sleeps over what was sent to it. Called at the end of a turn, and before
    /// any sleep.
    pub(crate) fn settle(&self) {
        let outgoing = &mut *self.outgoing.borrow_mut();
        for reactor in outgoing.unsettled.drain(..) {
            if let Some(out) = &mut outgoing.rings[reactor] {
                out.unsettled = false;
            }
            self.shared.ports[reactor].wake();
        }
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
    fn take_over_threads(&self) -> bool {
        let adopted = self.shared.ports[self.index].take_adoptions();
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

    /// Where it shows what it is running.
    #[inline]
    pub(crate) fn activity(&self) -> &Activity {
        &self.shared.ports[self.index].activity
    }

    /// Picks one of `n` equally good choices: the first, or the seed's.
    pub(crate) fn choose(&self, n: usize) -> usize {
        if self.simulated { self.driver.borrow_mut().choose(n) } else { 0 }
    }

    /// Says on standard error what a task, message or poller did. Who waits for a task gets it as an
    /// error too.
    pub(crate) fn report(&self, thread: &ThreadShared, what: &dyn std::fmt::Display) {
        eprintln!("spindle: thread {} ({}): {what}", thread.id, thread.name);
    }

    /// The threads that live here, in the order of their places.
    pub(crate) fn cores(&self) -> Vec<Rc<ThreadCore>> {
        self.threads.borrow().iter().flatten().cloned().collect()
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

/// A reactor, with what only its own loop touches.
pub(crate) struct Reactor {
    pub(crate) local: Rc<Local>,
    rings: Rings,
    /// How long to poll after the last work.
    linger: Duration,
    last_work: Time,
    asleep: bool,
    clock_is_fresh: bool,
    /// When the last turn began, and whether its time has yet to be accounted for.
    began: Time,
    to_account: bool,
    /// The threads here, as of their last change.
    cores: Vec<Rc<ThreadCore>>,
    /// Kept for their room.
    inbound: VecDeque<Envelope>,
    completions: Vec<Completion>,
}

impl Reactor {
    /// Makes the reactor number `index`; call it on the OS thread that will run it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        driver: Box<dyn Driver>,
        simulated: bool,
    ) -> Reactor {
        shared.ports[index].open(driver.unparker());
        shared.ports[index].activity.open();
        let rings = shared.ports.iter().map(|_| None).collect();
        let reactors = shared.ports.len();
        let local = Rc::new_cyclic(|this| Local {
            shared,
            index,
            driver: RefCell::new(driver),
            ops: Ops::default(),
            now: Cell::default(),
            threads: RefCell::default(),
            outgoing: RefCell::new(AllOutgoing { rings, unsettled: Vec::new() }),
            changed: Cell::new(false),
            overflowing: Cell::new(false),
            simulated,
            this: this.clone(),
            busy_turns: Cell::new(0),
            idle_turns: Cell::new(0),
            busy: Cell::default(),
            sleeps: Cell::new(0),
        });
        // Polling while another reactor needs the same core only keeps that one waiting.
        let linger =
            if reactors > spindle_engine::available_cores().affinity.len() { Duration::ZERO } else { LINGER };
        Reactor {
            local,
            rings: Rings::default(),
            linger,
            last_work: Time::default(),
            asleep: false,
            clock_is_fresh: false,
            began: Time::default(),
            to_account: false,
            inbound: VecDeque::new(),
            completions: Vec::new(),
            cores: Vec::new(),
        }
    }

    /// One turn; true if there was something to do.
    pub(crate) fn turn(&mut self) -> bool {
        let local = self.local.clone();
        if std::mem::take(&mut self.asleep) {
            local.shared.ports[local.index].sleep.cancel();
            self.clock_is_fresh = false;
        }
        if !std::mem::take(&mut self.clock_is_fresh) {
            self.read_clock();
        }
        let now = local.now.get();
        self.began = now;
        let mut busy = self.receive();
        busy |= self.reap();
        busy |= self.run_threads(now);
        busy |= self.flush();
        local.settle();
        local.activity().begin(CallKind::Nothing, None);
        if busy {
            self.last_work = now;
            local.busy_turns.set(local.busy_turns.get() + 1);
            self.to_account = true;
        } else {
            local.idle_turns.set(local.idle_turns.get() + 1);
        }
        busy
    }

    /// Reads the clock after a turn, for a caller who starts the next one at once: what comes in meanwhile
    /// then need not wait for the reading.
    pub(crate) fn read_clock_ahead(&mut self) {
        self.read_clock();
        self.clock_is_fresh = true;
    }

    /// Reads the clock, and accounts for the time of the turn before.
    pub(crate) fn read_clock(&mut self) {
        let now = self.local.driver.borrow_mut().now();
        self.local.now.set(now);
        if std::mem::take(&mut self.to_account) {
            self.account(now - self.began);
        }
    }

    /// Shares out the time of a turn among the threads that called something in it.
    fn account(&self, span: Duration) {
        self.local.busy.set(self.local.busy.get() + span);
        let all = self.cores.iter().map(|core| core.called.get()).sum();
        self.cores.iter().filter(|core| core.called.get() > 0).for_each(|core| core.account(span, all));
    }

    fn receive(&mut self) -> bool {
        let local = &self.local;
        let port = &local.shared.ports[local.index];
        let mut busy = false;
        if port.has_news() {
            self.rings.adopt(port);
            busy |= local.take_over_threads();
            port.take_questions().into_iter().for_each(|question| question(ReactorDump::of(local)));
        }
        busy |= self.rings.drain(RING_BUDGET, |to, call| local.send(local.index, to, call));
        port.take_foreign(&mut self.inbound);
        busy |= !self.inbound.is_empty();
        self.inbound.drain(..).for_each(|Envelope { to, call }| local.send(local.index, to, call));
        busy
    }

    fn reap(&mut self) -> bool {
        let local = &self.local;
        {
            let mut driver = local.driver.borrow_mut();
            if driver.in_flight() == 0 {
                return false;
            }
            driver.poll(&mut self.completions);
        }
        let any = !self.completions.is_empty();
        self.completions.drain(..).for_each(|completion| local.ops.complete(completion));
        any
    }

    fn run_threads(&mut self, now: Time) -> bool {
        if self.local.changed.take() {
            self.cores = self.local.cores();
        }
        let mut busy = false;
        for core in &self.cores {
            if core.has_work(now) || core.pollers.len() > 0 {
                let _on_thread = Entered::new(core);
                busy |= core.turn(now);
            }
            if core.may_exit() {
                end_thread(&self.local, core);
                busy = true;
            }
        }
        busy
    }

    fn flush(&mut self) -> bool {
        let local = &self.local;
        if !local.overflowing.get() {
            return false;
        }
        let mut left = false;
        let mut outgoing = local.outgoing.borrow_mut();
        for (reactor, out) in outgoing.rings.iter_mut().enumerate() {
            let Some(out) = out.as_mut().filter(|out| !out.overflow.is_empty()) else { continue };
            left |= !out.flush();
            local.shared.ports[reactor].wake();
        }
        local.overflowing.set(left);
        left
    }

    /// After a turn without work: sleeps, if the mode says so and nothing came meanwhile.
    pub(crate) fn rest(&mut self) {
        self.rest_until(None);
    }

    /// As [`rest`](Self::rest), until `limit` at most.
    pub(crate) fn rest_until(&mut self, limit: Option<Time>) {
        let local = self.local.clone();
        let now = local.now.get();
        if self.must_poll(now) {
            return self.watch_for_mail();
        }
        local.settle();
        let port = &local.shared.ports[local.index];
        port.sleep.prepare();
        self.asleep = true;
        if port.has_mail() || !self.rings.are_empty() {
            return;
        }
        let deadline = self.next_deadline().into_iter().chain(limit).min();
        local.sleeps.set(local.sleeps.get() + 1);
        local.driver.borrow_mut().park(deadline);
    }

    /// Looks for messages a little while: a look is shorter than a turn, so they are seen sooner.
    fn watch_for_mail(&self) {
        let port = &self.local.shared.ports[self.local.index];
        for _ in 0..LOOKS_PER_TURN {
            if !self.rings.are_empty() || port.has_mail() {
                return;
            }
        }
    }

    /// When the first of its threads wants to run by itself.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.local.threads.borrow().iter().flatten().filter_map(|core| core.next_deadline()).min()
    }

    /// Whether the reactor stays awake although it has nothing to do.
    fn must_poll(&self, now: Time) -> bool {
        let spinning = || self.local.threads.borrow().iter().flatten().any(|core| core.pollers.has_work());
        match self.local.shared.ports[self.local.index].mode() {
            Mode::Poll => true,
            Mode::Interrupt => spinning(),
            Mode::Adaptive if self.local.simulated => spinning(),
            Mode::Adaptive => now - self.last_work < self.linger || spinning(),
        }
    }

    /// Whether the runtime shuts down and nothing of it is left here. Drops what its threads still run.
    pub(crate) fn is_finished(&mut self) -> bool {
        if !self.local.shared.is_shutting_down() {
            return false;
        }
        self.local.take_over_threads();
        for core in self.local.cores() {
            let _on_thread = Entered::new(&core);
            core.cancel_everything();
            core.start_exit();
            if self.local.ops.of(&core) == 0 {
                core.holds.set(0);
                end_thread(&self.local, &core);
            }
        }
        let left = self.local.driver.borrow().in_flight();
        left == 0 && self.local.threads.borrow().iter().flatten().next().is_none()
    }

    /// The end: later messages from outside are refused.
    pub(crate) fn close(&mut self) {
        self.local.settle();
        self.local.shared.ports[self.local.index].close();
        self.local.shared.reactor_ended();
    }
}

/// Ends a thread whose exit is complete.
fn end_thread(local: &Local, core: &Rc<ThreadCore>) {
    let _on_thread = Entered::new(core);
    // Out of the table first: a late message to it is dropped, not queued for nobody.
    local.threads.borrow_mut()[core.shared.slot as usize] = None;
    local.changed.set(true);
    core.end();
}
