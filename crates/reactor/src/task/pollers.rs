//! The pollers of one thread, and the order of their calls.
//!
//! Owned by the thread. The functions of active pollers are stored next to each other in the list that is walked,
//! so that an idle poller costs little more than its call.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use spindle_engine::Time;

use crate::caught::drop_caught;
use crate::diagnosis::activity::{Activity, CallKind};
use crate::diagnosis::dump::PollerInfo;
use crate::task::host::Host;
use crate::task::poller_cell::{Function, Kind, PollerCell, State, Wake};
use crate::time::due::DueRings;
use crate::time::earlier;
use crate::time::spent::{FIRST_WALKS, Picks};

/// An active poller in its thread's list.
struct Active {
    /// `None` once stopped.
    function: Option<Function>,
    cell: Rc<PollerCell>,
}

impl Active {
    /// Calls the function, if the poller is running; true if it found work.
    #[inline]
    fn call<const MEASURED: bool>(&mut self, host: &impl Host, activity: &Activity) -> bool {
        if !self.cell.is_active() {
            return false;
        }
        let Some(function) = &mut self.function else { return false };
        self.cell.call::<MEASURED>(host, activity, function)
    }
}

/// The pollers of one thread.
#[derive(Default)]
pub(crate) struct Pollers {
    /// Newest last. Taken out while they are called one by one.
    active: RefCell<Vec<Active>>,
    timed: RefCell<DueRings<Rc<PollerCell>>>,
    /// Number of living pollers.
    count: Cell<usize>,
    /// Number of active ones that spin, neither paused nor stopped.
    spinning: Cell<usize>,
    /// The shortest `Wake::Every`.
    every: Cell<Option<Duration>>,
    /// When the active ones were called last.
    ran: Cell<Time>,
    /// Number of walks over the active ones.
    walks: Cell<usize>,
    /// Number of coming walks that measure all of them.
    first_walks: Cell<u32>,
    /// True if the last call of any active poller found work.
    busy: Cell<bool>,
    /// True while the active ones are being called.
    walking: Cell<bool>,
    /// True if some were made, stopped, paused or resumed since the last `look_over`.
    stale: Cell<bool>,
}

impl Pollers {
    pub(crate) fn len(&self) -> usize {
        self.count.get()
    }

    /// True if there are active ones, which every turn calls.
    #[inline]
    pub(crate) fn has_active(&self) -> bool {
        !self.active.borrow().is_empty()
    }

    /// True if they must be called although nothing woke the thread.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.look_over();
        self.spinning.get() > 0 || self.busy.get()
    }

    /// The pollers that keep the reactor awake, by name and place: they spin, or their last call found work.
    pub(crate) fn culprits(&self) -> Vec<String> {
        let culprit = |Active { cell, .. }: &Active| {
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
        earlier(timed, every)
    }

    /// Starts an active one, whose function is here; that of a timed one is in its cell.
    pub(crate) fn insert_active(&self, cell: Rc<PollerCell>, function: Function) {
        let mut active = self.active.borrow_mut();
        cell.place.set(active.len());
        active.push(Active { function: Some(function), cell });
        self.inserted();
    }

    pub(crate) fn insert_timed(&self, cell: Rc<PollerCell>, period: Duration, now: Time) {
        self.timed.borrow_mut().insert(now, period, cell);
        self.inserted();
    }

    fn inserted(&self) {
        self.count.set(self.count.get() + 1);
        self.first_walks.set(FIRST_WALKS);
        self.stale.set(true);
    }

    pub(crate) fn resume(&self, cell: &Rc<PollerCell>, now: Time) {
        if let Kind::Timed(period) = cell.kind {
            // Its old place, if any, is removed: it waits a whole period.
            let mut timed = self.timed.borrow_mut();
            timed.retain(|other| !Rc::ptr_eq(other, cell));
            timed.insert(now, period, cell.clone());
        }
        self.stale.set(true);
    }

    /// Notes that some were paused.
    pub(crate) fn paused(&self) {
        self.stale.set(true);
    }

    /// Notes that one was stopped: its place is removed by the next [look-over](Self::look_over).
    pub(crate) fn forget_stopped(&self) {
        self.count.set(self.count.get() - 1);
        self.stale.set(true);
    }

    /// The function of a stopped poller. `None` while it, or any active poller, is being called: the caller drops it
    /// afterwards.
    pub(crate) fn take_function(&self, cell: &Rc<PollerCell>) -> Option<Function> {
        if let Kind::Timed(_) = cell.kind {
            return cell.function.try_borrow_mut().ok()?.take();
        }
        let mut active = self.active.borrow_mut();
        let is_it = |active: &Active| Rc::ptr_eq(&active.cell, cell);
        let place = Some(cell.place.get()).filter(|&place| active.get(place).is_some_and(is_it));
        let place = place.or_else(|| active.iter().position(is_it))?;
        active[place].function.take()
    }

    /// Removes the places of stopped pollers and recounts the others, if something changed; deferred during a walk
    /// over the active ones. Once for all changes of a turn: a program may stop thousands.
    #[inline]
    fn look_over(&self) {
        // Checked by every thread in every turn, and almost always false.
        if self.stale.get() && !self.walking.get() {
            self.look_over_now();
        }
    }

    #[inline(never)]
    fn look_over_now(&self) {
        self.stale.set(false);
        // Their functions are gone, so this runs no foreign code.
        let mut active = self.active.borrow_mut();
        active.retain(|active| !active.cell.is_stopped());
        active.iter().enumerate().for_each(|(place, active)| active.cell.place.set(place));
        self.timed.borrow_mut().retain(|cell| !cell.is_stopped());
        let living = || active.iter().map(|active| &active.cell).filter(|cell| cell.is_active());
        self.spinning.set(living().filter(|cell| cell.kind == Kind::Active(Wake::Spin)).count());
        let every = living().filter_map(|cell| match cell.kind {
            Kind::Active(Wake::Every(every)) => Some(every),
            _ => None,
        });
        self.every.set(every.min());
    }

    /// Calls every active poller once, newest first, and the timed ones that are due.
    pub(crate) fn run(&self, host: &impl Host, now: Time) -> bool {
        // A thread with active pollers has its turns without being asked for its work or its deadline.
        self.look_over();
        let busy = (self.has_active() || self.busy.get()) && self.run_active(host, now);
        self.run_timed(host, now) || busy
    }

    /// Calls every active poller once, newest first; true if one found work.
    pub(crate) fn run_active(&self, host: &impl Host, now: Time) -> bool {
        // Taken out meanwhile: a call may start pollers, which run from the next turn on.
        let mut active = std::mem::take(&mut *self.active.borrow_mut());
        self.walking.set(true);
        let busy = self.walk(host, &mut active);
        if self.stale.get() {
            self.drop_stopped(&mut active);
        }
        *self.active.borrow_mut() = active;
        self.walking.set(false);
        self.ran.set(now);
        self.busy.set(busy);
        busy
    }

    fn walk(&self, host: &impl Host, active: &mut [Active]) -> bool {
        let (mut busy, mut left) = (false, active.len());
        let (mut picks, activity) = (self.picks(left), host.activity());
        host.begin_all(CallKind::Poller, left);
        // One `catch_unwind` around all of them: one for each would cost more than an idle poller.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            while left > 0 {
                let measured = picks.next_below(left);
                for active in active[measured..left].iter_mut().rev() {
                    left -= 1;
                    busy |= active.call::<false>(host, activity);
                }
                if left > 0 {
                    left -= 1;
                    picks.take();
                    busy |= active[left].call::<true>(host, activity);
                }
            }
        })) {
            busy = true;
            let panicked = &mut active[left];
            self.note_panic(panicked.cell.panicked(host, payload));
            panicked.function.take().into_iter().for_each(drop_caught);
        }
        busy
    }

    /// A poller panicked; `is_news` unless it was stopped before.
    fn note_panic(&self, is_news: bool) {
        if is_news {
            self.forget_stopped();
        }
    }

    /// Drops the functions of pollers stopped during the walk, and appends the new ones.
    #[cold]
    fn drop_stopped(&self, active: &mut Vec<Active>) {
        loop {
            active.append(&mut self.active.borrow_mut());
            let stopped = active.iter_mut().filter(|active| active.cell.is_stopped());
            let functions: Vec<Function> = stopped.filter_map(|active| active.function.take()).collect();
            if functions.is_empty() {
                return;
            }
            // Their captures may make and stop pollers.
            functions.into_iter().for_each(drop_caught);
        }
    }

    /// Which of `len` active ones the next walk measures.
    fn picks(&self, len: usize) -> Picks {
        let (walk, first) = (self.walks.get(), self.first_walks.get());
        self.walks.set(walk.wrapping_add(1));
        self.first_walks.set(first.saturating_sub(1));
        Picks::new(walk, len, first > 0)
    }

    fn run_timed(&self, host: &impl Host, now: Time) -> bool {
        if self.timed.borrow().next_time().is_none_or(|time| time > now) {
            return false;
        }
        let (mut busy, mut called, activity) = (false, 0, host.activity());
        let mut running: Option<Rc<PollerCell>> = None;
        host.begin_all(CallKind::Poller, 0);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            loop {
                running = self.timed.borrow_mut().take_due(now, |cell| cell.is_active());
                let Some(cell) = &running else { break };
                called += 1;
                let measured = cell.is_due_for_measure();
                busy |= match measured {
                    true => cell.call_timed::<true>(host, activity),
                    false => cell.call_timed::<false>(host, activity),
                };
            }
        })) {
            busy = true;
            if let Some(cell) = running.take() {
                self.note_panic(cell.panicked(host, payload));
                drop_caught(cell.function.borrow_mut().take());
            }
        }
        host.count_calls(called);
        busy
    }

    /// Stops all of them.
    pub(crate) fn clear(&self) {
        let active = std::mem::take(&mut *self.active.borrow_mut());
        let timed = std::mem::take(&mut *self.timed.borrow_mut());
        for Active { function, cell } in active {
            cell.state.set(State::Stopped);
            drop_caught(function);
        }
        for cell in timed.iter() {
            cell.state.set(State::Stopped);
            let function = cell.function.borrow_mut().take();
            drop_caught(function);
        }
        self.count.set(0);
        self.stale.set(true);
    }

    /// Their descriptions, for a dump.
    pub(crate) fn infos(&self) -> Vec<PollerInfo> {
        let active = self.active.borrow();
        let timed = self.timed.borrow();
        let cells = active.iter().map(|active| &active.cell).chain(timed.iter());
        cells.filter(|cell| !cell.is_stopped()).map(|cell| cell.info()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::local::current;
    use crate::{Busy, EngineKind, Poller, Runtime, Wake, yield_now};

    #[test]
    fn stopped_active_pollers_leave_no_place_beside_one_that_goes_on() {
        let runtime = Runtime::builder().engine(EngineKind::Sim(1)).build().unwrap();
        let ended = runtime.run(async || {
            let goes_on = Poller::active("goes on", Wake::Event("nothing"), || Busy::Yes);
            for _ in 0..100 {
                drop(Poller::active("stopped", Wake::Event("nothing"), || Busy::No));
                yield_now().await;
            }
            let places = current::with(|core| core.unwrap().pollers.active.borrow().len());
            assert!(places <= 2, "{places} places");
            drop(goes_on);
        });
        ended.unwrap();
    }
}
