//! Claims on places of a blob's map, held while a cluster is given to the blob or taken away.
//!
//! One task at a time, on any thread, changes a place of a map: it claims the place first; other tasks wait
//! for the end of the claim and look up again. An operation that keeps writes out of a blob waits until
//! nothing is claimed. The lock is held for a few instructions.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use spindle_reactor::WaitList;

use crate::waiting::locked;

/// The claims on one blob's map.
#[derive(Default)]
pub(crate) struct PlaceClaims {
    /// Claimed places.
    held: Mutex<BTreeSet<u64>>,
    /// Tasks that wait for the end of a claim, or of all.
    ended: WaitList,
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
        let claimed = || {
            let mut held = locked(&self.held);
            if held.contains(&index) {
                waited = true;
                return None;
            }
            // Checked under the lock: a freeze sets its flag first and takes the lock then.
            if waited || is_frozen() {
                return Some(None);
            }
            held.insert(index);
            Some(Some(PlaceClaim { claims: self.clone(), index }))
        };
        self.ended.until(claimed).await
    }

    /// Waits until nothing is claimed.
    pub(crate) async fn settled(&self) {
        self.ended.until(|| locked(&self.held).is_empty().then_some(())).await;
    }
}

impl Drop for PlaceClaim {
    fn drop(&mut self) {
        locked(&self.claims.held).remove(&self.index);
        self.claims.ended.wake_all();
    }
}
