//! Requests that wait for a new cluster which an earlier request of the same lane is getting.
//!
//! Belongs to the lane. They wait here and not in tasks: a blob that is filled in order has many for each cluster.
//! They have changed nothing yet, so one that is aborted or given up can simply end. Not promised: that the cluster
//! is there when they go on; they look the map up again.

use std::collections::BTreeMap;

use spindle_block::Io;

/// The requests that wait, by cluster of the blob.
#[derive(Default)]
pub(super) struct ClusterQueue(BTreeMap<u64, Vec<Io>>);

impl ClusterQueue {
    /// Queues a request if an earlier one is getting this cluster; otherwise returns it, and it gets the cluster.
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

    /// Returns the requests that waited, oldest first, when the one that got this cluster has come back, with
    /// success or not.
    pub(super) fn over(&mut self, index: u64) -> Vec<Io> {
        self.0.remove(&index).unwrap_or_default()
    }

    /// Returns all waiting requests, after a task ended without giving its request back.
    pub(super) fn all(&mut self) -> Vec<Io> {
        std::mem::take(&mut self.0).into_values().flatten().collect()
    }

    /// Takes out the waiting requests that must end.
    pub(super) fn take_if(&mut self, ends: impl Fn(&Io) -> bool) -> Vec<Io> {
        let all = self.0.values_mut();
        all.flat_map(|waiting| waiting.extract_if(.., |io| ends(io)).collect::<Vec<_>>()).collect()
    }
}
