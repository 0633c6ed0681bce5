//! Ranges of a device's blocks that an older change may still reach: one whose maker was dropped while a lane
//! held it.
//!
//! Newer changes of these blocks wait until the old one has ended, on any thread, so that an older write
//! never overwrites a newer acknowledged one. Each change of data reads one count; the lock of the list is
//! taken only while the count is not zero. Reads and flushes do not wait.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::DeviceState;
use crate::state::mailbox::{Body, Letter, Mailbox, locked};

/// The ranges of one device; part of its state.
#[derive(Default)]
pub(crate) struct Ranges {
    held: Arc<AtomicU32>,
    list: Mutex<List>,
    left_out: AtomicBool,
}

#[derive(Default)]
struct List {
    next: u64,
    ranges: Vec<Range>,
    waiting: Vec<Waiting>,
}

struct Range {
    key: u64,
    start: u64,
    end: u64,
}

/// A lane in front of which a request waits.
struct Waiting {
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
}

impl Ranges {
    /// The number of held ranges, read by each request.
    pub(crate) fn count(&self) -> &Arc<AtomicU32> {
        &self.held
    }

    fn hold(&self, start: u64, count: u64) -> Option<u64> {
        if self.left_out.load(Ordering::Relaxed) {
            return None;
        }
        let mut list = locked(&self.list);
        let key = list.next;
        list.next += 1;
        list.ranges.push(Range { key, start, end: start.saturating_add(count) });
        self.held.fetch_add(1, Ordering::Release);
        Some(key)
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
        let found = list.ranges.iter().any(|range| range.start < end && start < range.end);
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
        let waiting = std::mem::take(&mut list.waiting);
        self.held.fetch_sub(1, Ordering::Release);
        drop(list);
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

    /// Ranges that are held now.
    pub fn held_ranges(&self) -> usize {
        self.ranges().held.load(Ordering::Relaxed) as usize
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

impl std::fmt::Debug for HeldRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldRange({:?})", self.key)
    }
}
