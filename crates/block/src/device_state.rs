//! What the lanes of one device have in common: where they are, and the gate that requests pass into them.
//!
//! Owned by the device and reached from any thread; its lock is taken when a lane opens or closes and when
//! an event is sent, never for a request. An event reaches each lane as a message to its thread.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use spindle_reactor::Thread;

use crate::mailbox::{Letter, Mailbox, Obligation, locked};
use crate::{Delivered, Gate, LaneEvent};

/// Shared by a [`Device`](crate::Device) and its lanes on all threads. Clones are handles on the same state.
#[derive(Clone, Default)]
pub struct DeviceState(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// [`Frozen`] values that exist.
    freezes: u32,
    removed: bool,
    next: u64,
    lanes: BTreeMap<u64, LaneRef>,
}

/// Where a lane of the device is.
struct LaneRef {
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
}

impl Inner {
    fn gate(&self) -> Gate {
        match (self.removed, self.freezes) {
            (true, _) => Gate::Husk,
            (false, 0) => Gate::Open,
            (false, _) => Gate::Frozen,
        }
    }
}

impl DeviceState {
    /// The state of a device that has no lane and is open.
    pub fn new() -> DeviceState {
        DeviceState::default()
    }

    /// Whether requests pass into the lanes of the device.
    pub fn gate(&self) -> Gate {
        locked(&self.0).gate()
    }

    /// Lanes that are open, on all threads.
    pub fn lanes(&self) -> usize {
        locked(&self.0).lanes.len()
    }

    /// The threads that have a lane of the device. A table that is stepped by hand has none.
    pub fn threads(&self) -> Vec<Thread> {
        locked(&self.0).lanes.values().filter_map(|lane| lane.mailbox.thread().cloned()).collect()
    }

    /// Tells the lanes that the geometry has changed. To grow, change the geometry first and then say so; to
    /// shrink, [freeze](Self::freeze), change it, say so, thaw. The copies that channels and lanes above keep
    /// follow when this arrives.
    pub fn resized(&self) -> Delivered {
        self.tell(LaneEvent::Resized, |_| {})
    }

    /// Sends every lane an event of the module's own.
    pub fn send(&self, event: Arc<dyn Any + Send + Sync>) -> Delivered {
        self.tell(LaneEvent::Module(event), |_| {})
    }

    /// Keeps requests out of the lanes and waits until those that are in them have ended. Requests that come
    /// wait in order until the [`Frozen`] is dropped, which also happens when this future is dropped.
    /// Freezing twice needs thawing twice.
    pub async fn freeze(&self) -> Frozen {
        let quiet = self.tell(LaneEvent::Freeze, |inner| inner.freezes += 1);
        let frozen = Frozen(self.clone());
        quiet.await;
        frozen
    }

    /// Makes husks of the lanes, for good: what waits in front of them and what comes ends as
    /// [`Removed`](crate::IoErrorKind::Removed), and a lane that a thread opens later is one too. Resolves when
    /// every request that the lanes held has ended.
    pub fn remove(&self) -> Delivered {
        self.tell(LaneEvent::Removed, |inner| inner.removed = true)
    }

    /// Changes the state and sends the event to every lane that there is then.
    fn tell(&self, event: LaneEvent, change: impl FnOnce(&mut Inner)) -> Delivered {
        let (first, delivered) = Obligation::new();
        let mut to_ring = Vec::new();
        let mut inner = locked(&self.0);
        change(&mut inner);
        // Left under the lock, so that two events reach every lane in the same order.
        for LaneRef { mailbox, lane, generation } in inner.lanes.values() {
            let (event, obligation) = (event.clone(), first.clone());
            let letter = Letter { lane: *lane, generation: *generation, event, obligation };
            if mailbox.leave(letter) {
                to_ring.push(mailbox.clone());
            }
        }
        drop(inner);
        to_ring.iter().for_each(Mailbox::ring);
        delivered
    }

    /// A thread opens a lane.
    pub(crate) fn register(&self, mailbox: &Arc<Mailbox>, lane: u32, generation: u32) -> Registration {
        let mut inner = locked(&self.0);
        let key = inner.next;
        inner.next += 1;
        inner.lanes.insert(key, LaneRef { mailbox: mailbox.clone(), lane, generation });
        drop(inner);
        Registration { state: self.clone(), key }
    }
}

impl std::fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceState({:?}, {} lanes)", self.gate(), self.lanes())
    }
}

/// A device that is frozen while this exists.
#[must_use = "dropping this thaws the device"]
pub struct Frozen(DeviceState);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _arrives_by_itself = self.0.tell(LaneEvent::Thaw, |inner| inner.freezes -= 1);
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frozen({:?})", self.0)
    }
}

/// A lane's entry in the state of its device; removed when it is dropped.
pub(crate) struct Registration {
    state: DeviceState,
    key: u64,
}

impl Registration {
    pub(crate) fn gate(&self) -> Gate {
        self.state.gate()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        locked(&self.state.0).lanes.remove(&self.key);
    }
}
