//! Shared by the tasks of one simulated run: the store, its open blobs, and the history with the model that
//! follows it. Used on one OS thread only; the locks are there for the compiler.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use spindle_blob::ordering::Order;
use spindle_blob::{Blob, BlobError, Blobstore, ExternalSource, StoreOptions};
use spindle_block::{IoError, IoErrorKind};
use spindle_engine::sim::{Disk, Moment, State};

use crate::external;
use crate::failing::{Failures, is_device};
use crate::growing::Growing;
use crate::model::Model;
use crate::op::{Event, Op, Outcome, Tag};
use crate::profile::Profile;
use crate::seen::{Seen, Wrong};
use crate::units::Time;

/// A moment at which the disk may crash: just before a write, an unmap or a flush takes effect.
#[derive(Clone)]
pub struct Point {
    /// Number of events of the history before it.
    pub events: usize,
    /// The disk.
    pub state: State,
    /// The operation about to take effect.
    pub moment: Moment,
}

/// Events, and the points at which the disk may crash.
#[derive(Default)]
pub struct History {
    /// Events in order.
    pub events: Vec<Event>,
    /// Points at which the disk may crash.
    pub points: Vec<Point>,
}

struct Inner {
    model: Model,
    history: History,
    wrong: Wrong,
    failures: Failures,
}

/// Shared by the tasks of a run.
pub struct Context {
    /// The profile of the run.
    pub profile: Profile,
    /// The ordering points that the store keeps.
    pub order: Order,
    /// The device; all loads use the same.
    pub device: Arc<Growing>,
    /// Finds external snapshots.
    pub external: ExternalSource,
    inner: Mutex<Inner>,
    store: Mutex<Option<Blobstore>>,
    handles: Mutex<BTreeMap<Tag, Blob>>,
    /// The disk, if this run's disk may fail.
    failing: OnceLock<Disk>,
    /// True if the store was loaded again while the disk could fail.
    reloaded: AtomicBool,
    stopped: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves nothing half changed here. It comes from the store, and is reported.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// Creates a run that starts with this model.
    pub fn new(profile: Profile, order: Order, device: Arc<Growing>, model: Model) -> Arc<Context> {
        let inner =
            Inner { model, history: History::default(), wrong: Wrong::new(), failures: Failures::default() };
        Arc::new(Context {
            external: external::source(&profile),
            profile,
            order,
            device,
            inner: Mutex::new(inner),
            store: Mutex::default(),
            handles: Mutex::default(),
            failing: OnceLock::new(),
            reloaded: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    /// Returns the options for opening the store.
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions { order: self.order, external: Some(self.external.clone()) }
    }

    /// Passes the current model to `look`.
    pub fn model<R>(&self, look: impl FnOnce(&Model) -> R) -> R {
        look(&locked(&self.inner).model)
    }

    fn record(&self, event: Event) -> Time {
        let mut inner = locked(&self.inner);
        let begun = inner.model.time;
        inner.model.apply(&event);
        inner.history.events.push(event);
        let impossible = inner.model.take_impossible();
        drop(inner);
        impossible.into_iter().for_each(|what| self.wrong(what));
        begun
    }

    /// Records that an operation begins. Returns the number of the event, which names the operation.
    pub fn begin(&self, op: &Op) -> Time {
        self.record(Event::Begin(op.clone()))
    }

    /// Records the end of the operation that began at that event.
    pub fn end(&self, begun: Time, outcome: Outcome) {
        self.record(Event::End(begun, outcome));
    }

    /// Records that the whole store was read, and its contents.
    pub fn found(&self, seen: Option<Seen>) {
        self.record(Event::Found(seen.map(Box::new)));
    }

    /// Records a point at which the disk may crash.
    pub fn point(&self, moment: Moment, state: &State) {
        let mut inner = locked(&self.inner);
        let events = inner.history.events.len();
        inner.history.points.push(Point { events, state: state.clone(), moment });
    }

    /// Records an error of the store.
    pub fn wrong(&self, what: String) {
        let mut inner = locked(&self.inner);
        // A broken store breaks everything that follows.
        if inner.wrong.len() < 20 {
            inner.wrong.push(what);
        }
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Marks the disk as one that may fail from here on.
    pub fn set_failing(&self, disk: Disk) {
        let _ = self.failing.set(disk);
    }

    /// True if the disk may fail.
    pub fn is_failing(&self) -> bool {
        self.failing.get().is_some()
    }

    /// Notes that the store is loaded again: a load sets aside what it cannot read.
    pub fn reloading(&self) {
        self.reloaded.store(true, Ordering::SeqCst);
    }

    /// True if this error comes from a failing device that has failed an operation.
    pub fn is_device_failure(&self, error: &BlobError) -> bool {
        let failed = self.failing.get().is_some_and(|disk| disk.counters().faults > 0);
        failed && is_device(error, self.reloaded.load(Ordering::SeqCst))
    }

    /// True if the device has failed an operation, reported or not: data that a failed flush lost can still
    /// be read, so only a crash shows what is on the disk.
    pub fn has_failed(&self) -> bool {
        self.failing.get().is_some_and(|disk| disk.counters().faults > 0)
            || locked(&self.inner).failures.have_arrived()
    }

    /// Records the result of the operation that began at that event. An unexpected error counts as wrong.
    pub fn ended<T>(&self, begun: Time, op: &Op, result: Result<T, BlobError>) -> Option<T> {
        match result {
            Ok(value) => {
                let accepted = locked(&self.inner).failures.accepted(begun, op);
                match accepted {
                    Ok(undone) => undone.into_iter().for_each(|one| self.end(one, Outcome::Refused)),
                    Err(wrong) => self.wrong(wrong),
                }
                Some(value)
            }
            Err(error) if self.is_device_failure(&error) => {
                let now = self.model(|model| model.time);
                let outcome = locked(&self.inner).failures.failed(begun, now, op, &error);
                outcome.into_iter().for_each(|outcome| self.end(begun, outcome));
                None
            }
            Err(error) => {
                if !is_expected(&error) {
                    self.wrong(format!("{op:?} failed: {error}"));
                }
                self.end(begun, Outcome::Refused);
                None
            }
        }
    }

    /// Tells the tasks to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// True if the tasks must end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The store, while it is loaded.
    pub fn store(&self) -> Option<Blobstore> {
        locked(&self.store).clone()
    }

    /// Sets the store after a load, or clears it before an unload.
    pub fn set_store(&self, store: Option<Blobstore>) {
        *locked(&self.store) = store;
    }

    /// Returns an open blob.
    pub fn handle(&self, tag: Tag) -> Option<Blob> {
        locked(&self.handles).get(&tag).cloned()
    }

    /// Returns the tags of the open blobs.
    pub fn open_tags(&self) -> Vec<Tag> {
        locked(&self.handles).keys().copied().collect()
    }

    /// Adds an opened blob.
    pub fn put_handle(&self, tag: Tag, blob: Blob) {
        locked(&self.handles).insert(tag, blob);
    }

    /// Removes a blob from the open ones, so that no task begins another operation on it.
    pub fn take_handle(&self, tag: Tag) -> Option<Blob> {
        locked(&self.handles).remove(&tag)
    }

    /// Waits until no operation on data of this blob is under way.
    pub async fn idle(&self, tag: Tag) {
        let busy =
            |model: &Model| model.pending.values().any(|one| one.op.is_data() && one.op.blob() == Some(tag));
        while self.model(busy) {
            spindle_reactor::sleep(std::time::Duration::from_micros(5)).await;
        }
    }

    /// True if the error can come from another task that unloads the store or deletes the blob at the same
    /// time.
    pub fn is_of_others(&self, tag: Tag, error: &BlobError) -> bool {
        match error {
            BlobError::Unloaded { .. } => true,
            BlobError::NoSuchBlob { .. } | BlobError::Busy { .. } => {
                self.model(|model| model.may_be_absent(tag))
            }
            _ => false,
        }
    }

    /// Takes the history and the errors of the run.
    pub fn take(&self) -> (History, Wrong) {
        let mut inner = locked(&self.inner);
        let history = std::mem::take(&mut inner.history);
        (history, std::mem::take(&mut inner.wrong))
    }
}

/// True for errors that come from what the workload asks for, not from the store.
fn is_expected(error: &BlobError) -> bool {
    matches!(
        error,
        BlobError::OutOfSpace { .. }
            | BlobError::OutOfMetadata { .. }
            | BlobError::Busy { .. }
            | BlobError::Refused { .. }
            | BlobError::ReadOnly { .. }
            | BlobError::MetadataReadOnly { .. }
            | BlobError::OutOfRange { .. }
            // For a range that was cut off while the request waited, and is inside again.
            | BlobError::Io(IoError { kind: IoErrorKind::OutOfRange, .. })
            | BlobError::Closed { .. }
            | BlobError::NoSuchBlob { .. }
            | BlobError::NoSuchXattr { .. }
            | BlobError::Unloaded { .. }
            | BlobError::BlobsOpen { .. }
            | BlobError::Grow { .. }
    )
}
