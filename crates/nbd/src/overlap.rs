//! Orders writes of parts of blocks against all other writes of one device.
//!
//! A write of a part of a block reads the block, changes it and writes it back, which would undo another write of
//! that block that ends in between. So such a write waits for all writes that overlap its blocks, and they wait for
//! it. Shared by all connections of the device, on all threads. Until a client writes a part of a block, other
//! writes cost two atomic operations on a cache line of their own connection. The first such write of a device
//! waits until those under way have ended; from then on every write registers its range, and looks at each other
//! one when it begins, and at each later one when it ends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use spindle_reactor::WaitList;

/// The writes of one device.
#[derive(Default)]
pub(crate) struct Overlaps {
    /// Set once every write registers its range.
    shown: AtomicBool,
    state: Mutex<State>,
    /// Tasks that wait for writes without a registered range.
    draining: WaitList,
}

#[derive(Default)]
struct State {
    writers: Vec<Arc<Unseen>>,
    /// Writes with a registered range, in the order in which they came.
    shown: VecDeque<Shown>,
    tickets: u64,
    /// Writes looked at so far.
    #[cfg(test)]
    looks: usize,
}

/// The number of a write, never given twice.
type Ticket = u64;

/// Number of one connection's writes under way without a registered range.
#[derive(Default)]
#[repr(align(128))]
struct Unseen(AtomicUsize);

/// A write with a registered range. It waits for earlier ones.
struct Shown {
    ticket: Ticket,
    blocks: Range<u64>,
    /// True if it excludes every overlapping write.
    alone: bool,
    /// How many of those that it waits for have not ended.
    waits_for: usize,
    /// Of its last poll, while it waits.
    waker: Option<Waker>,
}

impl Shown {
    fn excludes(&self, blocks: &Range<u64>, alone: bool) -> bool {
        let apart = self.blocks.end <= blocks.start || blocks.end <= self.blocks.start;
        !apart && (self.alone || alone)
    }
}

impl Overlaps {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for writes that began before ranges were registered.
    async fn show(&self) {
        self.shown.store(true, Ordering::SeqCst);
        let drained = || self.state().writers.iter().all(|writer| writer.0.load(Ordering::SeqCst) == 0);
        self.draining.until(|| drained().then_some(())).await;
    }

    async fn enter(self: &Arc<Overlaps>, blocks: Range<u64>, alone: bool) -> Permit {
        let ticket = self.state().add(blocks, alone);
        let permit = Permit(Held::Shown { overlaps: self.clone(), ticket });
        poll_fn(|cx| self.state().poll(ticket, cx)).await;
        permit
    }

    fn leave(&self, ticket: Ticket) {
        let wakers = self.state().remove(ticket);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn add(&mut self, blocks: Range<u64>, alone: bool) -> Ticket {
        self.looked(self.shown.len());
        let waits_for = self.shown.iter().filter(|earlier| earlier.excludes(&blocks, alone)).count();
        let ticket = self.tickets;
        self.tickets += 1;
        self.shown.push_back(Shown { ticket, blocks, alone, waits_for, waker: None });
        ticket
    }

    fn index(&self, ticket: Ticket) -> Option<usize> {
        self.shown.binary_search_by_key(&ticket, |write| write.ticket).ok()
    }

    /// Ready if the write waits for no other.
    fn poll(&mut self, ticket: Ticket, cx: &Context<'_>) -> Poll<()> {
        let write = self.index(ticket).map(|index| &mut self.shown[index]);
        match write.filter(|write| write.waits_for > 0) {
            None => Poll::Ready(()),
            Some(write) => {
                write.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Returns the wakers of those that wait for no other any more: wake them without the lock.
    fn remove(&mut self, ticket: Ticket) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let Some(index) = self.index(ticket) else { return wakers };
        let Some(ended) = self.shown.remove(index) else { return wakers };
        self.looked(self.shown.len() - index);
        for later in self.shown.range_mut(index..) {
            if later.excludes(&ended.blocks, ended.alone) {
                later.waits_for -= 1;
                if later.waits_for == 0 {
                    wakers.extend(later.waker.take());
                }
            }
        }
        wakers
    }

    fn looked(&mut self, _at: usize) {
        #[cfg(test)]
        (self.looks += _at);
    }
}

/// A connection's access to the order.
pub(crate) struct Writer {
    overlaps: Arc<Overlaps>,
    unseen: Arc<Unseen>,
}

impl Writer {
    pub(crate) fn new(overlaps: &Arc<Overlaps>) -> Writer {
        let unseen = Arc::<Unseen>::default();
        overlaps.state().writers.push(unseen.clone());
        Writer { overlaps: overlaps.clone(), unseen }
    }

    /// Call it before writing whole blocks; the write must end before the permit is dropped.
    pub(crate) async fn whole(&self, blocks: Range<u64>) -> Permit {
        self.unseen.0.fetch_add(1, Ordering::SeqCst);
        let unseen = Permit(Held::Unseen { overlaps: self.overlaps.clone(), unseen: self.unseen.clone() });
        if !self.overlaps.shown.load(Ordering::SeqCst) {
            return unseen;
        }
        drop(unseen);
        self.overlaps.enter(blocks, false).await
    }

    /// Call it before writing parts of blocks; `blocks` are all blocks touched.
    pub(crate) async fn parts(&self, blocks: Range<u64>) -> Permit {
        self.overlaps.show().await;
        self.overlaps.enter(blocks, true).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Tasks that wait for writes still under way hold the count by their permits.
        let unseen = &self.unseen;
        self.overlaps
            .state()
            .writers
            .retain(|writer| !Arc::ptr_eq(writer, unseen) || writer.0.load(Ordering::SeqCst) > 0);
    }
}

/// Permission for a write.
#[must_use = "the write ends before its permit"]
pub(crate) struct Permit(Held);

enum Held {
    Unseen { overlaps: Arc<Overlaps>, unseen: Arc<Unseen> },
    Shown { overlaps: Arc<Overlaps>, ticket: Ticket },
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &self.0 {
            Held::Shown { overlaps, ticket } => overlaps.leave(*ticket),
            Held::Unseen { overlaps, unseen } => {
                let last = unseen.0.fetch_sub(1, Ordering::SeqCst) == 1;
                if last && overlaps.shown.load(Ordering::SeqCst) {
                    overlaps.draining.wake_all();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll};

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn whole_blocks_are_written_side_by_side() {
        let overlaps = Arc::default();
        let (a, b) = (Writer::new(&overlaps), Writer::new(&overlaps));
        let _first = now(a.whole(0..4)).expect("nothing excludes it");
        let _second = now(b.whole(0..4)).expect("nothing excludes it");
    }

    #[test]
    fn a_part_waits_for_writes_that_began_before_ranges_were_shown() {
        let overlaps = Arc::default();
        let (a, b) = (Writer::new(&overlaps), Writer::new(&overlaps));
        let whole = now(a.whole(0..4)).expect("nothing excludes it");
        let mut part = Box::pin(b.parts(3..5));
        assert!(now(&mut part).is_none());
        drop(whole);
        assert!(now(&mut part).is_some());
    }

    #[test]
    fn a_part_excludes_what_overlaps_it_and_nothing_else() {
        let overlaps = Arc::default();
        let writer = Writer::new(&overlaps);
        let part = now(writer.parts(3..5)).expect("nothing excludes it");
        let mut whole = Box::pin(writer.whole(0..4));
        let mut other = Box::pin(writer.parts(4..5));
        assert!(now(&mut whole).is_none() && now(&mut other).is_none());
        assert!(now(writer.whole(0..3)).is_some() && now(writer.parts(5..6)).is_some());
        drop(part);
        assert!(now(&mut whole).is_some() && now(&mut other).is_some());
    }

    #[test]
    fn a_part_that_waits_is_not_passed_by_what_overlaps_it() {
        let overlaps = Arc::default();
        let writer = Writer::new(&overlaps);
        drop(now(writer.parts(0..1)));
        let first = now(writer.whole(0..4)).expect("nothing excludes it");
        let mut part = Box::pin(writer.parts(3..5));
        let mut second = Box::pin(writer.whole(3..4));
        assert!(now(&mut part).is_none() && now(&mut second).is_none());
        drop(first);
        assert!(now(&mut second).is_none(), "the part was first");
        drop(now(&mut part).expect("nothing excludes it any more"));
        assert!(now(&mut second).is_some());
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let overlaps = Arc::<Overlaps>::default();
        let writer = Writer::new(&overlaps);
        let part = now(writer.parts(0..1)).expect("nothing excludes it");
        let mut waiting = Box::pin(writer.parts(0..1));
        assert!(now(&mut waiting).is_none());
        drop(waiting);
        drop(part);
        drop(writer);
        let state = overlaps.state();
        assert!(state.shown.is_empty() && state.writers.is_empty());
    }

    #[test]
    fn a_write_looks_at_each_other_once_however_many_wait_for_however_many() {
        let overlaps = Arc::<Overlaps>::default();
        let writer = Writer::new(&overlaps);
        let many = 1000;
        let mut writing: Vec<_> = (0..many).map(|block| now(writer.parts(block..block + 1))).collect();
        let mut waiting: Vec<_> = (0..many).map(|block| Box::pin(writer.parts(block..block + 1))).collect();
        assert!(writing.iter().all(Option::is_some) && waiting.iter_mut().all(|one| now(one).is_none()));
        overlaps.state().looks = 0;
        let mut one_more = Box::pin(writer.whole(0..many));
        assert!(now(&mut one_more).is_none());
        assert_eq!(overlaps.state().looks, 2 * many as usize);
        overlaps.state().looks = 0;
        drop(writing.remove(0));
        assert_eq!(overlaps.state().looks, 2 * many as usize);
        let ready: Vec<_> = waiting.iter_mut().map(|one| now(one).is_some()).collect();
        assert!(ready[0] && ready[1..].iter().all(|ready| !ready));
        drop((writing, waiting));
        assert!(now(&mut one_more).is_some());
    }
}
