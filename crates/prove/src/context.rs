//! What the tasks of one simulated run share: the store, its open blobs, and the history with the model that
//! follows it. All of it is used on one OS thread; the locks only tell the compiler so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use spindle_blob::ordering::Order;
use spindle_blob::{Blob, BlobError, Blobstore, ExternalSource, StoreOptions};
use spindle_engine::sim::{Disk, Moment, State};

use crate::external;
use crate::failing::{Failures, is_device};
use crate::growing::Growing;
use crate::model::Model;
use crate::op::{Event, Op, Outcome, Tag};
use crate::profile::Profile;
use crate::seen::{Seen, Wrong};
use crate::units::Time;

/// A moment at which the disk may crash: before a write, an unmap or a flush takes effect.
#[derive(Clone)]
pub struct Point {
    /// Events of the history that lie before it.
    pub events: usize,
    /// The disk.
    pub state: State,
    /// What was about to be done.
    pub moment: Moment,
}

/// What happened, and where the disk may have crashed.
#[derive(Default)]
pub struct History {
    /// What happened.
    pub events: Vec<Event>,
    /// Where the disk may crash.
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
    /// The run's profile.
    pub profile: Profile,
    /// Which ordering points the store keeps.
    pub order: Order,
    /// The device, the same for every load.
    pub device: Arc<Growing>,
    /// Finds external snapshots.
    pub external: ExternalSource,
    inner: Mutex<Inner>,
    store: Mutex<Option<Blobstore>>,
    handles: Mutex<BTreeMap<Tag, Blob>>,
    /// The disk, if it is one that fails.
    failing: OnceLock<Disk>,
    /// Whether the store was loaded while it may have failed.
    reloaded: AtomicBool,
    stopped: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed: what panics here is the store, and that is reported.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// A run that begins with this model.
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

    /// What holds for the store while it is open.
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions { order: self.order, external: Some(self.external.clone()) }
    }

    /// Looks at the model as it is now.
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

    /// An operation begins; the number of the event names it.
    pub fn begin(&self, op: &Op) -> Time {
        self.record(Event::Begin(op.clone()))
    }

    /// The operation that began at that event has ended.
    pub fn end(&self, begun: Time, outcome: Outcome) {
        self.record(Event::End(begun, outcome));
    }

    /// Everything was read, and this is what it is.
    pub fn found(&self, seen: Option<Seen>) {
        self.record(Event::Found(seen.map(Box::new)));
    }

    /// The disk may crash here.
    pub fn point(&self, moment: Moment, state: &State) {
        let mut inner = locked(&self.inner);
        let events = inner.history.events.len();
        inner.history.points.push(Point { events, state: state.clone(), moment });
    }

    /// Something is wrong.
    pub fn wrong(&self, what: String) {
        let mut inner = locked(&self.inner);
        // A store that is broken breaks everything that follows.
        if inner.wrong.len() < 20 {
            inner.wrong.push(what);
        }
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// From here on the disk may fail.
    pub fn set_failing(&self, disk: Disk) {
        let _ = self.failing.set(disk);
    }

    /// Whether the disk may fail.
    pub fn is_failing(&self) -> bool {
        self.failing.get().is_some()
    }

    /// The store is loaded again: what cannot be read then is set aside.
    pub fn reloading(&self) {
        self.reloaded.store(true, Ordering::SeqCst);
    }

    /// Whether this is an error of a device that fails, and has.
    pub fn is_device_failure(&self, error: &BlobError) -> bool {
        let failed = self.failing.get().is_some_and(|disk| disk.counters().faults > 0);
        failed && is_device(error, self.reloaded.load(Ordering::SeqCst))
    }

    /// Whether the device has failed something, whether or not anybody was told: what a failed flush lost can
    /// still be read, so that only a crash tells what there is.
    pub fn has_failed(&self) -> bool {
        self.failing.get().is_some_and(|disk| disk.counters().faults > 0)
            || locked(&self.inner).failures.have_arrived()
    }

    /// Says how an operation ended that began at that event; an error that should not have come is wrong.
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

    /// Whether the tasks are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The store, while it is loaded.
    pub fn store(&self) -> Option<Blobstore> {
        locked(&self.store).clone()
    }

    /// The store was loaded or left.
    pub fn set_store(&self, store: Option<Blobstore>) {
        *locked(&self.store) = store;
    }

    /// An open blob.
    pub fn handle(&self, tag: Tag) -> Option<Blob> {
        locked(&self.handles).get(&tag).cloned()
    }

    /// The blobs that are open.
    pub fn open_tags(&self) -> Vec<Tag> {
        locked(&self.handles).keys().copied().collect()
    }

    /// A blob was opened.
    pub fn put_handle(&self, tag: Tag, blob: Blob) {
        locked(&self.handles).insert(tag, blob);
    }

    /// Nobody is to begin anything with this blob any more.
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

    /// Whether an error is what comes of others that leave the store, or delete the blob, at the same time.
    pub fn is_of_others(&self, tag: Tag, error: &BlobError) -> bool {
        match error {
            BlobError::Unloaded { .. } => true,
            BlobError::NoSuchBlob { .. } | BlobError::Busy { .. } => {
                self.model(|model| model.may_be_absent(tag))
            }
            _ => false,
        }
    }

    /// What came of the run.
    pub fn take(&self) -> (History, Wrong) {
        let mut inner = locked(&self.inner);
        let history = std::mem::take(&mut inner.history);
        (history, std::mem::take(&mut inner.wrong))
    }
}

/// Errors that come of what the workload asks for, not of the store.
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
            | BlobError::Closed { .. }
            | BlobError::NoSuchBlob { .. }
            | BlobError::NoSuchXattr { .. }
            | BlobError::Unloaded { .. }
            | BlobError::BlobsOpen { .. }
            | BlobError::Grow { .. }
    )
}
