//! The lane table: all lanes of one thread, and the loop that moves requests between them.
//!
//! One per thread, kept with the thread ([`LaneTable::current`]); a test may make its own and step it by
//! hand, without a reactor. It lives and dies on its thread. What reaches it while it runs (a request
//! dropped by a lane, a notification, a channel closed) waits in side queues and is seen to before the
//! loop ends. Wakers are used only when no part of the table is borrowed. Not promised: fairness between
//! devices beyond first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::io::Slot;
use crate::queues::{LaneState, Queues};
use crate::service::Service;
use crate::{Busy, Cx, Device, Io, IoErrorKind, IoId, Lane, LaneId, MAX_DEPTH, OpenError, Submit};

/// Steps of the loop before other work of the thread gets its turn.
const BUDGET: u32 = 4096;

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
            inner: RefCell::new(Inner {
                lanes: Vec::new(),
                queues: Queues::new(home.clone()),
                aborts: Vec::new(),
            }),
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

    /// Counts, for diagnosis. Zeroes while the table runs.
    pub fn stats(&self) -> TableStats {
        let Ok(inner) = self.0.inner.try_borrow() else { return TableStats::default() };
        let states = &inner.queues.lanes;
        TableStats {
            lanes: states.iter().filter(|state| state.device.is_some()).count(),
            in_flight: states.iter().map(|state| state.in_flight as usize).sum(),
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

/// What a device may do while it makes a lane.
pub struct LaneCx<'a> {
    inner: &'a mut Inner,
    home: &'a Weak<Table>,
    this: u32,
}

impl LaneCx<'_> {
    /// Opens a device that the new lane lies on; closed when the new lane is.
    ///
    /// # Errors
    /// As the device's own [`lane`](Device::lane), and stacks that are too deep.
    pub fn open(&mut self, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError> {
        let index = self.inner.open(self.home, lower)?;
        let below = self.inner.queues.lanes[index as usize].height;
        let state = &mut self.inner.queues.lanes[self.this as usize];
        state.lowers.push(index);
        state.height = state.height.max(below + 1);
        Ok(LaneId::new(index))
    }

    /// The way to have the new lane polled.
    pub fn notifier(&self) -> Notifier {
        let waiting = self.inner.queues.lanes[self.this as usize].notify.clone();
        Notifier { table: self.home.clone(), lane: self.this, waiting }
    }

    /// Has the new lane polled every turn of its thread, which then never sleeps.
    pub fn poll_always(&mut self) {
        self.inner.queues.lanes[self.this as usize].always = true;
    }
}

/// What arrived while the table ran.
#[derive(Default)]
struct LateLists {
    fallen: VecDeque<Box<Slot>>,
    ready: VecDeque<(u32, Notify)>,
    detached: VecDeque<IoId>,
    pairs: VecDeque<u32>,
    retained: VecDeque<u32>,
    released: VecDeque<u32>,
}

#[derive(Default)]
struct Late {
    any: Cell<bool>,
    lists: RefCell<LateLists>,
}

impl Late {
    fn add(&self, f: impl FnOnce(&mut LateLists)) {
        self.any.set(true);
        f(&mut self.lists.borrow_mut());
    }

    fn take<T>(&self, list: impl FnOnce(&mut LateLists) -> &mut VecDeque<T>) -> Option<T> {
        list(&mut self.lists.borrow_mut()).pop_front()
    }
}

pub(crate) struct Inner {
    lanes: Vec<Option<Box<dyn Lane>>>,
    pub(crate) queues: Queues,
    aborts: Vec<(u32, IoId)>,
}

pub(crate) struct Table {
    home: Weak<Table>,
    pub(crate) inner: RefCell<Inner>,
    late: Late,
    service: Service,
}

impl Table {
    /// A request was dropped by whoever held it.
    pub(crate) fn fallen(&self, slot: Box<Slot>) {
        self.late.add(|late| late.fallen.push_back(slot));
        self.service.wake(&self.home);
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// True if no lane is open.
    pub(crate) fn is_unused(&self) -> bool {
        self.inner
            .try_borrow()
            .is_ok_and(|inner| inner.queues.lanes.iter().all(|state| state.device.is_none()))
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
        if self.is_unused() {
            // The thread's task for this table ends with its last lane.
            self.service.wake_task();
        }
    }

    /// The future that waited for a request is gone.
    pub(crate) fn detach(&self, id: IoId) {
        match self.inner.try_borrow_mut() {
            Ok(mut inner) => inner.queues.detach(id),
            Err(_) => self.late.add(|late| late.detached.push_back(id)),
        }
    }

    /// A queue pair on `lane` is gone.
    pub(crate) fn close_pair(&self, key: u32, lane: u32) {
        self.late.add(|late| late.pairs.push_back(key));
        self.release(lane);
    }

    /// Asks that a request end early. `top` is where it was submitted. It still completes, aborted or
    /// not.
    pub(crate) fn abort(&self, top: u32, id: IoId) {
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            inner.aborts.push((top, id));
        }
        self.run();
    }

    /// Opens `device` on this thread, or counts one more holder.
    pub(crate) fn open(&self, device: &Arc<dyn Device>) -> Result<u32, OpenError> {
        let Ok(mut inner) = self.inner.try_borrow_mut() else {
            return Err(OpenError::Other {
                device: device.name().to_owned(),
                reason: "a lane opened it while running; open lower devices in Device::lane".to_owned(),
            });
        };
        let lane = inner.open(&self.home, device)?;
        let always = inner.queues.lanes.iter().any(|state| state.always);
        drop(inner);
        if always {
            self.service.wake(&self.home);
        }
        Ok(lane)
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
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return Busy::No };
        let polled = inner.poll_waiting();
        let more = inner.turn(&self.late);
        drop(inner);
        self.wake();
        let soon = self.inner.borrow().queues.soon.is_empty();
        if more || polled || !soon { Busy::Yes } else { Busy::No }
    }

    /// Runs the table's loop on an already borrowed table; a caller then drops the borrow and calls
    /// [`after`](Self::after).
    pub(crate) fn turn(&self, inner: &mut Inner) -> bool {
        let more = inner.turn(&self.late);
        more || !inner.queues.soon.is_empty()
    }

    /// Uses the wakers of finished requests, and arranges for what the budget left over.
    pub(crate) fn after(&self, more: bool) {
        if more {
            self.service.wake(&self.home);
        }
        self.wake();
    }

    fn wake(&self) {
        // One at a time: a waker may do anything, even come back here.
        loop {
            let Ok(mut inner) = self.inner.try_borrow_mut() else { return };
            let Some(waker) = inner.queues.wakes.pop_front() else { return };
            drop(inner);
            waker.wake();
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

fn same_device(a: &Arc<dyn Device>, b: &Arc<dyn Device>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Inner {
    /// Everything that can move moves, up to the budget. True if something is left.
    fn turn(&mut self, late: &Late) -> bool {
        let mut budget = BUDGET;
        loop {
            if late.any.replace(false) {
                self.take_late(late);
            }
            if !self.drain(&mut budget) {
                return true;
            }
            while let Some((lane, id)) = self.aborts.pop() {
                self.abort(lane, id);
            }
            while let Some(lane) = self.queues.idle.pop() {
                self.close_if_idle(lane);
            }
            if !late.any.get() && self.queues.is_still() {
                return false;
            }
        }
    }

    /// Empties both queues. Upwards first: what completes makes room for what is submitted. False if the
    /// budget ran out.
    fn drain(&mut self, budget: &mut u32) -> bool {
        while *budget > 0 {
            *budget -= 1;
            if let Some(io) = self.queues.up.pop_front() {
                self.ascend(io);
            } else if let Some(lane) = self.queues.retry.pop_front() {
                self.retry(lane);
            } else if let Some(io) = self.queues.down.pop_front() {
                self.descend(io);
            } else {
                return true;
            }
        }
        false
    }

    fn ascend(&mut self, mut io: Io) {
        let slot = io.slot_mut();
        let Some(depth) = slot.depth.checked_sub(1) else { return self.queues.finish(io) };
        slot.depth = depth;
        let frame = slot.frames[usize::from(depth)];
        let status = slot.status;
        slot.at = frame.lane;
        let Some(Some(lane)) = self.lanes.get_mut(frame.lane as usize) else {
            // A lane stays while a request has a frame of it; only one made for another table has not.
            return self.queues.send_up(io);
        };
        let cx = &mut Cx { queues: &mut self.queues, this: frame.lane, aborts: &mut self.aborts };
        lane.complete(io, frame.saved, status, cx);
    }

    fn descend(&mut self, io: Io) {
        let to = io.slot().at;
        match self.queues.lanes.get_mut(to as usize) {
            Some(state) if !state.stalled.is_empty() => state.stalled.push_back(io),
            Some(_) => {
                if let Submit::Full(io) = self.submit(to, io) {
                    self.queues.lanes[to as usize].stalled.push_front(io);
                }
            }
            None => self.refuse(io),
        }
    }

    fn submit(&mut self, to: u32, io: Io) -> Submit {
        let Some(Some(lane)) = self.lanes.get_mut(to as usize) else {
            self.refuse(io);
            return Submit::Taken;
        };
        let cx = &mut Cx { queues: &mut self.queues, this: to, aborts: &mut self.aborts };
        lane.submit(io, cx)
    }

    fn refuse(&mut self, mut io: Io) {
        io.slot_mut().status = Err(IoErrorKind::Removed);
        self.queues.send_up(io);
    }

    /// Offers a lane, in order, what it was too full for.
    fn retry(&mut self, lane: u32) {
        self.queues.lanes[lane as usize].retrying = false;
        while let Some(io) = self.queues.lanes[lane as usize].stalled.pop_front() {
            if let Submit::Full(io) = self.submit(lane, io) {
                self.queues.lanes[lane as usize].stalled.push_front(io);
                return;
            }
        }
    }

    fn poll(&mut self, index: u32) -> Busy {
        let Some(Some(lane)) = self.lanes.get_mut(index as usize) else { return Busy::No };
        let cx = &mut Cx { queues: &mut self.queues, this: index, aborts: &mut self.aborts };
        let busy = lane.poll(cx);
        self.retry(index);
        busy
    }

    /// Polls the lanes that asked for it; true if there are any.
    fn poll_waiting(&mut self) -> bool {
        let mut any = false;
        // Those that ask again are not polled twice in one turn.
        for _ in 0..self.queues.soon.len() {
            let Some(index) = self.queues.soon.pop_front() else { break };
            if let Some(state) = self.queues.lanes.get_mut(index as usize) {
                state.soon = false;
                any = true;
                self.poll(index);
            }
        }
        for index in 0..self.queues.lanes.len() {
            if self.queues.lanes[index].always {
                any = true;
                self.poll(index as u32);
            }
        }
        any
    }

    /// Sees to what arrived while the table ran or was not running.
    fn take_late(&mut self, late: &Late) {
        // Popped one by one: a lane called here may add more, and the lists keep their room.
        while let Some(slot) = late.take(|lists| &mut lists.fallen) {
            self.queues.abort_fallen(slot);
        }
        while let Some(id) = late.take(|lists| &mut lists.detached) {
            self.queues.detach(id);
        }
        while let Some(key) = late.take(|lists| &mut lists.pairs) {
            self.queues.close_pair(key);
        }
        while let Some((lane, waiting)) = late.take(|lists| &mut lists.ready) {
            // A place may have been given to another lane since; its notification is another cell.
            let current =
                self.queues.lanes.get(lane as usize).is_some_and(|s| Rc::ptr_eq(&s.notify, &waiting));
            waiting.set(false);
            if current {
                self.poll(lane);
            }
        }
        while let Some(lane) = late.take(|lists| &mut lists.retained) {
            self.queues.lanes[lane as usize].refs += 1;
        }
        while let Some(lane) = late.take(|lists| &mut lists.released) {
            self.queues.lanes[lane as usize].refs -= 1;
            self.close_if_idle(lane);
        }
    }

    fn abort(&mut self, lane: u32, id: IoId) {
        let Some(state) = self.queues.lanes.get_mut(lane as usize) else { return };
        if let Some(at) = state.stalled.iter().position(|io| io.id() == id) {
            if let Some(mut io) = state.stalled.remove(at) {
                io.slot_mut().status = Err(IoErrorKind::Aborted);
                self.queues.send_up(io);
            }
        } else if let Some(Some(lane_mut)) = self.lanes.get_mut(lane as usize) {
            let cx = &mut Cx { queues: &mut self.queues, this: lane, aborts: &mut self.aborts };
            lane_mut.abort(id, cx);
        }
    }

    fn open(&mut self, home: &Weak<Table>, device: &Arc<dyn Device>) -> Result<u32, OpenError> {
        let states = &mut self.queues.lanes;
        let found =
            states.iter().position(|s| s.device.as_ref().is_some_and(|open| same_device(open, device)));
        if let Some(index) = found {
            if self.lanes[index].is_none() {
                return Err(OpenError::Other {
                    device: device.name().to_owned(),
                    reason: "it lies on itself; break the circle".to_owned(),
                });
            }
            states[index].refs += 1;
            return Ok(index as u32);
        }
        let index = states.iter().position(|s| s.device.is_none()).unwrap_or_else(|| {
            states.push(LaneState::default());
            self.lanes.push(None);
            states.len() - 1
        });
        states[index] =
            LaneState { device: Some(device.clone()), refs: 1, height: 1, ..LaneState::default() };
        let this = index as u32;
        let made = device.clone().lane(&mut LaneCx { inner: self, home, this });
        let height = usize::from(self.queues.lanes[index].height);
        match made {
            Ok(lane) if height <= MAX_DEPTH => {
                self.lanes[index] = Some(lane);
                Ok(this)
            }
            Ok(_) => {
                self.clear(this);
                Err(OpenError::TooDeep { device: device.name().to_owned(), max: MAX_DEPTH })
            }
            Err(error) => {
                self.clear(this);
                Err(error)
            }
        }
    }

    fn close_if_idle(&mut self, index: u32) {
        let state = &self.queues.lanes[index as usize];
        if state.device.is_some() && state.refs == 0 && state.in_flight == 0 {
            self.clear(index);
        }
    }

    /// Drops a lane and lets go of the lanes it opened.
    fn clear(&mut self, index: u32) {
        let state = std::mem::take(&mut self.queues.lanes[index as usize]);
        drop(self.lanes[index as usize].take());
        self.queues.wakes.extend(state.closers);
        for lower in state.lowers {
            self.queues.lanes[lower as usize].refs -= 1;
            self.close_if_idle(lower);
        }
    }
}

/// Wakers of a test or a pair, kept without cloning where the same one comes again.
pub(crate) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}
