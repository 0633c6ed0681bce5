//! A loaded lvolstore: its Blobstore, its base bdev, and its volumes.
//!
//! Operations that change it run on the app thread, counted, so that leaving it waits for those under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spindle_bdev::{Bdev, BdevError, Counted, Counter, Desc, Ending, Registry, Uuid};
use spindle_blob::{BlobId, Blobstore};
use spindle_reactor::{ReportLevel, report};

use crate::lvol::LvolInner;
use crate::module::Shared;
use crate::name::Name;
use crate::offer::Lacks;
use crate::volumes::Volumes;
use crate::{Lvol, LvolError, LvolSpec, StoreInfo};

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
    /// Inflates, decouples and shallow copies under way, for messages.
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

impl LvolStore {
    /// Its name now.
    pub fn name(&self) -> String {
        self.0.name().as_str().to_owned()
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    /// Its base bdev.
    pub fn base(&self) -> &Bdev {
        &self.0.base
    }

    /// Bytes of a cluster, the unit of volume sizes.
    pub fn cluster_size(&self) -> u32 {
        self.0.blobstore.cluster_size()
    }

    /// Its volumes, in the order of their blobs: those that could be opened when it was loaded, and those made
    /// since.
    pub fn lvols(&self) -> Vec<Lvol> {
        self.0.volumes.all().into_iter().filter(|lvol| lvol.blob().is_some()).map(Lvol).collect()
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn lvol(&self, name: &str) -> Result<Lvol, LvolError> {
        let missing = || LvolError::NoLvol { name: format!("{}/{name}", self.name()) };
        self.0.volumes.by_name(name).filter(|lvol| lvol.blob().is_some()).map(Lvol).ok_or_else(missing)
    }

    /// Blobs that are not usable volumes, and why: a name is missing, or is in use; the latter only while it is.
    pub fn set_aside(&self) -> Vec<String> {
        let unnamed = self.0.volumes.all().into_iter();
        let unnamed = unnamed.filter(|lvol| matches!(lvol.lacks(), Some(Lacks::Name { .. })));
        let mut all = locked(&self.0.set_aside).clone();
        all.extend(unnamed.map(|lvol| lvol.without_bdev().to_string()));
        all
    }

    /// Its properties.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn info(&self) -> Result<StoreInfo, LvolError> {
        self.0.run(async |store| store.info().await).await
    }

    /// Creates a volume and its bdev.
    ///
    /// # Errors
    /// The name is taken or invalid; there is no room for a thick one, or for its metadata; a write fails.
    pub async fn create(&self, spec: LvolSpec) -> Result<Lvol, LvolError> {
        self.0.run(async move |store| store.create(spec).await).await
    }

    /// Creates a volume that reads a bdev outside of the store until it is written, and its bdev. Writers of
    /// that bdev are excluded while the volume is open.
    ///
    /// # Errors
    /// The bdev is a volume of this store, or not a whole number of clusters (`EINVAL`), or open for writing;
    /// the name is taken or invalid; a write fails.
    pub async fn clone_bdev(&self, bdev: &Bdev, name: &str) -> Result<Lvol, LvolError> {
        let (bdev, name) = (bdev.clone(), name.to_owned());
        self.0.run(async move |store| store.clone_bdev(&bdev, &name).await).await
    }

    /// Renames it, and changes the aliases of its volumes. The same name changes nothing.
    ///
    /// # Errors
    /// It is another store's name, or invalid; an alias belongs to another bdev; a write fails.
    pub async fn rename(&self, name: &str) -> Result<(), LvolError> {
        let name = Name::new("lvolstore name", name)?;
        self.0.run(async move |store| store.rename(name).await).await
    }

    /// Takes over the space that its bdev has gained; first checks whether it has.
    ///
    /// # Errors
    /// The masks of the store have no room, or the bdev has shrunk (`ENOSPC`); a write fails.
    pub async fn grow(&self) -> Result<(), LvolError> {
        self.0.run(async |store| store.grow().await).await
    }

    /// Deletes all its volumes, clones before their parents, and then the store. Openers of the volumes get
    /// an event. If a volume cannot be deleted, the store keeps the remaining ones, and this can be called again.
    ///
    /// # Errors
    /// It is being left already; a volume is being inflated, decoupled or copied (`EBUSY`; nothing has changed then); a
    /// write fails.
    pub async fn delete(&self) -> Result<(), LvolError> {
        let store = self.0.clone();
        self.0.registry()?.on_app(async move |_: Registry| store.delete_all().await).await
    }

    /// Unloads it cleanly, with all its volumes: it can be found again on its bdev, which others may use
    /// then. Openers of the volumes get an event, and this waits for those that ask for it. Inflates, decouples and
    /// shallow copies end early ([`LvolError::Stopped`]).
    ///
    /// # Errors
    /// The bdev fails; the store is left all the same, and will be recovered.
    pub async fn unload(&self) -> Result<(), LvolError> {
        let store = self.0.clone();
        self.0.registry()?.on_app(async move |_: Registry| store.unload_loaded().await).await
    }
}

impl std::fmt::Debug for LvolStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LvolStore({:?} on {})", self.name(), self.0.base.name())
    }
}

/// A store and one of its volumes.
pub(crate) type Pair = (Arc<StoreInner>, Arc<LvolInner>);

/// Locks a mutex, ignoring poison: what it guards is whole between any two statements.
pub(crate) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
