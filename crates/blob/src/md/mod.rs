//! The metadata of a store, on its metadata thread.
//!
//! [`Md`] is owned by the thread that called init or load and never leaves it; handles on other threads send
//! their operations here. Operations that write a blob's chain take [`Md::lock`] one after the other. Threads
//! that write fill their new clusters themselves ([`crate::allocate`]) and send them here to be mapped
//! ([`commit`]).
//!
//! An operation that needs a blob's map to itself freezes the blob *before* it takes the lock, since an
//! allocation under way may need the lock to end. After every wait an operation checks again what it found
//! before: the store may have been left, the blob deleted, its clones or its parent changed.
//!
//! Not promised: anything after a write or flush of metadata has failed; then every change is refused until
//! the store is loaded again.

mod blobs;
mod clusters;
mod commit;
mod create;
mod disk;
mod flushes;
mod freeze;
mod grow;
mod info;
mod load;
mod parent;
mod persist;
mod read;
mod ready;
mod remove;
mod replace;
mod resize;
mod snapshot;
mod space;
mod turns;
mod unload;
mod unmap;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use spindle_block::Device;
use spindle_format::{Bitmap, BlobId, Geometry, PageIdx, SuperBlock};
use spindle_reactor::Poller;

use crate::error::BlobError;
use crate::local::Local;
use crate::low_space::Watches;
use crate::options::StoreOptions;
use crate::shared::StoreShared;
use crate::sync::{TaskGuard, TaskLock};

pub(crate) use blobs::BlobState;
pub(crate) use load::{Loaded, init, load};

/// The metadata of one store.
pub(crate) struct Md {
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) options: StoreOptions,
    /// This thread's access to the device.
    pub(crate) local: Rc<Local>,
    pub(crate) geometry: RefCell<Geometry>,
    pub(crate) super_block: RefCell<SuperBlock>,
    /// Free clusters and pages.
    pub(crate) space: RefCell<space::Space>,
    pub(crate) used_blob_ids: RefCell<Bitmap>,
    pub(crate) blobs: RefCell<BTreeMap<BlobId, Rc<BlobState>>>,
    /// Pages of blobs that something on disk named at the load and that were missing, or may be freed while
    /// their names stay. None becomes the root of a new blob, which would be mistaken for the named one.
    pub(crate) reserved_roots: BTreeSet<PageIdx>,
    /// Blobs named by damaged ones, which may read through them.
    pub(crate) named_by_damaged: BTreeSet<BlobId>,
    /// Unreadable blobs, and why.
    pub(crate) damaged: BTreeMap<BlobId, Arc<str>>,
    /// Metadata pages that the device could not read: their owners are unknown.
    pub(crate) unreadable: BTreeSet<PageIdx>,
    pub(crate) recovered: bool,
    /// Why nothing may be allocated or freed.
    pub(crate) blocked: Option<Arc<str>>,
    /// Repairs left for a writing load.
    repairs: Vec<spindle_format::repair::Repair>,
    /// True if the super block on disk says that the masks can be trusted.
    clean_on_disk: Cell<bool>,
    /// Held while the super block is changed and written.
    marking: TaskLock,
    /// Held while a chain is written.
    pub(crate) lock: TaskLock,
    /// Copies of pages that were rewritten in place, on devices that can tear a page.
    copies: RefCell<disk::Copies>,
    flushes: flushes::Flushes,
    /// Held while a blob's view for other threads is made.
    showing: TaskLock,
    /// Held while clusters are zeroed in the background.
    zeroing: TaskLock,
    /// True while that runs.
    refilling: Cell<bool>,
    /// How many zeroed clusters it keeps ready.
    ready_target: Cell<usize>,
    /// Number of times a write needed a new cluster.
    asked: Cell<u64>,
    /// Runs while there are zeroes written ahead, and gives them back when `asked` stands still.
    idle: RefCell<Option<Poller>>,
    /// Number of openings of blobs.
    pub(crate) open: Cell<usize>,
    /// Tasks that wait until the store has released its device.
    left: RefCell<Vec<Waker>>,
    /// Callers that want to know when space runs low.
    pub(crate) watches: Watches,
}

/// The stores whose metadata thread this is; stored in the thread's extensions.
#[derive(Default)]
struct Stores {
    loaded: RefCell<BTreeMap<usize, Rc<Md>>>,
    /// Stores that operations no longer find and that have not released their devices yet.
    leaving: RefCell<Vec<Rc<Md>>>,
}

impl Md {
    /// The metadata of a store whose metadata thread runs the caller.
    pub(crate) fn of(shared: &Arc<StoreShared>) -> Result<Rc<Md>, BlobError> {
        let stores = spindle_reactor::extension::<Stores>();
        let found = stores.loaded.borrow().get(&shared.device.key()).cloned();
        found.ok_or_else(|| shared.gone())
    }

    /// Waits until stores of this metadata thread have released a device that they are leaving.
    async fn abandoned_are_gone(device: &Arc<dyn Device>) {
        let stores = spindle_reactor::extension::<Stores>();
        loop {
            let is_on_it = |md: &&Rc<Md>| Arc::ptr_eq(md.shared.device.device(), device);
            let is_abandoned = |md: &&Rc<Md>| is_on_it(md) && md.shared.abandoned.load(Ordering::Acquire);
            let left = stores.leaving.borrow().iter().find(is_on_it).cloned();
            let found = left.or_else(|| stores.loaded.borrow().values().find(is_abandoned).cloned());
            let Some(md) = found else { return };
            let mut waits = false;
            poll_fn(|cx| match std::mem::replace(&mut waits, true) {
                true => Poll::Ready(()),
                false => {
                    md.left.borrow_mut().push(cx.waker().clone());
                    Poll::Pending
                }
            })
            .await;
        }
    }

    fn register(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.loaded.borrow_mut().insert(self.shared.device.key(), self.clone());
    }

    /// Hides the store from operations.
    fn forget(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.loaded.borrow_mut().remove(&self.shared.device.key());
        stores.leaving.borrow_mut().push(self.clone());
    }

    /// Notes that the store has released its device.
    fn has_left(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.leaving.borrow_mut().retain(|leaving| !Rc::ptr_eq(leaving, self));
        self.left.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for [`Md::lock`]. An error if metadata must not be changed by then: the store may have been left
    /// meanwhile.
    pub(crate) async fn exclusive(&self) -> Result<TaskGuard<'_>, BlobError> {
        let guard = self.lock.lock().await;
        self.check_writable()?;
        Ok(guard)
    }

    /// The same for an operation on a blob: an error also if the blob was deleted meanwhile.
    pub(crate) async fn exclusive_on(&self, blob: &Rc<BlobState>) -> Result<TaskGuard<'_>, BlobError> {
        let guard = self.exclusive().await?;
        match self.is_there(blob) {
            true => Ok(guard),
            false => Err(BlobError::NoSuchBlob { blob: blob.id }),
        }
    }

    /// True if a blob is still in the store; its id may have a new owner.
    pub(crate) fn is_there(&self, blob: &Rc<BlobState>) -> bool {
        self.blobs.borrow().get(&blob.id).is_some_and(|now| Rc::ptr_eq(now, blob))
    }

    /// An error if metadata must not be changed.
    pub(crate) fn check_writable(&self) -> Result<(), BlobError> {
        // Also for operations that began before: nothing may change behind the masks.
        if self.shared.is_unloaded() {
            return Err(self.shared.gone());
        }
        if self.shared.read_only {
            return Err(BlobError::StoreReadOnly { store: self.shared.name.clone() });
        }
        self.shared.check_poison()
    }

    /// An error if nothing may be allocated or freed.
    pub(crate) fn check_allocation(&self) -> Result<(), BlobError> {
        self.check_writable()?;
        match &self.blocked {
            Some(why) => {
                Err(BlobError::AllocationBlocked { store: self.shared.name.clone(), why: why.clone() })
            }
            None => Ok(()),
        }
    }

    /// Refuses all changes from now on: the contents of the disk are unknown.
    pub(crate) fn poison(&self, cause: &BlobError) {
        self.shared.poison(cause);
    }
}
