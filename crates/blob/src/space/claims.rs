//! Claims on places of a blob's map, held while a cluster is given to the blob or taken away.
//!
//! One task at a time, on any thread, changes a place of a map: it claims the place first; other tasks wait
//! for the end of the claim and look up again. An operation that keeps writes out of a blob waits until
//! nothing is claimed. The lock is held for a few instructions.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::waiting::locked;

/// The claims on one blob's map.
#[derive(Default)]
pub(crate) struct PlaceClaims(Mutex<State>);

#[derive(Default)]
struct State {
    /// Claimed places, and the tasks that wait for each.
    held: BTreeMap<u64, Vec<Waker>>,
    /// Tasks that wait until nothing is claimed.
    settling: Vec<Waker>,
}

/// A claimed place of a blob's map; released when dropped.
pub(crate) struct PlaceClaim {
    claims: Arc<PlaceClaims>,
    pub(crate) index: u64,
}

impl PlaceClaims {
    /// Claims a place of the map. `None` if another task had claimed it (returned when that claim has ended),
    /// or if writes are kept out: look up again.
    pub(crate) async fn claim(
        self: &Arc<PlaceClaims>,
        index: u64,
        is_frozen: impl Fn() -> bool,
    ) -> Option<PlaceClaim> {
        let mut waited = false;
        poll_fn(|cx| {
            let mut state = locked(&self.0);
            if let Some(waiting) = state.held.get_mut(&index) {
                waited = true;
                waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            // Checked under the lock: a freeze sets its flag first and takes the lock then.
            if waited || is_frozen() {
                return Poll::Ready(None);
            }
            state.held.insert(index, Vec::new());
            Poll::Ready(Some(PlaceClaim { claims: self.clone(), index }))
        })
        .await
    }

    /// Waits until nothing is claimed.
    pub(crate) async fn settled(&self) {
        poll_fn(|cx| {
            let mut state = locked(&self.0);
            if state.held.is_empty() {
                return Poll::Ready(());
            }
            state.settling.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for PlaceClaim {
    fn drop(&mut self) {
        let (waiting, settling) = {
            let mut state = locked(&self.claims.0);
            let waiting = state.held.remove(&self.index).unwrap_or_default();
            let settling = match state.held.is_empty() {
                true => std::mem::take(&mut state.settling),
                false => Vec::new(),
            };
            (waiting, settling)
        };
        waiting.into_iter().chain(settling).for_each(Waker::wake);
    }
}
