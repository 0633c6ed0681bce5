//! The way of a request, and for how many bytes it is the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::{Cx, Io, Operation};

use super::lane::BlobLane;
use crate::map::Entry;
use crate::shared::{ExternalSnapshot, Source};

/// Requests without data over more clusters than this are processed in steps, so that no call is long.
pub(super) const LONG: u64 = 128;

/// Clusters examined by a seek in one call if a parent has to be asked.
const SOUGHT: u64 = 1 << 16;

/// Where a request goes.
pub(super) enum Way {
    /// To this byte of the store's device, and on from there.
    Device { place: u64 },
    /// To no device: it reads zeroes.
    Zeroes,
    /// To no device: there is nothing to do.
    Nothing,
    /// To an external snapshot.
    External { snapshot: Arc<ExternalSnapshot> },
    /// To a parent that is missing.
    Missing { parent: Arc<str> },
    /// To a cluster that the blob does not own yet.
    New { index: u64 },
    /// Whole clusters of the blob must be freed.
    Free { first: u64, count: u64 },
    /// To own clusters that must be overwritten with zeroes, as the device has no command for it.
    ZeroesByHand,
}

impl BlobLane {
    /// The way of a range of the blob, and the number of bytes for which it holds.
    pub(super) fn way(&self, operation: Operation, offset: u64, len: u64) -> (Way, u64) {
        let size = self.blob.cluster_size.get();
        let (index, within) = self.blob.cluster_size.split(offset);
        let in_first = (size - within).min(len);
        if operation == Operation::Unmap && self.frees_clusters() {
            let count = if within == 0 { len / size } else { 0 };
            return match count {
                0 => (self.way_in(operation, index, within), in_first),
                count => (Way::Free { first: index, count }, count * size),
            };
        }
        let way = self.way_in(operation, index, within);
        let mut run = in_first;
        // Requests that a task must look up again go there cluster by cluster.
        if matches!(way, Way::New { .. } | Way::ZeroesByHand) {
            return (way, run);
        }
        let mut next = index + 1;
        while run < len && next - index < LONG && goes_on(&way, run, &self.way_in(operation, next, 0)) {
            run += size.min(len - run);
            next += 1;
        }
        if let Way::External { snapshot } = &way {
            let end = snapshot.device.geometry().bytes();
            if offset >= end {
                return (Way::Zeroes, run);
            }
            // The last block may lie there in part.
            run = run.min((end - offset).next_multiple_of(1 << self.block_shift));
        }
        (way, run)
    }

    /// True if an unmap frees whole clusters: for a thin blob without parent.
    fn frees_clusters(&self) -> bool {
        self.blob.thin.load(Ordering::Acquire) && self.blob.is_without_parent()
    }

    /// The way of a byte of a cluster.
    fn way_in(&self, operation: Operation, index: u64, within: u64) -> Way {
        let blob = &self.blob;
        let place = |cluster| Way::Device { place: blob.start_of(cluster) + within };
        match operation {
            Operation::Read => match blob.source(index) {
                Source::Cluster { cluster, .. } => place(cluster),
                Source::Zeroes => Way::Zeroes,
                Source::External(snapshot) => Way::External { snapshot },
                Source::Missing(parent) => Way::Missing { parent },
            },
            Operation::WriteZeroes => match blob.source(index) {
                Source::Cluster { own: true, .. } if self.zeroes_by_hand => Way::ZeroesByHand,
                Source::Cluster { cluster, own: true } => place(cluster),
                Source::Zeroes => Way::Nothing,
                _ => Way::New { index },
            },
            Operation::Unmap => match blob.leaves.get(index) {
                Entry::Own(cluster) => place(cluster),
                _ => Way::Nothing,
            },
            _ => match blob.leaves.get(index) {
                Entry::Own(cluster) => place(cluster),
                _ => Way::New { index },
            },
        }
    }

    /// Finds the first block that may hold data, or the first known to read zero because nothing is
    /// allocated: the end of the blob if there is none, or if a parent has to be asked too often.
    pub(super) fn seek(&mut self, mut io: Io, cx: &mut Cx<'_>) {
        let blob = &self.blob;
        let (from, for_data) = (io.start() << self.block_shift, io.operation() == Operation::SeekData);
        let found = match blob.is_without_parent() {
            true => blob.next(from, for_data),
            false => self.seek_in_parents(from, for_data),
        };
        io.set_aux(found.unwrap_or(blob.bytes()) >> self.block_shift);
        cx.done(io, Ok(()));
    }

    fn seek_in_parents(&self, from: u64, for_data: bool) -> Option<u64> {
        let blob = &self.blob;
        let size = blob.cluster_size.get();
        let (first, end) = (from / size, blob.clusters.load(Ordering::Acquire));
        let holds = |index: u64| !matches!(blob.source(index), Source::Zeroes);
        let found = (first..end.min(first + SOUGHT)).find(|&index| holds(index) == for_data);
        // Possible data must be reported; a hole need not.
        let unknown = (for_data && first + SOUGHT < end).then_some(first + SOUGHT);
        found.or(unknown).map(|index| from.max(index * size))
    }

    /// True if a request without data has so many pieces that it is processed in steps.
    pub(super) fn is_long(&self, operation: Operation, len: u64) -> bool {
        let in_one = operation == Operation::Unmap && self.frees_clusters();
        !operation.moves_data() && !in_one && len / self.blob.cluster_size.get() > LONG
    }
}

/// True if the way `next`, `run` bytes further, continues `way`.
fn goes_on(way: &Way, run: u64, next: &Way) -> bool {
    match (way, next) {
        (Way::Device { place }, Way::Device { place: next }) => place + run == *next,
        (Way::Zeroes, Way::Zeroes) | (Way::Nothing, Way::Nothing) => true,
        (Way::External { snapshot }, Way::External { snapshot: next }) => Arc::ptr_eq(snapshot, next),
        _ => false,
    }
}
