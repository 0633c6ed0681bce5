//! The lane table of a thread, as everybody but the lanes sees it.
//!
//! One per thread, kept with the thread ([`LaneTable::current`]); a test may make its own and step it by
//! hand, without a reactor. It lives and dies on its thread. What reaches it while it runs (a request
//! dropped by a lane, a notification, a channel closed) waits in side queues and is seen to before the
//! loop ends. Wakers are used only when no part of the table is borrowed. Not promised: fairness between
//! devices beyond first come, first served.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use spindle_reactor::Time;

use crate::io::Slot;
use crate::lane_state::Shape;
use crate::lanes::{Lanes, same_device};
use crate::late::{Detached, Late};
use crate::mailbox::Mailbox;
use crate::service::Service;
use crate::{Busy, Device, IoId, LaneId, OpenError};

/// Counts of one thread's table, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Lanes open.
    pub lanes: usize,
    /// Requests inside lanes, a request under two lanes counted twice.
    pub in_flight: usize,
    /// Requests dropped on their way and therefore aborted, since the thread began.
    pub aborted: u64,
    /// Requests ever made room for: the most that existed at one time.
    pub slots: usize,
}

/// A handle on the lane table of a thread. Cheap to clone, `!Send`.
#[derive(Clone)]
pub struct LaneTable(pub(crate) Rc<Table>);

impl Default for LaneTable {
    fn default() -> LaneTable {
        LaneTable(Rc::new_cyclic(|home| Table {
            home: home.clone(),
            mailbox: Mailbox::new(),
            inner: RefCell::new(Lanes::new(home.clone())),
            late: Late::default(),
            service: Service::default(),
        }))
    }
}

impl LaneTable {
    /// The table of the Spindle thread that runs the caller, if one does.
    pub fn current() -> Option<LaneTable> {
        Service::table_of_thread()
    }

    /// Moves requests until none can move or the budget of one turn is spent. On a Spindle thread this
    /// happens by itself; a table without a reactor is stepped by this.
    pub fn step(&self) -> Busy {
        self.0.step()
    }

    /// The requests of an opener that are under way and were submitted before `moment`, with the times at which
    /// they were; each can be [aborted](Self::abort). See [`Channel::set_opener`](crate::Channel::set_opener).
    pub fn overdue(&self, opener: u32, moment: Time) -> Vec<(IoId, Time)> {
        let Ok(inner) = self.0.inner.try_borrow() else { return Vec::new() };
        let timed = inner.queues.waiters.iter().enumerate().filter_map(|(index, waiter)| {
            let (generation, since) = waiter.timed_of(opener)?;
            (since < moment).then_some((IoId { index: index as u32, generation }, since))
        });
        timed.collect()
    }

    /// Asks that a request that was submitted to `device` end early. It still ends, aborted or not. Nothing
    /// happens if it has ended, or the device is not open here.
    pub fn abort(&self, device: &Arc<dyn Device>, id: IoId) {
        self.0.late.add(|late| late.aborts_by_device.push_back((device.clone(), id)));
        self.0.run();
    }

    /// Lets time pass on a table that is away from a Spindle thread, where no clock is read: for tests.
    pub fn advance(&self, span: Duration) {
        if let Ok(mut inner) = self.0.inner.try_borrow_mut() {
            inner.queues.clock.advance(span);
        }
    }

    /// Counts, for diagnosis. Zeroes while the table runs.
    pub fn stats(&self) -> TableStats {
        let Ok(inner) = self.0.inner.try_borrow() else { return TableStats::default() };
        let states = &inner.queues.lanes;
        TableStats {
            lanes: inner.open_lanes(),
            in_flight: states.iter().map(|state| state.epochs.in_flight()).sum(),
            aborted: inner.queues.aborted,
            slots: inner.queues.waiters.len(),
        }
    }
}

/// Set while a lane's notification waits to be seen.
pub(crate) type Notify = Rc<Cell<bool>>;

/// Tells the table that a lane has something to do: it will be polled, and offered again what it was
/// too full for. Kept by event sources of this thread (a completion sink, a task). `!Send`.
#[derive(Clone)]
pub struct Notifier {
    table: Weak<Table>,
    lane: u32,
    waiting: Notify,
}

impl Notifier {
    pub(crate) fn new(table: Weak<Table>, lane: u32, waiting: Notify) -> Notifier {
        Notifier { table, lane, waiting }
    }

    /// Has the lane polled: now, or when the table's loop ends if it runs. Nothing happens if the lane
    /// is closed.
    pub fn notify(&self) {
        if let Some(table) = self.table.upgrade()
            && !self.waiting.replace(true)
        {
            table.late.add(|late| late.ready.push_back((self.lane, self.waiting.clone())));
            table.run();
        }
    }
}

pub(crate) struct Table {
    home: Weak<Table>,
    mailbox: Arc<Mailbox>,
    pub(crate) inner: RefCell<Lanes>,
    late: Late,
    service: Service,
}

impl Table {
    /// A request was dropped by whoever held it.
    pub(crate) fn fallen(&self, slot: Box<Slot>) {
        self.late.add(|late| late.fallen.push_back(slot));
        self.service.wake(&self.home);
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Events have come from other threads.
    pub(crate) fn read_mail(&self) {
        self.late.any.set(true);
        self.run();
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// One more holder of an open lane.
    pub(crate) fn retain(&self, lane: u32) {
        match self.inner.try_borrow_mut() {
            Ok(mut inner) => inner.queues.lanes[lane as usize].refs += 1,
            Err(_) => self.late.add(|late| late.retained.push_back(lane)),
        }
    }

    /// A holder of `lane` let go.
    pub(crate) fn release(&self, lane: u32) {
        self.late.add(|late| late.released.push_back(lane));
        self.run();
    }

    /// The future that waited for a request is gone.
    pub(crate) fn detach(&self, detached: Detached) {
        // A change that was given up may set something in motion.
        let moves = detached.changes.is_some();
        self.late.add(|late| late.detached.push_back(detached));
        if moves {
            return self.run();
        }
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            inner.take_detached(&self.late);
        }
    }

    /// A queue pair on `lane` is gone.
    pub(crate) fn close_pair(&self, key: u32, lane: LaneId) {
        self.late.add(|late| late.pairs.push_back((key, lane)));
        self.release(lane.index);
    }

    /// Asks that a request end early. `top` is where it was submitted. It still completes, aborted or
    /// not.
    pub(crate) fn abort(&self, top: u32, id: IoId) {
        self.late.add(|late| late.aborts.push_back((top, id)));
        self.run();
    }

    /// Whether a request is to end early; else its holder is woken when it is.
    pub(crate) fn poll_aborted(&self, id: IoId, cx: &Context<'_>) -> bool {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return false };
        inner.queues.waiters[id.index as usize].poll_abort(id.generation, cx)
    }

    /// Opens `device` on this thread, or counts one more holder.
    pub(crate) fn open(&self, device: &Arc<dyn Device>) -> Result<(u32, Shape), OpenError> {
        let Ok(mut inner) = self.inner.try_borrow_mut() else {
            return Err(OpenError::Other {
                device: device.name().to_owned(),
                reason: "a lane opened it while running; open lower devices in Device::lane".to_owned(),
            });
        };
        let lane = inner.open(&self.home, &self.mailbox, device)?;
        let shape = inner.shape(lane, device);
        let always = !inner.queues.always.is_empty();
        drop(inner);
        if always {
            self.service.wake(&self.home);
        }
        Ok((lane, shape))
    }

    /// Runs the table if it does not run yet; leaves what exceeds the budget to the thread's next turn.
    pub(crate) fn run(&self) {
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            let more = self.turn(&mut inner);
            drop(inner);
            self.after(more);
        }
    }

    /// The same for the owner of the turn: says whether there is more to do.
    pub(crate) fn step(&self) -> Busy {
        if self.mailbox.has_mail() {
            self.late.any.set(true);
        }
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return Busy::No };
        let polled = inner.poll_waiting();
        let more = inner.turn(&self.late, &self.mailbox);
        drop(inner);
        self.wake();
        let soon = self.inner.borrow().queues.soon.is_empty();
        if more || polled || !soon { Busy::Yes } else { Busy::No }
    }

    /// Runs the table's loop on an already borrowed table; a caller then drops the borrow and calls
    /// [`after`](Self::after).
    pub(crate) fn turn(&self, inner: &mut Lanes) -> bool {
        let more = inner.turn(&self.late, &self.mailbox);
        more || !inner.queues.soon.is_empty()
    }

    /// Uses the wakers of finished requests, and arranges for what the budget left over.
    pub(crate) fn after(&self, more: bool) {
        if more {
            self.service.wake(&self.home);
        }
        self.wake();
    }

    /// When requests that wait for limits may go.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.inner.try_borrow().ok().and_then(|inner| inner.queues.deadline)
    }

    fn wake(&self) {
        // One at a time: a waker may do anything, even come back here.
        loop {
            let Ok(mut inner) = self.inner.try_borrow_mut() else { return };
            if let Some(waker) = inner.queues.wakes.pop_front() {
                drop(inner);
                waker.wake();
            } else if let Some(obligation) = inner.queues.met.pop() {
                drop(inner);
                drop(obligation);
            } else if let Some(range) = inner.queues.released.pop() {
                drop(inner);
                drop(range);
            } else {
                let due = inner.queues.deadline;
                drop(inner);
                return due.into_iter().for_each(|due| self.service.wake_at(due, &self.home));
            }
        }
    }

    /// Steps the table, and has it stepped again if that was not enough.
    pub(crate) fn go_on(&self) {
        if self.step() == Busy::Yes {
            self.service.wake(&self.home);
        }
    }

    /// Ready when `lane` is closed, or held open by others.
    pub(crate) fn poll_closed(&self, lane: u32, device: &Arc<dyn Device>, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return Poll::Pending };
        let Some(state) = inner.queues.lanes.get_mut(lane as usize) else { return Poll::Ready(()) };
        let same = state.device.as_ref().is_some_and(|open| same_device(open, device));
        if !same || state.refs > 0 {
            return Poll::Ready(());
        }
        state.closers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Wakers of a test or a pair, kept without cloning where the same one comes again.
pub(crate) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}
