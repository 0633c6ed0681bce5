//! Memory for transfers whose buffers are not aligned as direct transfers need: one pool for all lanes of a file.
//!
//! A lane that finds the pool empty is notified when memory comes back, on any thread: load on other lanes causes
//! waiting, never an error. A transfer larger than a step goes in steps that reuse the same memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use spindle_mem::{IoBuf, Pool};

use crate::state::mailbox::locked;
use crate::{GeometryError, RemoteNotifier};

/// The most that is moved at a time: the largest buffers that a pool keeps.
const LARGEST_STEP: usize = 4 << 20;

/// The bounce memory of a file; shared by all its lanes.
#[derive(Debug)]
pub(crate) struct Bounce {
    pool: Pool,
    step: usize,
    /// Number of waiting lanes, readable without the lock.
    waiting: AtomicUsize,
    lanes: Mutex<Vec<RemoteNotifier>>,
}

impl Bounce {
    /// Creates a pool of `bytes` bytes, for blocks of `block_size` bytes.
    pub(crate) fn new(bytes: usize, block_size: u32) -> Result<Bounce, GeometryError> {
        // A step fits with room for a second, so that two threads do not always wait for each other.
        let half = (bytes / 2).checked_ilog2().map_or(0, |log| 1 << log);
        let step = LARGEST_STEP.min(half);
        if step < block_size as usize {
            return Err(GeometryError::BounceTooSmall { bytes, block_size });
        }
        let (waiting, lanes) = (AtomicUsize::new(0), Mutex::default());
        Ok(Bounce { pool: Pool::new("file bounce", bytes), step, waiting, lanes })
    }

    /// How many of the remaining bytes one step moves.
    pub(crate) fn step(&self, left: usize) -> usize {
        left.min(self.step)
    }

    /// Memory for a step; if there is none, the lane is notified when it should ask again.
    pub(crate) fn get(&self, bytes: usize, lane: &RemoteNotifier) -> Option<IoBuf> {
        if let Ok(buffer) = self.pool.get(bytes) {
            return Some(buffer);
        }
        let mut lanes = locked(&self.lanes);
        if !lanes.contains(lane) {
            lanes.push(lane.clone());
        }
        self.waiting.store(lanes.len(), Ordering::Relaxed);
        drop(lanes);
        // Pairs with the fence in `give_back`: either that side sees the waiting lane, or this side sees the
        // memory.
        fence(Ordering::SeqCst);
        self.pool.get(bytes).ok()
    }

    /// True if no transfer has any of the memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.pool.lent() == 0
    }

    /// Returns memory to the pool and notifies waiting lanes.
    pub(crate) fn give_back(&self, buffer: IoBuf) {
        drop(buffer);
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut lanes = locked(&self.lanes);
        self.waiting.store(0, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *lanes);
        drop(lanes);
        waiting.iter().for_each(RemoteNotifier::notify);
    }
}
