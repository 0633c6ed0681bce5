//! The leaves of the cluster maps of all open blobs of a store.
//!
//! Shared by all threads of the store, which look into leaves by number, without a lock. Taken and given up
//! now and then, under a lock. Memory is never given back while the store is open: a leaf that no blob has is
//! the next one's, so that it takes as much as was in use at most at one time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::chunked::Chunked;
use crate::leaves::LEAF;
use crate::shared::locked;

type Leaf = [AtomicU32; LEAF as usize];

/// Chunks of leaves for as many as there can be: numbers have 31 bits.
const CHUNKS: usize = 31;

/// The leaves of all blobs of a store.
#[derive(Default)]
pub(crate) struct Arena {
    leaves: Chunked<OnceLock<Box<Leaf>>, CHUNKS>,
    spare: Mutex<Spare>,
}

/// Leaves that no blob has.
#[derive(Default)]
struct Spare {
    /// How many leaves were ever made.
    made: u32,
    free: Vec<u32>,
    /// Given up while somebody may still look into them.
    retired: Vec<u32>,
    /// Changes of chains under way.
    changes: usize,
}

impl Arena {
    /// Leaves that blobs have.
    pub(crate) fn in_use(&self) -> u64 {
        let spare = locked(&self.spare);
        u64::from(spare.made) - (spare.free.len() + spare.retired.len()) as u64
    }

    /// A leaf by its number, which [`take`](Self::take) gave.
    #[inline]
    pub(crate) fn leaf(&self, number: u32) -> &Leaf {
        let known = self.leaves.get(u64::from(number) - 1).and_then(OnceLock::get);
        match known {
            Some(leaf) => leaf,
            None => self.make(number),
        }
    }

    #[cold]
    fn make(&self, number: u32) -> &Leaf {
        self.leaves
            .get_or_init(u64::from(number) - 1)
            .get_or_init(|| Box::new([const { AtomicU32::new(0) }; LEAF as usize]))
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

    /// Nobody who comes from now on looks into these leaves; who does so already has [changed a
    /// chain](Self::chains_change).
    pub(crate) fn give_up(&self, leaves: impl Iterator<Item = u32>) {
        let mut spare = locked(&self.spare);
        match spare.changes {
            0 => spare.free.extend(leaves),
            _ => spare.retired.extend(leaves),
        }
    }

    /// A chain is going to change: until [`chains_settled`](Self::chains_settled), slots may name leaves of
    /// blobs that are parents no more.
    pub(crate) fn chains_change(&self) {
        locked(&self.spare).changes += 1;
    }

    /// No slot names a leaf of a blob that is no parent any more, and no reader looks into one.
    pub(crate) fn chains_settled(&self) {
        let mut spare = locked(&self.spare);
        spare.changes -= 1;
        if spare.changes == 0 {
            let retired = std::mem::take(&mut spare.retired);
            spare.free.extend(retired);
        }
    }
}
