//! Pollers: functions that a thread calls again and again.
//!
//! Owned by the [`Poller`] handle on the thread that made it (`!Send`); dropping the handle stops it, also
//! from within its own call. Active pollers are called in every turn of their thread, the newest first as
//! in SPDK; timed ones in the first turn at or after their time, and then a whole period later, so there
//! are no bursts to catch up.
//!
//! An active poller says what it waits for, so that an idle reactor may sleep: a reactor awake for any
//! reason calls all of them; one that must [spin](Wake::Spin) keeps its core awake, and is named for it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use spindle_engine::Time;

use crate::activity::{Activity, CallKind};
use crate::core::ThreadCore;
use crate::current;
use crate::due::DueRings;
use crate::spent::{self, FIRST_WALKS, Picks, Spent};
use crate::task::{drop_caught, panic_message};

/// Whether a call found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Nothing to do.
    No,
    /// It did something, and may have more to do.
    Yes,
}

/// What ends the sleep of a reactor for an active poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Nothing does: the reactor never sleeps while this poller is active.
    Spin,
    /// A completion of the engine, a message or a waker: whatever wakes the thread anyway. The name says
    /// in dumps which it is: "completions of the queue pair".
    Event(&'static str),
    /// A time at most this far away, beside whatever wakes the thread anyway.
    Every(Duration),
}

type Function = Box<dyn FnMut() -> Busy>;

/// One poller, shared by its handle and its thread's lists.
pub(crate) struct PollerCell {
    name: String,
    made_at: &'static Location<'static>,
    kind: Kind,
    /// Borrowed while it is called; none once stopped.
    function: RefCell<Option<Function>>,
    state: Cell<State>,
    runs: Cell<u64>,
    busy_runs: Cell<u64>,
    /// How many calls there were after the last one that found something to do.
    busy_at: Cell<u64>,
    spent: Spent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Paused,
    /// Its handle was dropped, or it panicked.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Active(Wake),
    Timed(Duration),
}

/// What a poller is, for a dump.
#[derive(Clone, Debug)]
pub struct PollerInfo {
    /// Its name.
    pub name: String,
    /// Where it was made.
    pub made_at: String,
    /// "active" or "timed".
    pub kind: &'static str,
    /// What wakes its thread for it: the name of its event, "nothing, it spins", "a timer every 1s".
    pub woken_by: String,
    /// Paused.
    pub paused: bool,
    /// Calls, and those that found something to do.
    pub runs: (u64, u64),
    /// The time of all calls, and of those that found something to do: see [`Poller::times`].
    pub times: (Duration, Duration),
}

/// A poller of the current thread. Dropping it stops the poller. `!Send`.
#[must_use = "dropping the handle stops the poller"]
pub struct Poller {
    cell: Rc<PollerCell>,
    core: Weak<ThreadCore>,
}

impl Poller {
    /// Has `function` called in every turn of the current thread.
    ///
    /// # Panics
    /// Away from a Spindle thread.
    #[track_caller]
    pub fn active(name: &str, wake: Wake, function: impl FnMut() -> Busy + 'static) -> Poller {
        Poller::start(name, Kind::Active(wake), Box::new(function))
    }

    /// Has `function` called once a `period`, the first time one period from now.
    ///
    /// # Panics
    /// Away from a Spindle thread.
    #[track_caller]
    pub fn timed(name: &str, period: Duration, function: impl FnMut() -> Busy + 'static) -> Poller {
        Poller::start(name, Kind::Timed(period), Box::new(function))
    }

    #[track_caller]
    fn start(name: &str, kind: Kind, function: Function) -> Poller {
        let core = current::expect("a poller");
        let cell = Rc::new(PollerCell {
            name: name.to_owned(),
            made_at: Location::caller(),
            kind,
            function: RefCell::new(Some(function)),
            state: Cell::new(State::Active),
            runs: Cell::new(0),
            busy_runs: Cell::new(0),
            busy_at: Cell::new(0),
            spent: Spent::default(),
        });
        core.pollers.insert(cell.clone(), core.local.clock());
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Stops calling it until [`resume`](Self::resume). Again changes nothing.
    pub fn pause(&self) {
        if self.cell.turn_from(State::Active, State::Paused)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.stale.set(true);
        }
    }

    /// Calls it again; a timed poller waits a whole period first. Again changes nothing.
    pub fn resume(&self) {
        if self.cell.turn_from(State::Paused, State::Active)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.resume(&self.cell, core.local.clock());
        }
    }

    /// Calls so far, and those that found something to do.
    pub fn runs(&self) -> (u64, u64) {
        (self.cell.runs.get(), self.cell.busy_runs.get())
    }

    /// How long the calls so far took, and those that found something to do. Of a poller that is called
    /// often this is an estimate: one call in 251 is measured, and stands for 251, because measuring takes
    /// longer than an idle call. Zero in simulation, where nothing takes time.
    pub fn times(&self) -> (Duration, Duration) {
        self.cell.spent.times()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // One that panicked was stopped then.
        if self.cell.state.replace(State::Stopped) == State::Stopped {
            return;
        }
        if let Some(core) = self.core.upgrade() {
            core.pollers.forget_stopped();
        }
        // Taken out first: what the function captured may itself hold pollers. While it is being called it
        // is out already, and dropped after.
        let function = self.cell.function.try_borrow_mut().ok().and_then(|mut function| function.take());
        drop_caught(function);
    }
}

impl PollerCell {
    fn is_active(&self) -> bool {
        self.state.get() == State::Active
    }

    fn is_stopped(&self) -> bool {
        self.state.get() == State::Stopped
    }

    /// Changes the state, if it is `from`.
    fn turn_from(&self, from: State, to: State) -> bool {
        let is_from = self.state.get() == from;
        if is_from {
            self.state.set(to);
        }
        is_from
    }

    /// Calls the function, if the poller is active; true if that found something to do. A panic goes
    /// through, to be handed to [`panicked`](Self::panicked).
    #[inline]
    fn call<const MEASURED: bool>(&self, core: &ThreadCore, activity: &Activity) -> bool {
        if !self.is_active() {
            return false;
        }
        // Borrowed while it runs: a drop of its handle from within finds that, and leaves it to us.
        let mut function = self.function.borrow_mut();
        let Some(call) = function.as_mut() else { return false };
        activity.poller(self.made_at);
        let before = self.runs.get();
        let busy = if MEASURED { self.measured(core, before, call) } else { call() == Busy::Yes };
        self.runs.set(before + 1);
        if busy {
            self.busy_runs.set(self.busy_runs.get() + 1);
            self.busy_at.set(before + 1);
        }
        if self.is_stopped() {
            let function = function.take();
            drop_caught(function);
        }
        busy
    }

    #[inline(never)]
    fn measured(&self, core: &ThreadCore, before: u64, call: &mut Function) -> bool {
        let (busy, span) = core.local.measure(|| call() == Busy::Yes);
        self.spent.add(before, span, busy);
        busy
    }

    /// Whether its last call found something to do.
    fn was_busy(&self) -> bool {
        self.runs.get() > 0 && self.busy_at.get() == self.runs.get()
    }

    /// Whether the next call of a timed poller is to be measured.
    fn is_due_for_measure(&self) -> bool {
        matches!(self.kind, Kind::Timed(period) if spent::is_measured(period, self.runs.get()))
    }

    /// A call panicked: stops the poller. Nobody waits for it any more.
    #[cold]
    fn panicked(&self, core: &ThreadCore, payload: Box<dyn Any + Send>) {
        if self.state.replace(State::Stopped) != State::Stopped {
            core.pollers.forget_stopped();
        }
        self.runs.set(self.runs.get() + 1);
        let (name, made_at) = (&self.name, self.made_at);
        let what = format!("poller {name}, made at {made_at}, panicked: {}", panic_message(payload));
        core.local.report(&core.shared, &what);
        let function = self.function.borrow_mut().take();
        drop_caught(function);
    }
}

/// The pollers of one thread.
#[derive(Default)]
pub(crate) struct Pollers {
    active: RefCell<Vec<Rc<PollerCell>>>,
    timed: RefCell<DueRings<Rc<PollerCell>>>,
    /// Living pollers.
    count: Cell<usize>,
    /// Active ones that spin, neither paused nor stopped.
    spinning: Cell<usize>,
    /// The shortest `Wake::Every`.
    every: Cell<Option<Duration>>,
    /// When the active ones ran last.
    ran: Cell<Time>,
    /// Walks over the active ones.
    walks: Cell<usize>,
    /// How many of the next ones measure all of them.
    first_walks: Cell<u32>,
    /// The last call of any active poller found something to do.
    busy: Cell<bool>,
    /// The active ones are being called one by one, and are not in their list meanwhile.
    walking: Cell<bool>,
    /// Some were made, stopped, paused or resumed since the lists were looked over.
    stale: Cell<bool>,
}

impl Pollers {
    pub(crate) fn len(&self) -> usize {
        self.count.get()
    }

    /// Whether they want to be called although nothing woke the thread.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.look_over();
        self.spinning.get() > 0 || self.busy.get()
    }

    /// Those that keep the reactor awake, by name and place: they spin, or the last call found something to do.
    pub(crate) fn culprits(&self) -> Vec<String> {
        let culprit = |cell: &Rc<PollerCell>| {
            let why = match cell.kind {
                Kind::Active(Wake::Spin) => "spins",
                _ if self.busy.get() && cell.was_busy() => "found something to do",
                _ => return None,
            };
            cell.is_active().then(|| format!("poller {}, made at {}: {why}", cell.name, cell.made_at))
        };
        self.active.borrow().iter().filter_map(culprit).collect()
    }

    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.look_over();
        let timed = self.timed.borrow().next_time();
        let every = self.every.get().map(|every| self.ran.get() + every);
        timed.into_iter().chain(every).min()
    }

    fn insert(&self, cell: Rc<PollerCell>, now: Time) {
        match cell.kind {
            Kind::Active(_) => self.active.borrow_mut().push(cell),
            Kind::Timed(period) => self.timed.borrow_mut().insert(now, period, cell),
        }
        self.count.set(self.count.get() + 1);
        self.first_walks.set(FIRST_WALKS);
        self.stale.set(true);
    }

    fn resume(&self, cell: &Rc<PollerCell>, now: Time) {
        if let Kind::Timed(period) = cell.kind {
            // Its old place, if it is still there, goes: it waits a whole period.
            let mut timed = self.timed.borrow_mut();
            timed.retain(|other| !Rc::ptr_eq(other, cell));
            timed.insert(now, period, cell.clone());
        }
        self.stale.set(true);
    }

    /// One of them was stopped: its place goes when the list is next [looked over](Self::look_over).
    fn forget_stopped(&self) {
        self.count.set(self.count.get() - 1);
        self.stale.set(true);
    }

    /// Drops the places of stopped pollers and counts the others anew, if something changed; while the active
    /// ones are being walked, later. Once for all changes of a turn: a program may stop thousands.
    #[inline]
    fn look_over(&self) {
        // Asked of every thread in every turn, and almost always no.
        if self.stale.get() && !self.walking.get() {
            self.look_over_now();
        }
    }

    #[inline(never)]
    fn look_over_now(&self) {
        self.stale.set(false);
        // Their functions are gone, so this runs nobody's code.
        self.active.borrow_mut().retain(|cell| !cell.is_stopped());
        self.timed.borrow_mut().retain(|cell| !cell.is_stopped());
        let active = self.active.borrow();
        let living = || active.iter().filter(|cell| cell.is_active());
        self.spinning.set(living().filter(|cell| cell.kind == Kind::Active(Wake::Spin)).count());
        let every = living().filter_map(|cell| match cell.kind {
            Kind::Active(Wake::Every(every)) => Some(every),
            _ => None,
        });
        self.every.set(every.min());
    }

    /// Calls every active poller once, the newest first, and the timed ones that are due.
    pub(crate) fn run(&self, core: &ThreadCore, now: Time) -> bool {
        let busy = self.run_active(core, now);
        self.run_timed(core, now) || busy
    }

    fn run_active(&self, core: &ThreadCore, now: Time) -> bool {
        // Taken out meanwhile: a call may start others, which are called from the next turn on.
        let mut active = std::mem::take(&mut *self.active.borrow_mut());
        let (mut busy, mut at) = (false, active.len());
        let (mut picks, activity) = (self.picks(at), core.local.activity());
        self.walking.set(true);
        core.begin_all(CallKind::Poller, at);
        // One net under all of them: a net under each would cost more than an idle poller.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            while at > 0 {
                let measured = picks.next_below(at);
                while at > measured {
                    at -= 1;
                    busy |= active[at].call::<false>(core, activity);
                }
                if at > 0 {
                    at -= 1;
                    picks.take();
                    busy |= active[at].call::<true>(core, activity);
                }
            }
        })) {
            busy = true;
            active[at].panicked(core, payload);
        }
        self.walking.set(false);
        active.append(&mut self.active.borrow_mut());
        *self.active.borrow_mut() = active;
        self.ran.set(now);
        self.busy.set(busy);
        busy
    }

    /// Which of `len` active ones the next walk measures.
    fn picks(&self, len: usize) -> Picks {
        let (walk, first) = (self.walks.get(), self.first_walks.get());
        self.walks.set(walk.wrapping_add(1));
        self.first_walks.set(first.saturating_sub(1));
        Picks::new(walk, len, first > 0)
    }

    fn run_timed(&self, core: &ThreadCore, now: Time) -> bool {
        if self.timed.borrow().next_time().is_none_or(|time| time > now) {
            return false;
        }
        let (mut busy, mut called, activity) = (false, 0, core.local.activity());
        let mut running: Option<Rc<PollerCell>> = None;
        core.begin_all(CallKind::Poller, 0);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            loop {
                running = self.timed.borrow_mut().take_due(now, |cell| cell.is_active());
                let Some(cell) = &running else { break };
                called += 1;
                let measured = cell.is_due_for_measure();
                busy |= match measured {
                    true => cell.call::<true>(core, activity),
                    false => cell.call::<false>(core, activity),
                };
            }
        })) {
            busy = true;
            if let Some(cell) = running.take() {
                cell.panicked(core, payload);
            }
        }
        core.called.set(core.called.get() + called);
        busy
    }

    /// Stops all of them.
    pub(crate) fn clear(&self) {
        let active = std::mem::take(&mut *self.active.borrow_mut());
        let timed = std::mem::take(&mut *self.timed.borrow_mut());
        for cell in active.iter().chain(timed.iter()) {
            cell.state.set(State::Stopped);
            let function = cell.function.borrow_mut().take();
            drop_caught(function);
        }
        self.count.set(0);
        self.stale.set(true);
    }

    /// What they are, for a dump.
    pub(crate) fn infos(&self) -> Vec<PollerInfo> {
        let active = self.active.borrow();
        let timed = self.timed.borrow();
        let cells = active.iter().chain(timed.iter());
        let info = |cell: &Rc<PollerCell>| PollerInfo {
            name: cell.name.clone(),
            made_at: cell.made_at.to_string(),
            kind: match cell.kind {
                Kind::Active(_) => "active",
                Kind::Timed(_) => "timed",
            },
            woken_by: match cell.kind {
                Kind::Active(Wake::Spin) => "nothing, it spins".to_owned(),
                Kind::Active(Wake::Event(name)) => name.to_owned(),
                Kind::Active(Wake::Every(every)) | Kind::Timed(every) => format!("a timer every {every:?}"),
            },
            paused: cell.state.get() == State::Paused,
            runs: (cell.runs.get(), cell.busy_runs.get()),
            times: cell.spent.times(),
        };
        cells.filter(|cell| !cell.is_stopped()).map(info).collect()
    }
}
