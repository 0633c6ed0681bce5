//! One poller: its function, its state and its counts.
//!
//! Shared by its handle and the lists of its thread, on that thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use crate::caught::{drop_caught, panic_message};
use crate::diagnosis::activity::Activity;
use crate::diagnosis::dump::PollerInfo;
use crate::task::host::Host;
use crate::time::spent::{self, Spent};

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
    /// No event: the reactor never sleeps while this poller is active.
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
    pub(crate) runs: Cell<u64>,
    pub(crate) busy_runs: Cell<u64>,
    /// The number of calls after the last one that found work.
    busy_at: Cell<u64>,
    pub(crate) spent: Spent,
    /// The number of the call of a timed poller that is measured next.
    measure_at: Cell<u64>,
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

impl PollerCell {
    #[track_caller]
    pub(crate) fn new(name: &str, kind: Kind, function: Option<Function>) -> Rc<PollerCell> {
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
            measure_at: Cell::new(0),
        })
    }

    pub(crate) fn is_active(&self) -> bool {
        self.state.get() == State::Active
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.get() == State::Stopped
    }

    /// Changes the state, if it is `from`.
    pub(crate) fn turn_from(&self, from: State, to: State) -> bool {
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
        host: &impl Host,
        activity: &Activity,
        function: &mut Function,
    ) -> bool {
        activity.poller(self.made_at);
        let before = self.runs.get();
        let busy = if MEASURED { self.measured(host, before, function) } else { function() == Busy::Yes };
        self.runs.set(before + 1);
        if busy {
            self.busy_runs.set(self.busy_runs.get() + 1);
            self.busy_at.set(before + 1);
        }
        busy
    }

    /// As [`call`](Self::call), with the function stored here, if the poller is running.
    #[inline]
    pub(crate) fn call_timed<const MEASURED: bool>(&self, host: &impl Host, activity: &Activity) -> bool {
        if !self.is_active() {
            return false;
        }
        // Borrowed while it runs: if its handle is dropped from within, the drop sees that and leaves the
        // function to this call.
        let mut place = self.function.borrow_mut();
        let Some(function) = place.as_mut() else { return false };
        let busy = self.call::<MEASURED>(host, activity, function);
        if self.is_stopped() {
            drop_caught(place.take());
        }
        busy
    }

    #[inline(never)]
    fn measured(&self, host: &impl Host, before: u64, call: &mut Function) -> bool {
        let (busy, span) = host.measure(|| call() == Busy::Yes);
        self.spent.add(before, span, busy);
        if let Kind::Timed(period) = self.kind {
            self.measure_at.set(spent::next_measured(period, before));
        }
        busy
    }

    /// True if its last call found work.
    pub(crate) fn was_busy(&self) -> bool {
        self.runs.get() > 0 && self.busy_at.get() == self.runs.get()
    }

    /// True if the next call of a timed poller must be measured.
    #[inline]
    pub(crate) fn is_due_for_measure(&self) -> bool {
        self.runs.get() >= self.measure_at.get()
    }

    /// A call panicked: stops the poller. True if it was not stopped before.
    #[cold]
    pub(crate) fn panicked(&self, host: &impl Host, payload: Box<dyn Any + Send>) -> bool {
        self.runs.set(self.runs.get() + 1);
        let (name, made_at) = (&self.name, self.made_at);
        let what = format!("poller {name}, made at {made_at}, panicked: {}", panic_message(payload));
        host.report(&what);
        self.state.replace(State::Stopped) != State::Stopped
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
