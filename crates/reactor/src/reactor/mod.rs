//! One reactor: an engine's driver, the threads placed on it, and the rings into it.
//!
//! Owned by one OS thread (or, in simulation, by the loop that runs all of them in turn). A turn reads the
//! clock once, takes messages, hands out completions, gives every thread that has work one bounded turn, and
//! ends threads whose exit is complete.

mod describe;
mod reaped;
mod short_turns;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Driver, Time};

use crate::caught::drop_caught;
use crate::diagnosis::activity::CallKind;
use crate::diagnosis::dump::ReactorDump;
use crate::diagnosis::load::Load;
use crate::local::Local;
use crate::local::current::Entered;
use crate::local::thread_core::ThreadCore;
use crate::mode::Mode;
use crate::reactor::reaped::Reaped;
use crate::shared::Shared;
use crate::shared::port::{Address, Rings, Tagged};

/// Messages taken out of bulk in one turn: other messages wait for them.
const BULK_BUDGET: usize = 4;

/// Messages from plain OS threads and other runtimes taken in one turn; threads share them fairly.
const INBOX_BUDGET: usize = 64;

/// How long the adaptive mode keeps polling after the last work: about the cost of a sleep and a wake.
const LINGER: Duration = Duration::from_micros(50);

/// Above this average per call there are no short turns: they would save little, and timers wait.
const QUICK: Duration = Duration::from_nanos(250);

/// Above this average per round there are no further ones: they would save little, and timers wait.
const QUICK_ROUND: u64 = 400;

/// Looks for messages between two turns of an idle reactor that polls. A turn also asks for completions, so
/// all these looks together take no longer than one.
const LOOKS_PER_TURN: usize = 16;

/// A reactor, with what only its own loop touches.
pub(crate) struct Reactor {
    pub(crate) local: Rc<Local>,
    rings: Rings,
    /// Its share of the port, which others read.
    load: Arc<Load>,
    /// How long to poll after the last work.
    linger: Duration,
    last_work: Time,
    asleep: bool,
    clock_is_fresh: bool,
    /// The only thread that had work in the last turn.
    alone: Option<Rc<ThreadCore>>,
    /// True if the calls before the last clock reading were [`QUICK`].
    quick: bool,
    /// Rounds of calls of idle pollers since the last reading of the clock, and whether those before it were
    /// [`QUICK_ROUND`]s.
    rounds: u64,
    quick_rounds: bool,
    /// When the last turn began, and whether its time is still to be accounted for.
    began: Time,
    to_account: bool,
    /// The threads that had a turn in the last turn of the reactor. Kept for its capacity.
    ran: Vec<Rc<ThreadCore>>,
    /// Completions left over from earlier turns.
    reaped: Reaped,
    /// Empty between two turns. Kept for its capacity.
    from_inbox: VecDeque<Tagged>,
    /// True if the last turn called active pollers.
    polls: bool,
    /// The last turn found nothing to do.
    was_idle: bool,
}

impl Reactor {
    /// Makes the reactor number `index`; call it on the OS thread that will run it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        driver: Box<dyn Driver>,
        simulated: bool,
    ) -> Reactor {
        shared.ports[index].incoming.open(driver.unparker());
        shared.ports[index].activity.open();
        // Polling while another reactor needs the same core only delays that one.
        let here = shared.cores.iter().filter(|core| **core == shared.cores[index]).count();
        let linger = if here > 1 { Duration::ZERO } else { LINGER };
        let load = shared.ports[index].load.clone();
        let local = Local::new(shared, index, driver, simulated);
        Reactor {
            local,
            rings: Rings::default(),
            load,
            linger,
            last_work: Time::default(),
            alone: None,
            quick: false,
            rounds: 0,
            quick_rounds: false,
            asleep: false,
            clock_is_fresh: false,
            began: Time::default(),
            to_account: false,
            reaped: Reaped::default(),
            from_inbox: VecDeque::new(),
            polls: false,
            was_idle: false,
            ran: Vec::new(),
        }
    }

    /// One turn; true if there was work.
    pub(crate) fn turn(&mut self) -> bool {
        let local = self.local.clone();
        if std::mem::take(&mut self.asleep) {
            local.port().incoming.awake();
            self.clock_is_fresh = false;
        }
        if !std::mem::take(&mut self.clock_is_fresh) {
            self.read_clock();
        }
        let now = local.now.get();
        self.began = now;
        let mut busy = self.receive();
        let sleeps_next = local.ready.is_empty() && self.sleeps_when_idle();
        busy |= self.reaped.hand_out(&local, self.was_idle, sleeps_next);
        busy |= self.run_threads(&local, now);
        busy |= local.flush();
        local.wake_receivers();
        local.activity().begin(CallKind::Nothing, None);
        self.was_idle = !busy;
        local.turns.count(busy);
        if busy {
            self.last_work = now;
            self.to_account = true;
        }
        busy
    }

    /// Reads the clock after a turn, for a caller that starts the next one at once: messages that arrive
    /// meanwhile then need not wait for the reading.
    pub(crate) fn read_clock_ahead(&mut self) {
        self.read_clock();
        self.clock_is_fresh = true;
    }

    /// Reads the clock, and accounts for the time of the turn before.
    pub(crate) fn read_clock(&mut self) {
        let now = self.local.driver.borrow_mut().now();
        self.local.now.set(now);
        let rounds = std::mem::take(&mut self.rounds) + 1;
        self.quick_rounds = now.as_nanos().saturating_sub(self.began.as_nanos()) <= QUICK_ROUND * rounds;
        if std::mem::take(&mut self.to_account) {
            self.account(now.as_nanos().saturating_sub(self.began.as_nanos()));
        } else {
            // Calls that found nothing have no share in what a later turn takes.
            self.ran.iter().for_each(|core| core.called.set(0));
        }
    }

    /// Divides a turn's nanoseconds among the threads that called something in it.
    fn account(&mut self, ns: u64) {
        self.local.busy_ns.set(self.local.busy_ns.get() + ns);
        self.load.add(self.local.now.get(), ns);
        let all = self.ran.iter().map(|core| core.called.get()).sum();
        self.quick = ns <= QUICK.as_nanos() as u64 * u64::from(all);
        self.ran.iter().filter(|core| core.called.get() > 0).for_each(|core| core.account(ns, all));
    }

    fn receive(&mut self) -> bool {
        let local = &self.local;
        let has_mail = local.port().incoming.has_mail() || local.has_questions();
        let busy = has_mail && self.open_mail();
        let local = &self.local;
        let came = self.rings.take(BULK_BUDGET, |front| {
            local.enqueue(Address::of_tag(front.tag()), || front.take());
            true
        });
        busy || came
    }

    /// Receives what does not come through rings: rare, so once per turn.
    #[inline(never)]
    fn open_mail(&mut self) -> bool {
        let local = &self.local;
        let incoming = &local.port().incoming;
        let mut busy = false;
        if incoming.has_news() {
            self.rings.adopt(incoming);
            busy |= local.take_news();
        }
        local.take_questions().into_iter().for_each(|question| question(ReactorDump::of(local)));
        incoming.take_inbox(INBOX_BUDGET, &mut self.from_inbox);
        busy |= !self.from_inbox.is_empty();
        for Tagged { tag, value } in self.from_inbox.drain(..) {
            local.enqueue(Address::of_tag(tag), || value);
        }
        busy
    }

    /// Gives each listed thread its turn. A thread that is listed meanwhile has it in this turn of the
    /// reactor too, if it has not had one yet.
    fn run_threads(&mut self, local: &Local, now: Time) -> bool {
        local.begin_turn(now);
        self.ran.clear();
        self.alone = None;
        self.polls = false;
        let (mut busy, mut turns) = (false, 0);
        while let Some(core) = local.next_ready() {
            if core.ended.get() {
                continue;
            }
            self.ran.push(core.clone());
            // Active pollers first, which most threads that spin have: what else there is need not be looked at.
            if core.pollers.has_active() || core.has_work(now) {
                let _on_thread = Entered::new(&core);
                busy |= core.turn(now);
                self.polls |= core.pollers.has_active();
                turns += 1;
            }
            if core.may_exit() {
                let _on_thread = Entered::new(&core);
                local.end(&core);
                turns += 1;
                busy = true;
            } else if core.pollers.has_active() || core.has_calls() {
                local.ready.put_back(core);
            } else {
                // Also one that is due again already: the next turn takes it from there.
                local.ready.leave(&core, core.next_deadline());
            }
        }
        if turns == 1 {
            self.alone = self.ran.iter().find(|core| core.called.get() > 0).cloned();
        }
        busy
    }

    /// What it does when it has nothing to do.
    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        self.local.port().mode()
    }

    /// True if the turn before has left nothing to do, so that another one would only find that out, on a reactor
    /// that then sleeps.
    pub(crate) fn can_rest(&self) -> bool {
        let local = &self.local;
        self.sleeps_when_idle()
            && local.ready.is_empty()
            && self.reaped.is_empty()
            && self.next_deadline().is_none_or(|due| due > local.now.get())
            && !local.driver.borrow_mut().has_ready()
    }

    /// After a turn without work: sleeps, if the mode allows it and nothing arrived meanwhile.
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
        local.wake_receivers();
        self.asleep = true;
        if !local.port().incoming.fall_asleep(&self.rings) {
            return;
        }
        let deadline = self.next_deadline().into_iter().chain(limit).min();
        local.sleeps.set(local.sleeps.get() + 1);
        local.driver.borrow_mut().park(deadline);
    }

    /// Looks for messages for a while: a look is shorter than a turn, so they are seen sooner. Not used with
    /// active pollers, which would wait meanwhile.
    fn watch_for_mail(&self) {
        if self.polls {
            return;
        }
        let incoming = &self.local.port().incoming;
        for _ in 0..LOOKS_PER_TURN {
            if self.rings.have_express() || incoming.has_mail() {
                return;
            }
        }
    }

    /// The earliest time at which one of its threads needs a turn.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.local.next_deadline()
    }

    /// True if the reactor stays awake although it has nothing to do.
    fn must_poll(&self, now: Time) -> bool {
        let spinning = || self.local.is_spinning();
        match self.mode() {
            Mode::Poll => true,
            Mode::Interrupt => spinning(),
            Mode::Adaptive if self.local.simulated => spinning(),
            Mode::Adaptive => now - self.last_work < self.linger || spinning(),
        }
    }

    /// True if a turn without work is followed by sleep.
    fn sleeps_when_idle(&self) -> bool {
        match self.mode() {
            Mode::Poll => false,
            Mode::Interrupt => !self.local.simulated,
            Mode::Adaptive => !self.local.simulated && self.linger.is_zero(),
        }
    }

    /// True if the runtime shuts down and nothing is left here. Drops what its threads still run.
    pub(crate) fn is_finished(&mut self) -> bool {
        if !self.local.shared.is_shutting_down() {
            return false;
        }
        self.local.take_news();
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

    /// Closes the port: later messages are refused.
    pub(crate) fn close(&mut self) {
        self.local.wake_receivers();
        let (values, _news) = self.local.port().incoming.close();
        values.into_iter().for_each(|message| drop_caught(message.value));
        self.ran.clear();
        self.local.ready.clear();
        drop(self.local.take_questions());
        // Shows observers that no call holds it.
        self.local.activity().begin(CallKind::Nothing, None);
        self.local.shared.reactor_ended();
    }
}
