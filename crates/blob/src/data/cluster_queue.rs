//! Requests that wait for a new cluster which an earlier request of the same lane is getting.
//!
//! Belongs to the lane. They wait here and not in tasks of their own: a blob that is filled in order has many for each
//! cluster. They have changed nothing yet, so one that is aborted or given up just ends. Not promised: that the
//! cluster is there when they go on; they look the map up again.

use std::collections::BTreeMap;

use spindle_block::Io;

/// The requests that wait, by cluster of the blob.
#[derive(Default)]
pub(super) struct ClusterQueue(BTreeMap<u64, Vec<Io>>);

impl ClusterQueue {
    /// Has a request wait if an earlier one is getting this cluster; otherwise the request is returned and is the one
    /// that gets it from now on.
    pub(super) fn join(&mut self, index: u64, io: Io) -> Option<Io> {
        match self.0.get_mut(&index) {
            Some(waiting) => {
                waiting.push(io);
                None
            }
            None => {
                self.0.insert(index, Vec::new());
                Some(io)
            }
        }
    }

    /// The request that got this cluster is back, whatever became of it: returns those that waited, oldest first.
    pub(super) fn over(&mut self, index: u64) -> Vec<Io> {
        self.0.remove(&index).unwrap_or_default()
    }

    /// Returns all that wait; nobody knows which clusters are still being got.
    pub(super) fn all(&mut self) -> Vec<Io> {
        std::mem::take(&mut self.0).into_values().flatten().collect()
    }

    /// Takes out the waiting requests that are to end.
    pub(super) fn take_if(&mut self, ends: impl Fn(&Io) -> bool) -> Vec<Io> {
        let all = self.0.values_mut();
        all.flat_map(|waiting| waiting.extract_if(.., |io| ends(io)).collect::<Vec<_>>()).collect()
    }
}
