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
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::activity::Activity;
use crate::core::ThreadCore;
use crate::current;
use crate::spent::{self, Spent};
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
    /// A time at most this far away, beside whatever wakes the thread anyway. With 0 it is [`Spin`](Wake::Spin).
    Every(Duration),
}

pub(crate) type Function = Box<dyn FnMut() -> Busy>;

/// One poller, shared by its handle and its thread's lists.
pub(crate) struct PollerCell {
    pub(crate) name: String,
    pub(crate) made_at: &'static Location<'static>,
    pub(crate) kind: Kind,
    /// A timed one's: borrowed while it is called, none once stopped. An active one's is in its thread's list.
    pub(crate) function: RefCell<Option<Function>>,
    /// Where an active one was when that list was last looked over, or it was put there.
    pub(crate) place: Cell<usize>,
    pub(crate) state: Cell<State>,
    runs: Cell<u64>,
    busy_runs: Cell<u64>,
    /// How many calls there were after the last one that found something to do.
    busy_at: Cell<u64>,
    spent: Spent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Paused,
    /// Its handle was dropped, or it panicked.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
    /// How often it is called, if by time.
    pub period: Option<Duration>,
    /// Paused.
    pub paused: bool,
    /// Calls, and those that found something to do.
    pub runs: (u64, u64),
    /// The time of all calls, and of those that found something to do: see [`Poller::times`].
    pub times: (Duration, Duration),
}

/// A poller of the current thread. Dropping it stops the poller, and drops what its function captured: at once, or,
/// while active pollers are being called, when all of them have been. `!Send`.
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
        // No sleep is short enough: counted and named as what it is.
        let wake = if wake == Wake::Every(Duration::ZERO) { Wake::Spin } else { wake };
        let core = current::expect("a poller");
        let cell = PollerCell::new(name, Kind::Active(wake), None);
        core.pollers.insert_active(cell.clone(), Box::new(function));
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Has `function` called once a `period`, the first time one period from now. With a period of 0 it is an
    /// active poller that [spins](Wake::Spin).
    ///
    /// # Panics
    /// Away from a Spindle thread.
    #[track_caller]
    pub fn timed(name: &str, period: Duration, function: impl FnMut() -> Busy + 'static) -> Poller {
        if period.is_zero() {
            return Poller::active(name, Wake::Spin, function);
        }
        let core = current::expect("a poller");
        let cell = PollerCell::new(name, Kind::Timed(period), Some(Box::new(function)));
        core.pollers.insert_timed(cell.clone(), period, core.local.clock());
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Stops calling it until [`resume`](Self::resume). Again changes nothing.
    pub fn pause(&self) {
        if self.cell.turn_from(State::Active, State::Paused)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.paused();
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
        // Of a thread that is gone all were stopped.
        if let Some(core) = self.core.upgrade() {
            core.pollers.forget_stopped();
            // Taken out first: what the function captured may itself hold pollers.
            let function = core.pollers.take_function(&self.cell);
            drop_caught(function);
        }
    }
}

impl PollerCell {
    #[track_caller]
    fn new(name: &str, kind: Kind, function: Option<Function>) -> Rc<PollerCell> {
        Rc::new(PollerCell {
            name: name.to_owned(),
            made_at: Location::caller(),
            kind,
            function: RefCell::new(function),
            place: Cell::new(0),
            state: Cell::new(State::Active),
            runs: Cell::new(0),
            busy_runs: Cell::new(0),
            busy_at: Cell::new(0),
            spent: Spent::default(),
        })
    }

    pub(crate) fn is_active(&self) -> bool {
        self.state.get() == State::Active
    }

    pub(crate) fn is_stopped(&self) -> bool {
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

    /// Calls the function; true if that found something to do. A panic goes through, to be handed to
    /// [`panicked`](Self::panicked).
    #[inline]
    pub(crate) fn call<const MEASURED: bool>(
        &self,
        core: &ThreadCore,
        activity: &Activity,
        function: &mut Function,
    ) -> bool {
        activity.poller(self.made_at);
        let before = self.runs.get();
        let busy = if MEASURED { self.measured(core, before, function) } else { function() == Busy::Yes };
        self.runs.set(before + 1);
        if busy {
            self.busy_runs.set(self.busy_runs.get() + 1);
            self.busy_at.set(before + 1);
        }
        busy
    }

    /// As [`call`](Self::call), the function that is here, if the poller is active.
    #[inline]
    pub(crate) fn call_timed<const MEASURED: bool>(&self, core: &ThreadCore, activity: &Activity) -> bool {
        if !self.is_active() {
            return false;
        }
        // Borrowed while it runs: a drop of its handle from within finds that, and leaves it to us.
        let mut place = self.function.borrow_mut();
        let Some(function) = place.as_mut() else { return false };
        let busy = self.call::<MEASURED>(core, activity, function);
        if self.is_stopped() {
            drop_caught(place.take());
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
    pub(crate) fn was_busy(&self) -> bool {
        self.runs.get() > 0 && self.busy_at.get() == self.runs.get()
    }

    /// Whether the next call of a timed poller is to be measured.
    pub(crate) fn is_due_for_measure(&self) -> bool {
        matches!(self.kind, Kind::Timed(period) if spent::is_measured(period, self.runs.get()))
    }

    /// A call panicked: stops the poller. Nobody waits for it any more.
    #[cold]
    pub(crate) fn panicked(&self, core: &ThreadCore, payload: Box<dyn Any + Send>) {
        if self.state.replace(State::Stopped) != State::Stopped {
            core.pollers.forget_stopped();
        }
        self.runs.set(self.runs.get() + 1);
        let (name, made_at) = (&self.name, self.made_at);
        let what = format!("poller {name}, made at {made_at}, panicked: {}", panic_message(payload));
        core.local.report(&core.shared, &what);
    }

    pub(crate) fn info(&self) -> PollerInfo {
        PollerInfo {
            name: self.name.clone(),
            made_at: self.made_at.to_string(),
            kind: match self.kind {
                Kind::Active(_) => "active",
                Kind::Timed(_) => "timed",
            },
            woken_by: match self.kind {
                Kind::Active(Wake::Spin) => "nothing, it spins".to_owned(),
                Kind::Active(Wake::Event(name)) => name.to_owned(),
                Kind::Active(Wake::Every(every)) | Kind::Timed(every) => format!("a timer every {every:?}"),
            },
            period: match self.kind {
                Kind::Active(Wake::Every(every)) | Kind::Timed(every) => Some(every),
                Kind::Active(_) => None,
            },
            paused: self.state.get() == State::Paused,
            runs: (self.runs.get(), self.busy_runs.get()),
            times: self.spent.times(),
        }
    }
}
