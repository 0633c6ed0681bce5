//! The leaves of the cluster maps of all open blobs of a store.
//!
//! All threads of the store read leaves by number, without a lock; a lock is taken to make or give up a leaf.
//! Memory is not freed while the store is open: an unused leaf is given to the next blob, so that the arena
//! takes as much as was in use at its peak.
//!
//! The metadata thread's maps of open blobs have no other words: they hold leaves ([`HeldLeaf`]), so the
//! map is what readers see. A leaf is free for the next blob when no blob shows it and no map holds it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use spindle_format::entries::Words;

use super::chunked::Chunked;
use super::entry::{LEAF, own};
use crate::waiting::locked;

/// 512 entries, read by all threads.
pub(crate) type Leaf = [AtomicU32; LEAF as usize];

/// A leaf and its data under the lock.
struct Place {
    entries: Leaf,
    /// Maps of the metadata thread that hold it.
    holders: AtomicU32,
}

/// Chunks of leaves for the largest arena: numbers have 31 bits.
const CHUNKS: usize = 31;

/// The leaves of all blobs of a store.
#[derive(Default)]
pub(crate) struct Arena {
    leaves: Chunked<OnceLock<Box<Place>>, CHUNKS>,
    spare: Mutex<Spare>,
}

/// Leaves that no blob has.
#[derive(Default)]
struct Spare {
    /// Number of leaves ever made.
    made: u32,
    free: Vec<u32>,
    /// Given up while readers may still look into them.
    retired: Vec<u32>,
    /// Given up, but still held by a map.
    held: BTreeSet<u32>,
    /// Changes of chains under way.
    changes: usize,
}

impl Spare {
    /// Frees these leaves: at once, or when no reader can be looking into them.
    fn put(&mut self, leaves: impl Iterator<Item = u32>) {
        match self.changes {
            0 => self.free.extend(leaves),
            _ => self.retired.extend(leaves),
        }
    }
}

/// A leaf held by a map of the metadata thread: its entries are what readers see.
pub(crate) struct HeldLeaf {
    arena: Arc<Arena>,
    pub(crate) number: u32,
}

impl Words for HeldLeaf {
    fn get(&self, at: usize) -> u32 {
        own(self.arena.leaf(self.number)[at].load(Ordering::Acquire))
    }

    /// The leaf is looked up once: every write of an extent page copies all of it.
    fn copy_to(&self, words: &mut [u32]) {
        let entries = self.arena.leaf(self.number);
        words.iter_mut().zip(entries).for_each(|(word, entry)| *word = own(entry.load(Ordering::Acquire)));
    }
}

impl Drop for HeldLeaf {
    fn drop(&mut self) {
        self.arena.let_go(self.number);
    }
}

impl std::fmt::Debug for HeldLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "leaf {}", self.number)
    }
}

impl Arena {
    /// Number of leaves that blobs show.
    pub(crate) fn in_use(&self) -> u64 {
        let spare = locked(&self.spare);
        u64::from(spare.made) - (spare.free.len() + spare.retired.len() + spare.held.len()) as u64
    }

    /// Holds a leaf that a blob shows.
    pub(crate) fn hold(self: &Arc<Arena>, number: u32) -> HeldLeaf {
        let _spare = locked(&self.spare);
        self.place(number).holders.fetch_add(1, Ordering::Relaxed);
        HeldLeaf { arena: self.clone(), number }
    }

    fn let_go(&self, number: u32) {
        let mut spare = locked(&self.spare);
        let last = self.place(number).holders.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && spare.held.remove(&number) {
            spare.put([number].into_iter());
        }
    }

    /// A leaf by its number from [`take`](Self::take).
    #[inline]
    pub(crate) fn leaf(&self, number: u32) -> &Leaf {
        &self.place(number).entries
    }

    #[inline]
    fn place(&self, number: u32) -> &Place {
        let known = self.leaves.get(u64::from(number) - 1).and_then(OnceLock::get);
        match known {
            Some(leaf) => leaf,
            None => self.make(number),
        }
    }

    #[cold]
    fn make(&self, number: u32) -> &Place {
        self.leaves.get_or_init(u64::from(number) - 1).get_or_init(|| {
            let entries = [const { AtomicU32::new(0) }; LEAF as usize];
            Box::new(Place { entries, holders: AtomicU32::new(0) })
        })
    }

    /// A leaf without entries. Numbers begin at 1.
    pub(crate) fn take(&self) -> u32 {
        let mut spare = locked(&self.spare);
        match spare.free.pop() {
            Some(number) => {
                self.leaf(number).iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
                number
            }
            None => {
                spare.made += 1;
                spare.made
            }
        }
    }

    /// Gives up leaves that no reader will look into from now on; an operation whose earlier readers may
    /// still do so has called [`chains_change`](Self::chains_change).
    pub(crate) fn give_up(&self, leaves: impl Iterator<Item = u32>) {
        let mut spare = locked(&self.spare);
        for number in leaves {
            match self.place(number).holders.load(Ordering::Relaxed) {
                0 => spare.put([number].into_iter()),
                _ => drop(spare.held.insert(number)),
            }
        }
    }

    /// Begins a change of chains: until [`chains_settled`](Self::chains_settled), slots may name leaves of
    /// blobs that are no longer parents.
    pub(crate) fn chains_change(&self) {
        locked(&self.spare).changes += 1;
    }

    /// Ends it: no slot names a leaf of a former parent, and no reader looks into one.
    pub(crate) fn chains_settled(&self) {
        let mut spare = locked(&self.spare);
        spare.changes -= 1;
        if spare.changes == 0 {
            let retired = std::mem::take(&mut spare.retired);
            spare.free.extend(retired);
        }
    }
}
