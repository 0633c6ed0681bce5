//! Notifies callers before a store is full.
//!
//! A watch belongs to the caller that asked for it and may be used on any thread. The metadata thread checks
//! all watches whenever clusters are taken or given back.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use crate::waiting::locked;

/// An event from [`LowSpace::next`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceEvent {
    /// Free clusters at that moment.
    pub free_clusters: u64,
    /// The threshold that was reached or passed.
    pub threshold: u64,
}

/// Events of a store that runs low on space. Made by [`Blobstore::low_space`](crate::Blobstore::low_space);
/// dropping it ends the watch.
pub struct LowSpace {
    watch: Arc<Watch>,
}

pub(crate) struct Watch {
    threshold: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// True if space was low at the last check.
    low: bool,
    event: Option<SpaceEvent>,
    ended: bool,
    waker: Option<Waker>,
}

impl LowSpace {
    pub(crate) fn new(threshold: u64) -> (LowSpace, Weak<Watch>) {
        let watch = Arc::new(Watch { threshold, state: Mutex::default() });
        let weak = Arc::downgrade(&watch);
        (LowSpace { watch }, weak)
    }

    /// Waits until the free clusters have fallen to the threshold or below: returns at once if they are there
    /// when the watch begins, then each time they get there from above. Of unread events only the latest is
    /// kept. `None` when the store was unloaded. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<SpaceEvent> {
        poll_fn(|cx| {
            let mut state = locked(&self.watch.state);
            if let Some(event) = state.event.take() {
                return Poll::Ready(Some(event));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The watches of one store; owned by its metadata thread.
#[derive(Default)]
pub(crate) struct Watches(RefCell<Vec<Weak<Watch>>>);

impl Watches {
    pub(crate) fn add(&self, watch: Weak<Watch>) {
        self.0.borrow_mut().push(watch);
    }

    /// Notifies the watches whose threshold has been reached; calls `free` only if there are any.
    pub(crate) fn look(&self, free: impl FnOnce() -> u64) {
        let mut watches = self.0.borrow_mut();
        if watches.is_empty() {
            return;
        }
        let free_clusters = free();
        watches.retain(|watch| match watch.upgrade() {
            Some(watch) => {
                watch.look(free_clusters);
                true
            }
            None => false,
        });
    }

    /// Tells all watches that no more events will come.
    pub(crate) fn end(&self) {
        for watch in self.0.take().iter().filter_map(Weak::upgrade) {
            let waker = {
                let mut state = locked(&watch.state);
                state.ended = true;
                state.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Watch {
    fn look(&self, free_clusters: u64) {
        let waker = {
            let mut state = locked(&self.state);
            let low = free_clusters <= self.threshold;
            if low && !state.low {
                state.event = Some(SpaceEvent { free_clusters, threshold: self.threshold });
            }
            state.low = low;
            if state.event.is_some() { state.waker.take() } else { None }
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl std::fmt::Debug for LowSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LowSpace(at {} clusters)", self.watch.threshold)
    }
}
