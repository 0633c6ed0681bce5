//! Ranges of a device's blocks whose changes must wait. A range is held because an older change may still reach
//! it, one whose maker was dropped while a lane held it; or because an operation that must be atomic has
//! locked it.
//!
//! Newer changes of these blocks wait, on any thread, until the range is released. So an older write never
//! overwrites a newer acknowledged one, and nothing changes a range between a comparison and its write. Each
//! change of data reads one word of its lane ([`Hindrance`]), which counts the ranges; the lock of the list is
//! taken only while there are any. Reads and flushes do not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::state::hindrance::Hindrance;
use crate::state::mailbox::{Body, Letter, Mailbox, locked};
use crate::{Delivered, DeviceState};

/// The ranges of one device; part of its state.
#[derive(Default)]
pub(crate) struct Ranges {
    list: Mutex<List>,
    left_out: AtomicBool,
}

#[derive(Default)]
struct List {
    next: u64,
    /// In the order in which they were asked for.
    ranges: Vec<Range>,
    waiting: Vec<Waiting>,
    /// The words of the device's lanes, by the keys of their entries.
    lanes: Vec<(u64, Arc<Hindrance>)>,
}

struct Range {
    key: u64,
    start: u64,
    end: u64,
    /// Called when a range is released, if this one is a lock.
    waker: Option<Waker>,
}

impl Range {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

/// A lane in front of which a request waits.
struct Waiting {
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
}

impl List {
    fn add(&mut self, start: u64, count: u64, waker: Option<Waker>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.ranges.push(Range { key, start, end: start.saturating_add(count), waker });
        self.lanes.iter().for_each(|(_, lane)| lane.add_range());
        key
    }
}

impl Ranges {
    /// Makes the word of a new lane, which counts held ranges from now on.
    pub(crate) fn add_lane(&self, key: u64) -> Arc<Hindrance> {
        let mut list = locked(&self.list);
        let word = Arc::new(Hindrance::of_ranges(list.ranges.len()));
        list.lanes.push((key, word.clone()));
        word
    }

    /// Forgets the word of a closed lane.
    pub(crate) fn remove_lane(&self, key: u64) {
        locked(&self.list).lanes.retain(|(known, _)| *known != key);
    }

    fn hold(&self, start: u64, count: u64) -> Option<u64> {
        if self.left_out.load(Ordering::Relaxed) {
            return None;
        }
        Some(locked(&self.list).add(start, count, None))
    }

    /// True if no range that was asked for earlier overlaps that of `key`.
    fn is_first(&self, key: u64) -> bool {
        let list = locked(&self.list);
        let Some(at) = list.ranges.iter().position(|range| range.key == key) else { return true };
        let Range { start, end, .. } = list.ranges[at];
        !list.ranges[..at].iter().any(|range| range.overlaps(start, end))
    }

    /// True if a change of these blocks must wait; the lane is notified when it need not.
    pub(crate) fn must_wait(
        &self,
        start: u64,
        count: u64,
        mailbox: &Arc<Mailbox>,
        lane: u32,
        generation: u32,
    ) -> bool {
        let end = start.saturating_add(count);
        let mut list = locked(&self.list);
        let found = list.ranges.iter().any(|range| range.overlaps(start, end));
        let known = |one: &Waiting| {
            one.lane == lane && one.generation == generation && Arc::ptr_eq(&one.mailbox, mailbox)
        };
        if found && !list.waiting.iter().any(known) {
            list.waiting.push(Waiting { mailbox: mailbox.clone(), lane, generation });
        }
        found
    }

    fn release(&self, key: u64) {
        let mut list = locked(&self.list);
        list.ranges.retain(|range| range.key != key);
        list.lanes.iter().for_each(|(_, lane)| lane.remove_range());
        let waiting = std::mem::take(&mut list.waiting);
        let locks: Vec<Waker> = list.ranges.iter().filter_map(|range| range.waker.clone()).collect();
        drop(list);
        locks.into_iter().for_each(Waker::wake);
        for Waiting { mailbox, lane, generation } in waiting {
            let letter = Letter { lane, generation, body: Body::Recheck, obligation: None };
            if mailbox.leave(letter) {
                mailbox.ring();
            }
        }
    }
}

/// Blocks that an older change may still reach. Requests that change them wait until this is dropped, when
/// the old one has ended.
#[must_use = "dropping this lets newer changes of the range go"]
pub struct HeldRange {
    state: DeviceState,
    key: Option<u64>,
}

impl DeviceState {
    /// Makes every request that changes these blocks wait in front of the device's lanes, on all threads: for
    /// a lane whose device has an older change that was [given up](crate::Lane::abandoned).
    pub fn hold_range(&self, start: u64, count: u64) -> HeldRange {
        HeldRange { key: self.ranges().hold(start, count), state: self.clone() }
    }

    /// Keeps changes of these blocks in front of the device's lanes, on all threads, until the lock is dropped;
    /// the lock is not held before it [has come](RangeLock::has_come). Changes that are in the lanes already
    /// go on: wait for them with [`settle`](Self::settle).
    pub(crate) fn lock_range(&self, start: u64, count: u64, waker: &Waker) -> RangeLock {
        let key = locked(&self.ranges().list).add(start, count, Some(waker.clone()));
        RangeLock { state: self.clone(), key }
    }

    /// Resolves when all requests that are now in the lanes have ended or wait in front of them. Later ones
    /// are neither waited for nor held up.
    pub(crate) fn settle(&self) -> Delivered {
        self.tell_lanes(Body::Settle)
    }

    /// Ranges that are held or locked now.
    pub fn held_ranges(&self) -> usize {
        locked(&self.ranges().list).ranges.len()
    }

    /// Stops holding ranges: with this switch tests prove that the order is needed.
    #[doc(hidden)]
    pub fn leave_out_held_ranges(&self) {
        self.ranges().left_out.store(true, Ordering::Relaxed);
    }
}

impl Drop for HeldRange {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.state.ranges().release(key);
        }
    }
}

/// A lock on a range, or a place in the queue for one: first come, first served. Dropping it releases it.
pub(crate) struct RangeLock {
    state: DeviceState,
    key: u64,
}

impl RangeLock {
    /// True if the range is locked. The waker is called when it may be.
    pub(crate) fn has_come(&self) -> bool {
        self.state.ranges().is_first(self.key)
    }

    pub(crate) fn state(&self) -> &DeviceState {
        &self.state
    }
}

impl Drop for RangeLock {
    fn drop(&mut self) {
        self.state.ranges().release(self.key);
    }
}

impl std::fmt::Debug for HeldRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldRange({:?})", self.key)
    }
}
