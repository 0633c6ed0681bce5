//! Claims on places of a blob's map, held while a cluster is given to the blob or taken away.
//!
//! One task at a time, on any thread, changes a place of a map: it claims the place first; other tasks wait
//! for the end of the claim and look up again. An operation that keeps writes out of a blob waits until
//! nothing is claimed. The lock is held for a few instructions.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::shared::{BlobShared, locked};

/// The claims on one blob's map.
#[derive(Default)]
pub(crate) struct Claims {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Claimed places, and the tasks that wait for each.
    held: BTreeMap<u64, Vec<Waker>>,
    /// Tasks that wait until nothing is claimed.
    settling: Vec<Waker>,
}

/// A claimed place of a blob's map; released when dropped.
pub(crate) struct Claim {
    pub(crate) blob: Arc<BlobShared>,
    pub(crate) index: u64,
}

impl BlobShared {
    /// Claims a place of the map. `None` if another task had claimed it (returned when that claim has ended),
    /// or if writes are kept out: look up again.
    pub(crate) async fn claim(self: &Arc<BlobShared>, index: u64) -> Option<Claim> {
        let mut waited = false;
        poll_fn(|cx| {
            let mut state = locked(&self.claims.state);
            if let Some(waiting) = state.held.get_mut(&index) {
                waited = true;
                waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            // Checked under the lock: a freeze sets its flag first and takes the lock then.
            if waited || self.is_frozen() {
                return Poll::Ready(None);
            }
            state.held.insert(index, Vec::new());
            Poll::Ready(Some(Claim { blob: self.clone(), index }))
        })
        .await
    }

    /// Waits until nothing is claimed.
    pub(crate) async fn settled(&self) {
        poll_fn(|cx| {
            let mut state = locked(&self.claims.state);
            if state.held.is_empty() {
                return Poll::Ready(());
            }
            state.settling.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (waiting, settling) = {
            let mut state = locked(&self.blob.claims.state);
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
