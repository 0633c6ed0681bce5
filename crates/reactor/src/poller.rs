//! Pollers: functions that a thread calls again and again.
//!
//! Owned by the [`Poller`] handle on the thread that made it (`!Send`); dropping the handle stops it, also
//! from within its own call. Active pollers are called in every turn of their thread, newest first as in
//! SPDK; timed ones in the first turn at or after their time, and then a whole period later, so there are no
//! bursts to catch up.
//!
//! An active poller names what it waits for, so that an idle reactor may sleep: a reactor awake for any
//! reason calls all of them. One that must [spin](Wake::Spin) keeps its core awake, and dumps name it.

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

/// Whether a call found work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Nothing to do.
    No,
    /// It did work, and may have more.
    Yes,
}

/// What ends the sleep of a reactor for an active poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Nothing does: the reactor never sleeps while this poller is active.
    Spin,
    /// A completion of the engine, a message or a waker: anything that wakes the thread anyway. Dumps show
    /// the name: "completions of the queue pair".
    Event(&'static str),
    /// At the latest after this time, or when the thread wakes anyway. 0 is [`Spin`](Wake::Spin).
    Every(Duration),
}

pub(crate) type Function = Box<dyn FnMut() -> Busy>;

/// One poller, shared by its handle and its thread's lists.
pub(crate) struct PollerCell {
    pub(crate) name: String,
    pub(crate) made_at: &'static Location<'static>,
    pub(crate) kind: Kind,
    /// The function of a timed poller: borrowed while it is called, `None` once stopped. An active poller's
    /// is in its thread's list.
    pub(crate) function: RefCell<Option<Function>>,
    /// The place of an active poller in that list, at its last check.
    pub(crate) place: Cell<usize>,
    pub(crate) state: Cell<State>,
    runs: Cell<u64>,
    busy_runs: Cell<u64>,
    /// The number of calls after the last one that found work.
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

/// A poller's description, for a dump.
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
    /// Its period, if timed.
    pub period: Option<Duration>,
    /// Paused.
    pub paused: bool,
    /// Calls, and calls that found work.
    pub runs: (u64, u64),
    /// The time of all calls, and of those that found work: see [`Poller::times`].
    pub times: (Duration, Duration),
}

/// A poller of the current thread. Dropping it stops the poller, and drops its function with its captures: at
/// once, or, while active pollers are being called, after all of them have been. `!Send`.
#[must_use = "dropping the handle stops the poller"]
pub struct Poller {
    cell: Rc<PollerCell>,
    core: Weak<ThreadCore>,
}

impl Poller {
    /// Calls `function` in every turn of the current thread.
    ///
    /// # Panics
    /// Outside a Spindle thread.
    #[track_caller]
    pub fn active(name: &str, wake: Wake, function: impl FnMut() -> Busy + 'static) -> Poller {
        // No sleep is short enough, so it is treated and named as spinning.
        let wake = if wake == Wake::Every(Duration::ZERO) { Wake::Spin } else { wake };
        let core = current::expect("a poller");
        let cell = PollerCell::new(name, Kind::Active(wake), None);
        core.pollers.insert_active(cell.clone(), Box::new(function));
        Poller { cell, core: Rc::downgrade(&core) }
    }

    /// Calls `function` once per `period`, the first time one period from now. With a period of 0 it is an
    /// active poller that [spins](Wake::Spin).
    ///
    /// # Panics
    /// Outside a Spindle thread.
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

    /// Stops the calls until [`resume`](Self::resume). A second call has no effect.
    pub fn pause(&self) {
        if self.cell.turn_from(State::Active, State::Paused)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.paused();
        }
    }

    /// Restarts the calls; a timed poller waits a whole period first. A second call has no effect.
    pub fn resume(&self) {
        if self.cell.turn_from(State::Paused, State::Active)
            && let Some(core) = self.core.upgrade()
        {
            core.pollers.resume(&self.cell, core.local.clock());
        }
    }

    /// Calls so far, and calls that found work.
    pub fn runs(&self) -> (u64, u64) {
        (self.cell.runs.get(), self.cell.busy_runs.get())
    }

    /// The time of all calls so far, and of those that found work. For a poller that is called often this is
    /// an estimate: one call in 251 is measured, and represents 251, because measuring takes longer than an
    /// idle call. Zero in simulation, where nothing takes time.
    pub fn times(&self) -> (Duration, Duration) {
        self.cell.spent.times()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // A poller that panicked is stopped already.
        if self.cell.state.replace(State::Stopped) == State::Stopped {
            return;
        }
        // A thread that is gone has stopped all its pollers.
        if let Some(core) = self.core.upgrade() {
            core.pollers.forget_stopped();
            // Taken out first: the function's captures may hold pollers.
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

    /// Calls the function; true if it found work. A panic passes through, to be given to
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

    /// As [`call`](Self::call), with the function stored here, if the poller is running.
    #[inline]
    pub(crate) fn call_timed<const MEASURED: bool>(&self, core: &ThreadCore, activity: &Activity) -> bool {
        if !self.is_active() {
            return false;
        }
        // Borrowed while it runs: if its handle is dropped from within, the drop sees that and leaves the
        // function to this call.
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

    /// True if its last call found work.
    pub(crate) fn was_busy(&self) -> bool {
        self.runs.get() > 0 && self.busy_at.get() == self.runs.get()
    }

    /// Whether the next call of a timed poller is to be measured.
    pub(crate) fn is_due_for_measure(&self) -> bool {
        matches!(self.kind, Kind::Timed(period) if spent::is_measured(period, self.runs.get()))
    }

    /// A call panicked: stops the poller.
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
