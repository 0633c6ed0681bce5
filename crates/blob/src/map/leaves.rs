//! Where the clusters of open blobs lie, readable on any thread without a lock.
//!
//! The store's [`Arena`] holds leaves of 512 entries; each blob has a table with one slot per leaf. A blob
//! that owns clusters in a leaf's range has its own leaf there. Otherwise it shares the leaf of the nearest parent
//! that has one, once a reader has found it: a clone costs four bytes for each leaf that does not differ, and
//! every chain is one lookup long.
//!
//! The metadata thread makes leaves, gives them up, and writes the entries of clusters that the blob owns;
//! its own map of an open blob is these same leaves. Any reader may note what it found in the chain of
//! parents: in an entry, or, for a whole leaf, in a slot. Not promised: that an entry read a moment ago still
//! holds. An operation that frees a cluster or gives up a leaf waits until all requests sent before have
//! ended.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use spindle_format::Entries;

use super::arena::{Arena, HeldLeaf};
use super::chunked::Chunked;
use super::entry::{Entry, INHERITED, LEAF, own};

/// Chunks of slots for the largest possible blob.
const SLOTS: usize = 24;

/// The slot of a leaf in which the blob reads zeroes everywhere.
const ZEROES: u32 = u32::MAX;

/// The clusters of one blob.
pub(crate) struct Leaves {
    arena: Arc<Arena>,
    /// 0, the number of its own leaf, or a parent's with [`INHERITED`] set.
    slots: Chunked<AtomicU32, SLOTS>,
}

impl Leaves {
    pub(crate) fn new(arena: Arc<Arena>) -> Leaves {
        Leaves { arena, slots: Chunked::default() }
    }

    /// The entry of a cluster.
    #[inline(always)]
    pub(crate) fn get(&self, index: u64) -> Entry {
        let slot = self.slots.get(index / LEAF).map_or(0, |slot| slot.load(Ordering::Acquire));
        let (leaf, shared) = match slot {
            0 => return Entry::Unknown,
            ZEROES => return Entry::Inherited(None),
            slot => (slot & !INHERITED, slot & INHERITED != 0),
        };
        match self.arena.leaf(leaf)[(index % LEAF) as usize].load(Ordering::Acquire) {
            0 => Entry::Unknown,
            INHERITED => Entry::Inherited(None),
            raw if shared || raw & INHERITED != 0 => Entry::Inherited(Some(raw & !INHERITED)),
            raw => Entry::Own(raw),
        }
    }

    /// The blob's own leaf that holds a cluster's entry.
    pub(crate) fn own_leaf(&self, index: u64) -> Option<u32> {
        let slot = self.slots.get(index / LEAF)?.load(Ordering::Acquire);
        (slot != 0 && slot & INHERITED == 0).then_some(slot)
    }

    /// The places in which the blob has leaves of its own, in order, as parts of these clusters. What it takes depends
    /// on the leaves there are, not on the size, which may be absurd.
    pub(crate) fn own_parts(&self, clusters: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let Range { start, end } = clusters;
        let parts = self.own_slots_from(start / LEAF).map(|(number, _)| number * LEAF);
        parts
            .map(move |first| first.max(start)..(first + LEAF).min(end))
            .take_while(|part| part.start < part.end)
    }

    /// The first cluster from `from` on, below `end`, that the blob owns, or does not own.
    pub(crate) fn find(&self, from: u64, end: u64, is_own: bool) -> Option<u64> {
        let is_own_at = |index: &u64| matches!(self.get(*index), Entry::Own(_));
        if is_own {
            return self.own_parts(from..end).find_map(|mut part| part.find(is_own_at));
        }
        (from..end).find(|index| !is_own_at(index))
    }

    /// Sets or clears the blob's ownership of a cluster. Called on the metadata thread.
    pub(crate) fn set(&self, index: u64, cluster: Option<u32>) {
        let at = (index % LEAF) as usize;
        match (self.own_leaf(index), cluster) {
            (Some(leaf), cluster) => {
                self.arena.leaf(leaf)[at].store(cluster.unwrap_or(0), Ordering::Release);
            }
            // A shared leaf says the same already.
            (None, None) => {}
            (None, Some(cluster)) => {
                let leaf = self.arena.take();
                self.arena.leaf(leaf)[at].store(cluster, Ordering::Relaxed);
                self.slots.get_or_init(index / LEAF).store(leaf, Ordering::Release);
            }
        }
    }

    /// True if these entries are the leaf that readers see in this slot.
    pub(crate) fn keeps(&self, slot: u32, entries: &Entries) -> bool {
        let own = self.own_leaf(u64::from(slot) * LEAF);
        own.is_some() && own == held(entries)
    }

    /// Makes a leaf show these entries. Returns the entries as a map holds them from now on, if any is
    /// allocated and they were not held before. Called on the metadata thread.
    pub(crate) fn show(&self, slot: u32, entries: &Entries) -> Option<Entries> {
        let own_leaf = self.own_leaf(u64::from(slot) * LEAF);
        let number = match own_leaf {
            Some(number) if Some(number) == held(entries) => return None,
            Some(number) => number,
            None if entries.pieces().next().is_none() => return None,
            None => self.arena.take(),
        };
        let words = entries.to_vec();
        let words = words.into_iter().chain(std::iter::repeat(0));
        for (entry, word) in self.arena.leaf(number).iter().zip(words) {
            match word {
                0 => {
                    let forget = |raw| (own(raw) != 0).then_some(0);
                    let _ = entry.fetch_update(Ordering::AcqRel, Ordering::Relaxed, forget);
                }
                word => entry.store(word, Ordering::Release),
            }
        }
        if own_leaf.is_none() {
            self.slots.get_or_init(slot.into()).store(number, Ordering::Release);
        }
        Some(Entries::kept(Arc::new(self.arena.hold(number)), entries.len()))
    }

    /// Clears the blob's ownership of all clusters. Called on the metadata thread.
    pub(crate) fn forget_own(&self) {
        for (_, slot) in self.own_slots() {
            for entry in self.arena.leaf(slot.load(Ordering::Acquire)) {
                let forget = |raw| (own(raw) != 0).then_some(0);
                let _ = entry.fetch_update(Ordering::AcqRel, Ordering::Relaxed, forget);
            }
        }
    }

    /// Notes that this parent's leaf holds everything about the 512 clusters around `index`.
    pub(crate) fn share(&self, index: u64, leaf: u32) {
        self.note_slot(index, INHERITED | leaf);
    }

    /// Notes that the 512 clusters around `index` read zeroes.
    pub(crate) fn share_zeroes(&self, index: u64) {
        self.note_slot(index, ZEROES);
    }

    fn note_slot(&self, index: u64, slot: u32) {
        let known = self.slots.get_or_init(index / LEAF);
        let _ = known.compare_exchange(0, slot, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Notes what a reader found in the parents, unless the entry has changed since. In a shared leaf all
    /// sharers see the note.
    pub(crate) fn note(&self, index: u64, cluster: Option<u32>) {
        let slot = self.slots.get(index / LEAF).map_or(0, |slot| slot.load(Ordering::Acquire));
        if slot == 0 || slot == ZEROES {
            return;
        }
        let entry = &self.arena.leaf(slot & !INHERITED)[(index % LEAF) as usize];
        let raw = INHERITED | cluster.unwrap_or(0);
        let _ = entry.compare_exchange(0, raw, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// All slots.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &AtomicU32> {
        self.slots.iter().map(|(_, slot)| slot)
    }

    /// Clears the notes in one slot: the chain has changed.
    pub(crate) fn forget_inherited(&self, slot: &AtomicU32) {
        let known = slot.load(Ordering::Acquire);
        if known & INHERITED != 0 {
            slot.store(0, Ordering::Release);
        } else if known != 0 {
            for entry in self.arena.leaf(known) {
                let inherited = |raw| (raw & INHERITED != 0).then_some(0);
                let _ = entry.fetch_update(Ordering::AcqRel, Ordering::Relaxed, inherited);
            }
        }
    }

    /// Takes over all leaves of another blob whose parent this one becomes. No reader sees this one yet.
    pub(crate) fn adopt(&self, other: &Leaves) {
        for (number, slot) in other.own_slots() {
            self.slots.get_or_init(number).store(slot.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Marks all own leaves as its parent's, which has [adopted](Self::adopt) them.
    pub(crate) fn share_all(&self) {
        for (_, slot) in self.own_slots() {
            slot.fetch_or(INHERITED, Ordering::AcqRel);
        }
    }

    fn own_slots(&self) -> impl Iterator<Item = (u64, &AtomicU32)> {
        self.own_slots_from(0)
    }

    fn own_slots_from(&self, number: u64) -> impl Iterator<Item = (u64, &AtomicU32)> {
        self.slots.iter_from(number).filter(|(_, slot)| {
            let known = slot.load(Ordering::Acquire);
            known != 0 && known & INHERITED == 0
        })
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let own = self.own_slots().map(|(_, slot)| slot.load(Ordering::Acquire));
        self.arena.give_up(own);
    }
}

/// The leaf that holds these entries, if one does.
fn held(entries: &Entries) -> Option<u32> {
    let keeper: &dyn Any = entries.keeper()?;
    keeper.downcast_ref::<HeldLeaf>().map(|held| held.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> (Arc<Arena>, Leaves) {
        let arena = Arc::<Arena>::default();
        (arena.clone(), Leaves::new(arena))
    }

    #[test]
    fn every_cluster_has_an_entry_of_its_own() {
        let (_, leaves) = leaves();
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
    fn the_next_cluster_of_its_own_is_found_behind_leaves_that_have_none() {
        let (_, leaves) = leaves();
        leaves.set(5, Some(1));
        leaves.set(LEAF * 9 + 3, Some(2));
        leaves.note(6, Some(7));
        assert_eq!(leaves.find(0, 6000, true), Some(5));
        assert_eq!(leaves.find(6, 6000, true), Some(LEAF * 9 + 3));
        assert_eq!(leaves.find(6, LEAF * 9 + 3, true), None);
        assert_eq!((leaves.find(5, 6000, false), leaves.find(700, 6000, false)), (Some(6), Some(700)));
        assert_eq!(leaves.find(5, 6, false), None);
        let parts =
            |clusters| leaves.own_parts(clusters).map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(parts(0..u64::from(u32::MAX)), [(0, LEAF), (LEAF * 9, LEAF * 10)]);
        assert_eq!(parts(7..LEAF * 9 + 4), [(7, LEAF), (LEAF * 9, LEAF * 9 + 4)]);
        assert_eq!((parts(LEAF..LEAF * 9), parts(3..3)), (vec![], vec![]));
    }

    #[test]
    fn what_was_found_in_a_parent_never_hides_what_is_the_blobs_own() {
        let (_, leaves) = leaves();
        leaves.set(3, Some(9));
        leaves.note(3, Some(7));
        leaves.note(4, Some(7));
        leaves.note(5, None);
        assert_eq!(leaves.get(3), Entry::Own(9));
        assert_eq!(leaves.get(4), Entry::Inherited(Some(7)));
        assert_eq!(leaves.get(5), Entry::Inherited(None));
        leaves.share(3, 5);
        leaves.slots().for_each(|slot| leaves.forget_inherited(slot));
        assert_eq!([3, 4, 5].map(|at| leaves.get(at)), [Entry::Own(9), Entry::Unknown, Entry::Unknown]);
    }

    #[test]
    fn a_shared_leaf_is_read_as_a_parents_until_the_blob_has_a_cluster_there() {
        let (arena, parent) = leaves();
        let clone = Leaves::new(arena.clone());
        parent.set(600, Some(9));
        clone.share(601, parent.own_leaf(600).unwrap());
        clone.note(602, None);
        assert_eq!(
            [600, 601, 602].map(|at| clone.get(at)),
            [Entry::Inherited(Some(9)), Entry::Unknown, Entry::Inherited(None)]
        );
        assert_eq!(parent.get(602), Entry::Inherited(None), "what one found all have");
        clone.set(600, None);
        assert_eq!((clone.get(600), arena.in_use()), (Entry::Inherited(Some(9)), 1));
        clone.set(601, Some(4));
        assert_eq!((clone.get(601), clone.get(600), arena.in_use()), (Entry::Own(4), Entry::Unknown, 2));
        clone.share_zeroes(0);
        assert_eq!(clone.get(77), Entry::Inherited(None));
        clone.slots().for_each(|slot| clone.forget_inherited(slot));
        assert_eq!((clone.get(77), clone.get(601)), (Entry::Unknown, Entry::Own(4)));
    }

    #[test]
    fn what_is_shown_is_kept_in_the_leaf_and_the_leaf_is_no_other_owners_until_both_let_go() {
        let (arena, leaves) = leaves();
        leaves.note(3, Some(7));
        let mut words = [0; 20];
        (words[3], words[5]) = (8, 9);
        let kept = leaves.show(1, &Entries::from(words.as_slice())).unwrap();
        assert_eq!(kept.to_vec(), words);
        assert!(leaves.keeps(1, &kept) && leaves.show(1, &kept).is_none());
        leaves.set(LEAF + 5, None);
        leaves.note(LEAF + 5, Some(70));
        leaves.set(LEAF + 6, Some(4));
        assert_eq!([3, 5, 6].map(|at| kept.get(at)), [8, 0, 4], "a change is in the map, a note is not");
        let again = leaves.show(1, &Entries::from(words.as_slice())).unwrap();
        assert_eq!([5, 6].map(|at| leaves.get(LEAF + at)), [Entry::Own(9), Entry::Unknown]);
        drop(leaves);
        assert_eq!((arena.in_use(), kept.get(5)), (0, 9));
        let other = Leaves::new(arena.clone());
        other.set(0, Some(1));
        assert_eq!(kept.get(5), 9, "held, so not given to another owner");
        drop((kept, again));
        other.set(LEAF, Some(1));
        assert_eq!((arena.in_use(), other.own_leaf(LEAF)), (2, Some(1)), "the first leaf again");
    }

    #[test]
    fn a_snapshot_takes_the_leaves_over_and_its_blob_shares_them() {
        let (arena, blob) = leaves();
        blob.set(5, Some(6));
        blob.set(513, Some(7));
        let snapshot = Leaves::new(arena.clone());
        snapshot.adopt(&blob);
        blob.share_all();
        assert_eq!((snapshot.get(513), blob.get(513)), (Entry::Own(7), Entry::Inherited(Some(7))));
        assert_eq!(arena.in_use(), 2);
        drop(blob);
        assert_eq!(arena.in_use(), 2);
        drop(snapshot);
        assert_eq!(arena.in_use(), 0);
    }
}
