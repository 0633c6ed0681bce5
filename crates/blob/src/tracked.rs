//! A device that knows which of its requests are under way, and a thread's way to it.
//!
//! A cluster may be given to another blob only when every request that was sent to it has ended, also one
//! whose future was dropped. So all of a store's I/O passes this thin layer, which counts per thread in
//! epochs: [`Epochs::quiesce`] begins a new one and waits until those before it are empty. The look-up of a
//! cluster and the submission of its request happen in one poll, so that a message to the thread cannot come
//! between them. [`Local`](crate::local::Local) is what a thread keeps of a store it does I/O to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use spindle_block::{
    Channel, Cx, Device, Geometry, Io, IoId, Lane, LaneCx, LaneId, OpenError, Operation, Status, Submit,
};

use crate::local::Local;
use crate::reserve::Reserve;

/// The device of a store, with its requests counted.
pub(crate) struct Tracked {
    below: Arc<dyn Device>,
}

impl Tracked {
    pub(crate) fn new(below: Arc<dyn Device>) -> Arc<Tracked> {
        Arc::new(Tracked { below })
    }

    /// What tells it from every other while it exists.
    pub(crate) fn key(self: &Arc<Tracked>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// The device itself.
    pub(crate) fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }

    /// This thread's way to it, made on first use, with this reserve then.
    pub(crate) fn local(self: &Arc<Tracked>, reserve: Arc<Reserve>) -> Result<Rc<Local>, OpenError> {
        if let Some(local) = self.known() {
            return Ok(local);
        }
        let locals = spindle_reactor::extension::<Locals>();
        // Kept in the thread's extension, which an exit drops.
        let channel = Channel::open_unheld(self.clone())?;
        let epochs = locals.epochs(self.key());
        let local = Rc::new(Local::new(channel, epochs, reserve));
        locals.opened.borrow_mut().insert(self.key(), local.clone());
        Ok(local)
    }

    /// This thread's way to it, if it was made.
    pub(crate) fn known(self: &Arc<Tracked>) -> Option<Rc<Local>> {
        spindle_reactor::extension::<Locals>().get(self.key())
    }

    /// Forgets this thread's way to it, once its requests have ended.
    pub(crate) async fn close_local(self: &Arc<Tracked>) {
        let locals = spindle_reactor::extension::<Locals>();
        let local = locals.remove(self.key());
        if let Some(local) = local {
            local.quiesce().await;
        }
        locals.epochs.borrow_mut().remove(&self.key());
    }
}

/// A thread's stores; lives in the thread's extensions.
#[derive(Default)]
struct Locals {
    opened: RefCell<BTreeMap<usize, Rc<Local>>>,
    /// The one that was asked for last, which is mostly the one that is asked for next.
    last: RefCell<Option<(usize, Rc<Local>)>>,
    epochs: RefCell<BTreeMap<usize, Rc<Epochs>>>,
}

impl Locals {
    fn epochs(&self, key: usize) -> Rc<Epochs> {
        self.epochs.borrow_mut().entry(key).or_default().clone()
    }

    fn get(&self, key: usize) -> Option<Rc<Local>> {
        if let Some((last, local)) = &*self.last.borrow()
            && *last == key
        {
            return Some(local.clone());
        }
        let found = self.opened.borrow().get(&key).cloned();
        if let Some(local) = &found {
            *self.last.borrow_mut() = Some((key, local.clone()));
        }
        found
    }

    fn remove(&self, key: usize) -> Option<Rc<Local>> {
        drop(self.last.take());
        self.opened.borrow_mut().remove(&key)
    }
}

/// Requests of one thread under way that the lane has seen, by the epoch in which they were sent.
#[derive(Default)]
pub(crate) struct Epochs {
    current: Cell<u64>,
    /// Those of the current epoch.
    count: Cell<usize>,
    /// Those of epochs before it that are not over, oldest first.
    earlier: RefCell<VecDeque<(u64, usize)>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Epochs {
    fn begin(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.current.get()
    }

    fn end(&self, epoch: u64) {
        match epoch == self.current.get() {
            true => self.count.set(self.count.get() - 1),
            false => self.end_earlier(epoch),
        }
    }

    /// Only such an end is what somebody may wait for.
    #[cold]
    fn end_earlier(&self, epoch: u64) {
        let mut earlier = self.earlier.borrow_mut();
        if let Some((_, count)) = earlier.iter_mut().find(|(found, _)| *found == epoch) {
            *count -= 1;
        }
        while let Some((_, 0)) = earlier.front() {
            earlier.pop_front();
        }
        drop(earlier);
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The oldest epoch before the current one that is not over.
    fn oldest(&self) -> Option<u64> {
        self.earlier.borrow().front().map(|&(epoch, _)| epoch)
    }

    /// Waits until every request that was under way when this was first polled has ended.
    pub(crate) async fn quiesce(&self) {
        let ending = self.current.get();
        self.current.set(ending + 1);
        let count = self.count.take();
        if count > 0 {
            self.earlier.borrow_mut().push_back((ending, count));
        }
        poll_fn(|cx| {
            if self.oldest().is_none_or(|epoch| epoch > ending) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Device for Tracked {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> &Geometry {
        self.below.geometry()
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.below)?;
        let epochs = spindle_reactor::extension::<Locals>().epochs(self.key());
        Ok(Box::new(TrackedLane { below, epochs }))
    }
}

struct TrackedLane {
    below: LaneId,
    epochs: Rc<Epochs>,
}

impl Lane for TrackedLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if io.operation() == Operation::Read && io.count() == 0 {
            // A marker, see `Local::quiesce`: what was submitted before has passed here.
            cx.done(io, Ok(()));
            return Submit::Taken;
        }
        let epoch = self.epochs.begin();
        cx.forward(self.below, io, [epoch, 0]);
        Submit::Taken
    }

    fn complete(&mut self, io: Io, [epoch, _]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        self.epochs.end(epoch);
        cx.done(io, status);
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        cx.abort(self.below, id);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn who_waits_waits_for_what_was_under_way_and_for_nothing_that_came_later() {
        let epochs = Epochs::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (epochs.begin(), epochs.begin());
        let mut one = pin!(epochs.quiesce());
        assert!(one.as_mut().poll(&mut cx).is_pending());
        let later = epochs.begin();
        let mut two = pin!(epochs.quiesce());
        assert!(two.as_mut().poll(&mut cx).is_pending());
        let last = epochs.begin();
        epochs.end(later);
        epochs.end(second);
        assert!(one.as_mut().poll(&mut cx).is_pending(), "the first is still under way");
        assert!(two.as_mut().poll(&mut cx).is_pending());
        epochs.end(first);
        assert!(one.as_mut().poll(&mut cx).is_ready());
        assert!(two.as_mut().poll(&mut cx).is_ready());
        epochs.end(last);
        assert!(pin!(epochs.quiesce()).as_mut().poll(&mut cx).is_ready(), "nothing is left");
    }
}
