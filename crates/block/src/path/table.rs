//! The lane table of a thread: its public face.
//!
//! One per thread, kept with the thread ([`LaneTable::current`]); a test may make its own and step it by
//! hand, without a reactor. It lives and dies on its thread. What reaches it while it runs (a request dropped
//! by a lane, a notification, a closed channel) waits in side queues that the loop empties before it ends.
//! Wakers are called only when no part of the table is borrowed. Not promised: fairness between devices
//! beyond first come, first served.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use spindle_reactor::Time;

use crate::path::device::LaneMaking;
use crate::path::lane_state::Shape;
use crate::path::lanes::Lanes;
use crate::path::notifier::{Notifier, Notify};
use crate::path::opening::Begun;
use crate::path::service::Service;
use crate::path::side_queues::{Detached, SideQueues};
use crate::request::io::{Home, Slot};
use crate::state::mailbox::Mailbox;
use crate::{Busy, Device, IoId, LaneCx, LaneId, OpenError, RemoteNotifier};

/// Counts of one thread's table, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Lanes open.
    pub lanes: usize,
    /// Requests inside lanes, a request under two lanes counted twice.
    pub in_flight: usize,
    /// Requests dropped on their way and therefore aborted, since the thread began.
    pub aborted: u64,
    /// Requests ever allocated: the most that existed at one time.
    pub slots: usize,
    /// Lanes with a set time to be polled at, or with requests that wait for limits.
    pub timers: usize,
}

/// A handle on the lane table of a thread. Cheap to clone, `!Send`.
#[derive(Clone)]
pub struct LaneTable(pub(crate) Rc<Table>);

impl Default for LaneTable {
    fn default() -> LaneTable {
        let mailbox = Mailbox::new(read_mail);
        LaneTable(Rc::new_cyclic(|home: &Weak<Table>| Table {
            home: home.clone(),
            mailbox: mailbox.clone(),
            inner: RefCell::new(Lanes::new(home.clone(), mailbox)),
            side: SideQueues::default(),
            service: Service::default(),
        }))
    }
}

impl LaneTable {
    /// The table of the Spindle thread that runs the caller, if one does.
    pub fn current() -> Option<LaneTable> {
        Service::table_of_thread()
    }

    /// Moves requests until none can move or the budget of one turn is spent. A Spindle thread does this by
    /// itself; call this on a table without a reactor.
    pub fn step(&self) -> Busy {
        self.0.step()
    }

    /// The requests of an opener that are under way and were submitted before `moment`, with their submission
    /// times; each can be [aborted](Self::abort). See [`Channel::set_opener`](crate::Channel::set_opener).
    pub fn overdue(&self, opener: u32, moment: Time) -> Vec<(IoId, Time)> {
        let Ok(inner) = self.0.inner.try_borrow() else { return Vec::new() };
        let timed = inner.queues.waiters.iter().enumerate().filter_map(|(index, waiter)| {
            let (generation, since) = waiter.timed_of(opener)?;
            (since < moment).then_some((IoId { index: index as u32, generation }, since))
        });
        timed.collect()
    }

    /// Asks for the early end of a request that was submitted to `device`. It still ends, aborted or not. No
    /// effect if it has ended, or if the device is not open here.
    pub fn abort(&self, device: &Arc<dyn Device>, id: IoId) {
        self.0.side.add(|lists| lists.aborts_by_device.push_back((device.clone(), id)));
        self.0.run();
    }

    /// Moves the time of a table without a Spindle thread, which reads no clock: for tests.
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
            timers: inner.queues.alarms.len() + inner.queues.throttled.len(),
        }
    }
}

pub(crate) struct Table {
    home: Weak<Table>,
    mailbox: Arc<Mailbox>,
    pub(crate) inner: RefCell<Lanes>,
    side: SideQueues,
    service: Service,
}

impl Table {
    /// Reads the events that have come from other threads.
    fn read_mail(&self) {
        self.side.any.set(true);
        self.run();
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Counts one more holder of an open lane.
    pub(crate) fn retain(&self, lane: u32) {
        match self.inner.try_borrow_mut() {
            Ok(mut inner) => inner.queues.lanes[lane as usize].refs += 1,
            Err(_) => self.side.add(|lists| lists.retained.push_back(lane)),
        }
    }

    /// Counts one holder of `lane` less.
    pub(crate) fn release(&self, lane: u32) {
        self.side.add(|lists| lists.released.push_back(lane));
        self.run();
    }

    /// Handles the drop of a request's future.
    pub(crate) fn detach(&self, detached: Detached) {
        // An abandoned change may set other requests in motion.
        let moves = detached.changes.is_some();
        self.side.add(|lists| lists.detached.push_back(detached));
        if moves {
            return self.run();
        }
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            inner.take_detached(&self.side);
        }
    }

    /// Closes a queue pair on `lane`.
    pub(crate) fn close_pair(&self, key: u32, lane: LaneId) {
        self.side.add(|lists| lists.pairs.push_back((key, lane)));
        self.release(lane.index);
    }

    /// Asks for the early end of a request that was submitted to lane `top`. It still completes, aborted or
    /// not.
    pub(crate) fn abort(&self, top: u32, id: IoId) {
        self.side.add(|lists| lists.aborts.push_back((top, id)));
        self.run();
    }

    /// Opens `device` on this thread, or counts one more holder.
    pub(crate) fn open(&self, device: &Arc<dyn Device>) -> Result<(u32, Shape), OpenError> {
        let lane = self.open_lane(device)?;
        let mut inner = self.inner.borrow_mut();
        let shape = inner.shape(lane, device);
        let always = !inner.queues.always.is_empty();
        drop(inner);
        if always {
            self.service.wake(&self.home);
        }
        Ok((lane, shape))
    }

    /// The lane of `device`, with one more holder. Nothing is borrowed while the device makes it, so that the device
    /// may open channels.
    fn open_lane(&self, device: &Arc<dyn Device>) -> Result<u32, OpenError> {
        let begun = match self.inner.try_borrow_mut() {
            Ok(mut inner) => inner.begin_open(device)?,
            Err(_) => {
                return Err(OpenError::Other {
                    device: device.name().to_owned(),
                    reason: "a lane opened it while requests move; open it in Device::lane, or by Cx::open"
                        .to_owned(),
                });
            }
        };
        match begun {
            Begun::Open(lane) => Ok(lane),
            Begun::Place(lane) => {
                let made = device.clone().lane(&mut LaneCx::new(&mut Outermost(self), lane));
                self.inner.borrow_mut().end_open(device, lane, made)
            }
        }
    }

    /// Runs the table unless it runs already; what exceeds the budget is left to the thread's next turn.
    pub(crate) fn run(&self) {
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            let more = self.turn(&mut inner);
            drop(inner);
            self.after(more);
        }
    }

    /// As `run`, for the owner of the turn: returns whether there is more to do.
    pub(crate) fn step(&self) -> Busy {
        if self.mailbox.has_mail() {
            self.side.any.set(true);
        }
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return Busy::No };
        let polled = inner.poll_waiting();
        let more = inner.turn(&self.side);
        drop(inner);
        self.wake();
        let soon = self.inner.borrow().queues.soon.is_empty();
        if more || polled || !soon { Busy::Yes } else { Busy::No }
    }

    /// Runs the table's loop on an already borrowed table; a caller then drops the borrow and calls
    /// [`after`](Self::after).
    pub(crate) fn turn(&self, inner: &mut Lanes) -> bool {
        let more = inner.turn(&self.side);
        more || !inner.queues.soon.is_empty()
    }

    /// Calls the wakers of finished requests, and schedules what the budget left over.
    pub(crate) fn after(&self, more: bool) {
        if more {
            self.service.wake(&self.home);
        }
        self.wake();
    }

    /// True if a lane panicked while alarms rang: all are looked at in the next step.
    pub(crate) fn looks_again_at_alarms(&self) -> bool {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return false };
        let cut_off = std::mem::take(&mut inner.queues.rings);
        if cut_off {
            inner.queues.deadline = Some(Time::default());
        }
        cut_off
    }

    /// When requests that wait for limits may go.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.inner.try_borrow().ok().and_then(|inner| inner.queues.deadline)
    }

    fn wake(&self) {
        // One at a time: a waker may do anything, including calling this function.
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

    /// Steps the table, and schedules another step if that was not enough.
    pub(crate) fn go_on(&self) {
        if self.step() == Busy::Yes {
            self.service.wake(&self.home);
        }
    }

    /// Waits until an open lane is closed, or others hold it open. `close` lets go of it.
    pub(crate) async fn close(&self, lane: u32, close: impl FnOnce()) {
        let (generation, closing) = {
            let state = &mut self.inner.borrow_mut().queues.lanes[lane as usize];
            (state.generation, state.closing.get_or_insert_default().clone())
        };
        close();
        let is_closed = || {
            let inner = self.inner.try_borrow().ok()?;
            let state = &inner.queues.lanes[lane as usize];
            (state.generation != generation || state.refs > 0).then_some(())
        };
        closing.until(is_closed).await;
    }
}

/// A table in which a lane is made while nothing is borrowed.
struct Outermost<'a>(&'a Table);

impl LaneMaking for Outermost<'_> {
    fn open_below(&mut self, this: u32, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError> {
        let lane = self.0.open_lane(lower)?;
        Ok(self.0.inner.borrow_mut().put_below(this, lane))
    }

    fn notifier(&self, this: u32) -> Notifier {
        self.0.inner.borrow().notifier(this)
    }

    fn remote_notifier(&self, this: u32) -> RemoteNotifier {
        self.0.inner.borrow().remote_notifier(this)
    }

    fn poll_always(&mut self, this: u32) {
        self.0.inner.borrow_mut().poll_always(this);
    }
}

impl Home for Table {
    fn take_dropped(&self, slot: Box<Slot>) {
        self.side.add(|lists| lists.dropped.push_back(slot));
        self.service.wake(&self.home);
    }

    fn take_unjoined(&self, key: u32, slot: Box<Slot>) {
        self.side.add(|lists| lists.unjoined.push_back((key, slot)));
        self.service.wake(&self.home);
    }

    fn poll_aborted(&self, slot: &Slot, cx: &Context<'_>) -> bool {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return false };
        let IoId { index, generation } = slot.id;
        inner.queues.waiters[index as usize].poll_abort(generation, cx) || inner.queues.is_orphaned(slot)
    }

    fn notify(&self, lane: u32, waiting: &Notify) {
        self.side.add(|lists| lists.ready.push_back((lane, waiting.clone())));
        self.run();
    }
}

/// Reads a table's mail, on its thread.
fn read_mail(mailbox: &Arc<Mailbox>) {
    if let Some(table) = LaneTable::current()
        && Arc::ptr_eq(&table.0.mailbox, mailbox)
    {
        table.0.read_mail();
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
