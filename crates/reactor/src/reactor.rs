//! One reactor: an engine's driver, the threads placed on it, and the rings into it.
//!
//! Owned by one OS thread (or, in simulation, by the loop that runs all of them in turn). A turn reads the
//! clock once, takes what came in, hands out completions, gives every thread that has work one bounded turn,
//! and ends threads whose exit is complete.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Driver, Time};

use crate::activity::CallKind;
use crate::core::ThreadCore;
use crate::current::Entered;
use crate::dump::ReactorDump;
use crate::local::Local;
use crate::mode::Mode;
use crate::port::{Envelope, Rings};
use crate::reaped::Reaped;
use crate::shared::Shared;
use crate::task::drop_caught;

/// Messages from outside taken in one turn. They stand in one line, so more than of the bulk.
const OUTSIDE_BUDGET: usize = 64;

/// What the adaptive mode keeps polling for after the last work: about what a sleep and a wake cost.
const LINGER: Duration = Duration::from_micros(50);

/// Looks for messages between two turns of a reactor that polls and has nothing to do. A turn also asks for
/// completions, so these looks take no longer than it.
const LOOKS_PER_TURN: usize = 16;

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
    /// Messages from outside that a turn had no time for.
    inbound: VecDeque<Envelope>,
    /// Completions that a turn had no time for.
    reaped: Reaped,
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
        // Polling while another reactor needs the same core only keeps that one waiting.
        let here = shared.cores.iter().filter(|core| **core == shared.cores[index]).count();
        let linger = if here > 1 { Duration::ZERO } else { LINGER };
        let local = Local::new(shared, index, driver, simulated);
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
            reaped: Reaped::default(),
            cores: Vec::new(),
        }
    }

    /// One turn; true if there was something to do.
    pub(crate) fn turn(&mut self) -> bool {
        let local = self.local.clone();
        if std::mem::take(&mut self.asleep) {
            local.port().sleep.cancel();
            self.clock_is_fresh = false;
        }
        if !std::mem::take(&mut self.clock_is_fresh) {
            self.read_clock();
        }
        let now = local.now.get();
        self.began = now;
        let mut busy = self.receive();
        busy |= self.reaped.hand_out(&local);
        busy |= self.run_threads(now);
        busy |= local.flush();
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
            self.account(now.as_nanos().saturating_sub(self.began.as_nanos()));
        }
    }

    /// Shares out the nanoseconds of a turn among the threads that called something in it.
    fn account(&self, ns: u64) {
        self.local.busy_ns.set(self.local.busy_ns.get() + ns);
        let all = self.cores.iter().map(|core| core.called.get()).sum();
        self.cores.iter().filter(|core| core.called.get() > 0).for_each(|core| core.account(ns, all));
    }

    fn receive(&mut self) -> bool {
        let local = &self.local;
        let port = local.port();
        let mut busy = false;
        if port.has_news() {
            self.rings.adopt(port);
            busy |= local.take_over_threads();
            port.take_questions().into_iter().for_each(|question| question(ReactorDump::of(local)));
        }
        busy |= self.rings.drain(|to, call| local.send(local.index, to, call));
        if self.inbound.len() < OUTSIDE_BUDGET {
            port.take_foreign(&mut self.inbound);
        }
        let outside = self.inbound.len().min(OUTSIDE_BUDGET);
        self.inbound.drain(..outside).for_each(|Envelope { to, call }| local.send(local.index, to, call));
        busy || outside > 0
    }

    fn run_threads(&mut self, now: Time) -> bool {
        if self.local.has_changed() {
            self.cores = self.local.cores();
        }
        let mut busy = false;
        for core in &self.cores {
            if core.has_work(now) || core.pollers.len() > 0 {
                let _on_thread = Entered::new(core);
                busy |= core.turn(now);
            }
            if core.may_exit() {
                self.local.end(core);
                busy = true;
            }
        }
        busy
    }

    /// After a turn without work: sleeps, if the mode says so and nothing came meanwhile.
    pub(crate) fn rest(&mut self) {
        self.rest_until(None);
    }

    /// As [`rest`](Self::rest), until `limit` at most.
    pub(crate) fn rest_until(&mut self, limit: Option<Time>) {
        let local = self.local.clone();
        let now = local.now.get();
        if !self.reaped.is_empty() {
            return;
        }
        if self.must_poll(now) {
            return self.watch_for_mail();
        }
        local.settle();
        let port = local.port();
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
        let port = self.local.port();
        for _ in 0..LOOKS_PER_TURN {
            if self.rings.have_express() || port.has_mail() {
                return;
            }
        }
    }

    /// When the first of its threads wants to run by itself.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.local.next_deadline()
    }

    /// Whether the reactor stays awake although it has nothing to do.
    fn must_poll(&self, now: Time) -> bool {
        let spinning = || self.local.is_spinning();
        match self.local.port().mode() {
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
                core.holds.borrow_mut().clear();
                self.local.end(&core);
            }
        }
        let mut driver = self.local.driver.borrow_mut();
        self.local.ops.take_endless().into_iter().for_each(|token| driver.cancel(token));
        driver.in_flight() == 0 && self.reaped.is_empty() && self.local.has_no_threads()
    }

    /// The end: later messages from outside are refused.
    pub(crate) fn close(&mut self) {
        self.local.settle();
        self.local.port().close();
        self.inbound.drain(..).for_each(|envelope| drop_caught(envelope.call));
        // Whoever looks at it from outside sees that nothing holds it.
        self.local.activity().begin(CallKind::Nothing, None);
        self.local.shared.reactor_ended();
    }
}
