//! The state of a loaded lvolstore: its Blobstore, its base bdev, and its volumes.
//!
//! Operations that change it run on the app thread, counted, so that leaving it waits for those under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use spindle_bdev::{Bdev, BdevError, Counted, Counter, Desc, Ending, Registry, Uuid};
use spindle_blob::{BlobId, Blobstore};
use spindle_reactor::{ReportLevel, report};

use super::locked::locked;
use super::shared::Shared;
use super::volumes::Volumes;
use crate::LvolError;
use crate::name::Name;

/// A loaded lvolstore. A handle: clones are the same store, for any thread. It does not keep the store
/// loaded.
#[derive(Clone)]
pub struct LvolStore(pub(crate) Arc<StoreInner>);

pub(crate) struct StoreInner {
    pub(crate) lvols: Weak<Shared>,
    pub(crate) uuid: Uuid,
    name: Mutex<Name>,
    pub(crate) blobstore: Blobstore,
    pub(crate) super_blob: BlobId,
    pub(crate) base: Bdev,
    /// The descriptor of the base bdev with its claim, until the store is left.
    pub(crate) base_desc: Mutex<Option<Desc>>,
    pub(crate) volumes: Volumes,
    /// Blobs that could not become volumes, and why.
    pub(crate) set_aside: Mutex<Vec<String>>,
    /// Operations under way.
    ops: Counter,
    pub(crate) closing: AtomicBool,
    /// Inflates, decouples and shallow copies under way, for people.
    pub(crate) copying: Mutex<Vec<Arc<str>>>,
    /// Set once all its volumes were opened.
    pub(crate) ready: Ending,
    /// Operations that set aliases of bdevs, which begin with the store's name.
    naming: Counter,
    /// Renames of the store: at most one.
    renaming: Counter,
    pub(crate) left: Ending,
    /// Set when its bdev has kept requests of the unload for too long.
    pub(crate) overdue: Ending,
}

impl StoreInner {
    pub(crate) fn new(
        lvols: &Arc<Shared>,
        (name, uuid): (Name, Uuid),
        (blobstore, super_blob): (Blobstore, BlobId),
        base_desc: Desc,
    ) -> Arc<StoreInner> {
        Arc::new(StoreInner {
            lvols: Arc::downgrade(lvols),
            uuid,
            name: Mutex::new(name),
            blobstore,
            super_blob,
            base: base_desc.bdev(),
            base_desc: Mutex::new(Some(base_desc)),
            volumes: Volumes::default(),
            set_aside: Mutex::default(),
            ops: Counter::default(),
            closing: AtomicBool::new(false),
            copying: Mutex::default(),
            ready: Ending::default(),
            naming: Counter::default(),
            renaming: Counter::default(),
            left: Ending::default(),
            overdue: Ending::default(),
        })
    }

    pub(crate) fn name(&self) -> Name {
        locked(&self.name).clone()
    }

    pub(crate) fn set_name(&self, name: Name) {
        *locked(&self.name) = name;
    }

    pub(crate) fn alias(&self, lvol: &Name) -> String {
        format!("{}/{lvol}", self.name())
    }

    /// An error if a bdev has that name already.
    pub(crate) fn check_alias(&self, alias: &str) -> Result<(), LvolError> {
        match self.registry()?.get(alias) {
            Ok(by) => Err(BdevError::Exists { name: alias.to_owned(), by: by.name().to_owned() }.into()),
            Err(_) => Ok(()),
        }
    }

    pub(crate) fn registry(&self) -> Result<Registry, LvolError> {
        let shared = self.lvols.upgrade().ok_or(LvolError::NotStarted)?;
        Ok(shared.registry.get()?)
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        self.blobstore.cluster_size().into()
    }

    /// Begins an operation; the store is not left before it has ended.
    pub(crate) fn begin(&self) -> Result<Counted, LvolError> {
        let counted = self.ops.begin();
        match self.closing.load(Ordering::Acquire) {
            true => Err(self.gone()),
            false => Ok(counted),
        }
    }

    /// Prevents new operations, and waits for those under way; those that copy end early. False if that was done before.
    pub(crate) async fn close(&self) -> bool {
        if self.closing.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.ops.none().await;
        true
    }

    /// Lets operations begin again.
    pub(crate) fn reopen(&self) {
        self.closing.store(false, Ordering::Release);
    }

    pub(crate) fn gone(&self) -> LvolError {
        LvolError::Leaving { store: self.name().to_string() }
    }

    /// Runs an operation on the app thread, to its end even if this future is dropped.
    pub(crate) async fn run<R, F>(self: &Arc<StoreInner>, operation: F) -> Result<R, LvolError>
    where
        F: AsyncFnOnce(Arc<StoreInner>) -> Result<R, LvolError> + Send + 'static,
        R: Send + 'static,
    {
        let store = self.clone();
        let there = async move |_registry: Registry| {
            store.ready.seen().await;
            let _counted = store.begin()?;
            operation(store.clone()).await
        };
        self.registry()?.on_app(there).await
    }

    /// Begins an operation that sets aliases; the store keeps its name until that has ended. On the app
    /// thread.
    pub(crate) async fn names_bdevs(&self) -> Counted {
        self.renaming.none().await;
        self.naming.begin()
    }

    /// Begins a rename, unless another one is under way. On the app thread.
    pub(crate) async fn renames_itself(&self) -> Option<Counted> {
        if self.renaming.count() > 0 {
            return None;
        }
        let renaming = self.renaming.begin();
        self.naming.none().await;
        Some(renaming)
    }

    /// Notes a blob that could not become a volume.
    pub(crate) fn note(&self, what: String) {
        report(ReportLevel::Warning, "vbdev_lvol", || {
            format!("lvolstore {:?}: {what}", self.name().as_str())
        });
        locked(&self.set_aside).push(what);
    }
}
