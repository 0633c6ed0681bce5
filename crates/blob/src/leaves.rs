//! Where the clusters of an open blob lie, for readers on any thread without a lock.
//!
//! Leaves of 512 entries, made when first needed, never moved and never dropped while the blob is open: a
//! blob that shrinks clears entries. The metadata thread writes entries that are the blob's own; any reader
//! may note down what it found by walking up the chain of parents. Not promised: that an entry read a moment
//! ago still holds; who frees a cluster waits until all requests sent before have ended.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of a leaf.
pub(crate) const LEAF: u64 = 512;

/// Marks an entry that was found in a parent. Stores with more clusters do without.
const INHERITED: u32 = 1 << 31;

/// Chunk `k` holds 2^k leaves, so that none ever moves; 24 of them hold every blob there can be.
const CHUNKS: usize = 24;

type Leaf = Box<[AtomicU32]>;

/// The clusters of one blob.
#[derive(Default)]
pub(crate) struct Leaves {
    chunks: [OnceLock<Box<[OnceLock<Leaf>]>>; CHUNKS],
}

/// What is known of one cluster of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Not its own, and not looked for in its parents yet.
    Unknown,
    /// Its own.
    Own(u32),
    /// The nearest parent that has it has it there; `None` if all read zeroes.
    Inherited(Option<u32>),
}

impl Leaves {
    /// What is known of a cluster.
    pub(crate) fn get(&self, index: u64) -> Entry {
        let (chunk, at) = place(index);
        let leaf = self.chunks.get(chunk).and_then(OnceLock::get).and_then(|leaves| leaves[at].get());
        let raw = leaf.map_or(0, |leaf| leaf[(index % LEAF) as usize].load(Ordering::Acquire));
        match raw {
            0 => Entry::Unknown,
            INHERITED => Entry::Inherited(None),
            raw if raw & INHERITED != 0 => Entry::Inherited(Some(raw & !INHERITED)),
            raw => Entry::Own(raw),
        }
    }

    /// Says that a cluster is the blob's own, or no longer.
    pub(crate) fn set(&self, index: u64, cluster: Option<u32>) {
        match cluster {
            Some(cluster) => self.entry(index).store(cluster, Ordering::Release),
            // An absent leaf says the same already.
            None if self.get(index) == Entry::Unknown => {}
            None => self.entry(index).store(0, Ordering::Release),
        }
    }

    /// Notes down what a reader found in the parents, unless the entry has become something else.
    pub(crate) fn note(&self, index: u64, cluster: Option<u32>) {
        let raw = INHERITED | cluster.unwrap_or(0);
        let _ = self.entry(index).compare_exchange(0, raw, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Forgets what readers noted down: the chain has changed.
    pub(crate) fn forget_inherited(&self) {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        let leaves = chunks.flat_map(|chunk| chunk.iter().filter_map(OnceLock::get));
        for entry in leaves.flat_map(|leaf| leaf.iter()) {
            let _ = entry
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |raw| (raw & INHERITED != 0).then_some(0));
        }
    }

    fn entry(&self, index: u64) -> &AtomicU32 {
        let (chunk, at) = place(index);
        let leaves =
            self.chunks[chunk].get_or_init(|| (0..1_u64 << chunk).map(|_| OnceLock::new()).collect());
        let leaf = leaves[at].get_or_init(|| (0..LEAF).map(|_| AtomicU32::new(0)).collect());
        &leaf[(index % LEAF) as usize]
    }
}

/// The chunk of a cluster's leaf and the leaf's number in it.
fn place(index: u64) -> (usize, usize) {
    let number = index / LEAF + 1;
    let chunk = number.ilog2();
    (chunk as usize, (number - (1 << chunk)) as usize)
}

/// Whether the clusters of a store of this many can be noted down as inherited.
pub(crate) fn can_note(total_clusters: u32) -> bool {
    total_clusters < INHERITED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_an_entry_of_its_own() {
        let leaves = Leaves::default();
        let some = [0, 1, 511, 512, 1023, 1024, 512 * 7, (1 << 32) - 2];
        for (at, &index) in some.iter().enumerate() {
            assert_eq!(leaves.get(index), Entry::Unknown);
            leaves.set(index, Some(at as u32 + 1));
        }
        for (at, &index) in some.iter().enumerate() {
            assert_eq!(leaves.get(index), Entry::Own(at as u32 + 1), "{index}");
        }
    }

    #[test]
    fn what_was_found_in_a_parent_never_hides_what_is_the_blobs_own() {
        let leaves = Leaves::default();
        leaves.set(3, Some(9));
        leaves.note(3, Some(7));
        leaves.note(4, Some(7));
        leaves.note(5, None);
        assert_eq!(leaves.get(3), Entry::Own(9));
        assert_eq!(leaves.get(4), Entry::Inherited(Some(7)));
        assert_eq!(leaves.get(5), Entry::Inherited(None));
        leaves.forget_inherited();
        assert_eq!([3, 4, 5].map(|at| leaves.get(at)), [Entry::Own(9), Entry::Unknown, Entry::Unknown]);
    }
}
