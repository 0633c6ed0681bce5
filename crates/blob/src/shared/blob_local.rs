//! A thread's data about a blob to which it does I/O. It never leaves the thread.
//!
//! Made when the first lane of the blob opens on the thread; the blob lists it until the last one closes. An
//! operation that changes the blob's map waits, on every thread, for the requests counted here, and rings the
//! bell of lanes that wait for a thaw or for a flush of another thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Wake, Waker};

use spindle_block::Notifier;
use spindle_reactor::{Thread, WaitPlace};

use super::blob::BlobShared;
use super::epochs::Epochs;
use super::external::ExternalSnapshot;
use crate::error::BlobError;
use crate::waiting::{join_all, locked};

/// A thread's part of a blob.
pub(crate) struct BlobLocal {
    shared: Arc<BlobShared>,
    /// The requests that this thread has sent to clusters of the blob or of its parents.
    pub(crate) epochs: Epochs,
    /// Its lanes, by number.
    lanes: RefCell<BTreeMap<u64, Notifier>>,
    /// Polls its lanes, from any thread.
    waker: Waker,
    /// The waker's place among those that wait for the blob's thaw.
    thawing: WaitPlace,
    /// And among those that wait for flushes of the store.
    flushing: WaitPlace,
    /// External snapshots that will call the waker when they end, and its places there.
    externals: RefCell<Vec<(std::sync::Weak<ExternalSnapshot>, WaitPlace)>>,
    /// The reason of a recent failure, for requests whose status cannot carry it.
    failure: RefCell<Option<BlobError>>,
}

/// A thread's blobs; stored in the thread's extensions.
#[derive(Default)]
struct BlobLocals(RefCell<BTreeMap<usize, Weak<BlobLocal>>>);

impl BlobLocals {
    fn get(&self, key: usize) -> Option<Rc<BlobLocal>> {
        self.0.borrow().get(&key).and_then(Weak::upgrade)
    }
}

/// Identifies a blob while it is referenced.
fn key_of(blob: &Arc<BlobShared>) -> usize {
    Arc::as_ptr(blob) as usize
}

impl BlobLocal {
    /// This thread's part of a blob, made on first use. `None` outside a Spindle thread.
    pub(crate) fn of(blob: &Arc<BlobShared>) -> Option<Rc<BlobLocal>> {
        let thread = Thread::current()?;
        let locals = spindle_reactor::extension::<BlobLocals>();
        let key = key_of(blob);
        if let Some(local) = locals.get(key) {
            return Some(local);
        }
        // Before the first look-up: an operation that changes the map asks every listed thread.
        locked(&blob.threads).push(thread.clone());
        let local = Rc::new(BlobLocal {
            shared: blob.clone(),
            epochs: Epochs::default(),
            lanes: RefCell::default(),
            waker: Waker::from(Arc::new(Bell { thread, key })),
            thawing: blob.thawing().enter(),
            flushing: blob.store.flushing.ended.enter(),
            externals: RefCell::default(),
            failure: RefCell::default(),
        });
        locals.0.borrow_mut().insert(key, Rc::downgrade(&local));
        Some(local)
    }

    /// This thread's part of a blob, if it exists.
    pub(crate) fn known(blob: &Arc<BlobShared>) -> Option<Rc<BlobLocal>> {
        Thread::current()?;
        spindle_reactor::extension::<BlobLocals>().get(key_of(blob))
    }

    /// Adds a lane, which is polled when the [waker](Self::waker) is used; returns its number.
    pub(crate) fn add_lane(&self, lane: Notifier) -> u64 {
        let mut lanes = self.lanes.borrow_mut();
        let number = lanes.last_key_value().map_or(0, |(last, _)| last + 1);
        lanes.insert(number, lane);
        number
    }

    /// Removes a closing lane.
    pub(crate) fn remove_lane(&self, number: u64) {
        self.lanes.borrow_mut().remove(&number);
    }

    /// True if writes are kept out of the blob; then its lanes are polled when they are let in.
    pub(crate) fn is_frozen(&self) -> bool {
        let open = || (!self.shared.is_frozen()).then_some(());
        self.shared.thawing().poll(&self.thawing, &self.waker, open).is_none()
    }

    /// True if the first `begun` flushes of the store have ended; otherwise the lanes are polled when that may
    /// have changed.
    pub(crate) fn is_settled(&self, begun: u64) -> bool {
        let flushing = &self.shared.store.flushing;
        let settled = || flushing.is_settled(begun).then_some(());
        flushing.ended.poll(&self.flushing, &self.waker, settled).is_some()
    }

    /// Polls the lanes when no blob reads this snapshot any more.
    pub(crate) fn reads_external(&self, snapshot: &Arc<ExternalSnapshot>) {
        let mut known = self.externals.borrow_mut();
        known.retain(|(known, _)| known.strong_count() > 0);
        if !known.iter().any(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(snapshot))) {
            let place = snapshot.readers.enter();
            snapshot.readers.wait(&place, &self.waker);
            known.push((Arc::downgrade(snapshot), place));
        }
    }

    /// Stores why a request fails, for callers that report more than its status.
    pub(crate) fn note_failure(&self, error: &BlobError) {
        *self.failure.borrow_mut() = Some(error.clone());
    }

    /// The last stored failure.
    pub(crate) fn failure(&self) -> Option<BlobError> {
        self.failure.borrow().clone()
    }

    fn ring(&self) {
        // Copied: a lane that is polled may close.
        let lanes: Vec<Notifier> = self.lanes.borrow().values().cloned().collect();
        lanes.iter().for_each(Notifier::notify);
    }
}

impl Drop for BlobLocal {
    fn drop(&mut self) {
        self.shared.thawing().leave(&self.thawing);
        self.shared.store.flushing.ended.leave(&self.flushing);
        for (snapshot, place) in self.externals.take() {
            snapshot.upgrade().iter().for_each(|snapshot| snapshot.readers.leave(&place));
        }
        let key = key_of(&self.shared);
        if let Some(here) = Thread::current() {
            spindle_reactor::extension::<BlobLocals>().0.borrow_mut().remove(&key);
            let mut threads = locked(&self.shared.threads);
            if let Some(at) = threads.iter().position(|thread| thread.id() == here.id()) {
                drop(threads.swap_remove(at));
            }
        }
    }
}

/// The waker that polls the lanes of a blob on a thread.
struct Bell {
    thread: Thread,
    key: usize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let key = self.key;
        // A thread that is gone has no lanes.
        let _ = self.thread.send_msg(move || {
            let local = spindle_reactor::extension::<BlobLocals>().get(key);
            local.into_iter().for_each(|local| local.ring());
        });
    }
}

/// Waits until every request that any thread had sent to a cluster by the maps of these blobs has ended.
pub(crate) async fn quiesce(blobs: Vec<Arc<BlobShared>>) {
    let mut threads: BTreeMap<u64, (Thread, Vec<Arc<BlobShared>>)> = BTreeMap::new();
    for blob in blobs {
        for thread in locked(&blob.threads).iter() {
            let asked = threads.entry(thread.id()).or_insert_with(|| (thread.clone(), Vec::new()));
            asked.1.push(blob.clone());
        }
    }
    let here = Thread::current().map(|thread| thread.id());
    let asked = threads.into_iter().map(async |(id, (thread, blobs))| match Some(id) == here {
        true => quiesce_here(blobs).await,
        // A thread that has exited has no requests left.
        false => drop(thread.run(async move || quiesce_here(blobs).await).await),
    });
    join_all(asked).await;
}

async fn quiesce_here(blobs: Vec<Arc<BlobShared>>) {
    let known = blobs.iter().filter_map(BlobLocal::known);
    let waits: Vec<_> = known.map(|local| (local.epochs.turn(), local)).collect();
    for (epoch, local) in &waits {
        local.epochs.over(*epoch).await;
    }
}
