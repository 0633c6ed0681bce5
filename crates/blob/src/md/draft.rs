//! New contents of a blob that are being written, shared by the thread that writes them and the metadata thread.

use std::collections::BTreeMap;

/// The part shared with the metadata thread.
#[derive(Default)]
pub(crate) struct Draft {
    /// The clusters that hold new contents, by their places in the blob.
    pub(crate) clusters: BTreeMap<u64, u32>,
    /// Writes that have begun and not succeeded.
    pub(crate) unfinished: usize,
    /// True once committed or dropped: nothing is added.
    pub(crate) over: bool,
}

impl Draft {
    /// Notes a cluster; false if it is no longer wanted.
    pub(crate) fn add(&mut self, index: u64, cluster: u32) -> bool {
        if !self.over {
            self.clusters.insert(index, cluster);
        }
        !self.over
    }
}
