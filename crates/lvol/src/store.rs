//! A loaded lvolstore: its Blobstore, the bdev it stands on, and its volumes.
//!
//! What changes it runs on the app thread, counted, so that leaving it waits for what is under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spindle_bdev::{Bdev, Counted, Counter, Desc, Ending, Registry, Uuid};
use spindle_blob::{BlobId, Blobstore};

use crate::lvol::LvolInner;
use crate::module::Shared;
use crate::name::Name;
use crate::volumes::Volumes;
use crate::{Lvol, LvolError, LvolSpec, StoreInfo};

/// A loaded lvolstore. A handle: clones are the same store, for any thread. It keeps the store not loaded.
#[derive(Clone)]
pub struct LvolStore(pub(crate) Arc<StoreInner>);

pub(crate) struct StoreInner {
    pub(crate) lvols: Weak<Shared>,
    pub(crate) uuid: Uuid,
    name: Mutex<Name>,
    pub(crate) blobstore: Blobstore,
    pub(crate) super_blob: BlobId,
    pub(crate) base: Bdev,
    /// The opening and the claim of the base, until the store is left.
    pub(crate) base_desc: Mutex<Option<Desc>>,
    pub(crate) volumes: Volumes,
    /// What could not be taken in as a volume, and why.
    pub(crate) set_aside: Mutex<Vec<String>>,
    /// Operations under way.
    ops: Counter,
    pub(crate) closing: AtomicBool,
    /// Once all its volumes were opened.
    pub(crate) ready: Ending,
    /// Operations that give bdevs their aliases, which begin with the store's name.
    naming: Counter,
    /// Renames of the store: one at most.
    renaming: Counter,
    pub(crate) left: Ending,
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
            ready: Ending::default(),
            naming: Counter::default(),
            renaming: Counter::default(),
            left: Ending::default(),
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

    pub(crate) fn registry(&self) -> Result<Registry, LvolError> {
        let shared = self.lvols.upgrade().ok_or(LvolError::NotStarted)?;
        Ok(shared.registry.get()?)
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        self.blobstore.cluster_size().into()
    }

    /// An operation begins; the store is not left before it has ended.
    pub(crate) fn begin(&self) -> Result<Counted, LvolError> {
        let counted = self.ops.begin();
        match self.closing.load(Ordering::Acquire) {
            true => Err(self.gone()),
            false => Ok(counted),
        }
    }

    /// Has no operation begin any more, and waits for those under way. False if that was done before.
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
        LvolError::NoStore { store: format!("{:?} (it is being left)", self.name().as_str()) }
    }

    /// Runs an operation on the app thread, to its end whatever becomes of this future.
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

    /// An operation gives bdevs aliases; the store keeps its name until that has ended. On the app thread.
    pub(crate) async fn names_bdevs(&self) -> Counted {
        self.renaming.none().await;
        self.naming.begin()
    }

    /// Has the store's name to itself, unless somebody else has. On the app thread.
    pub(crate) async fn renames_itself(&self) -> Option<Counted> {
        if self.renaming.count() > 0 {
            return None;
        }
        let renaming = self.renaming.begin();
        self.naming.none().await;
        Some(renaming)
    }

    /// Notes down what could not be taken in.
    pub(crate) fn note(&self, what: String) {
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

    /// The bdev it stands on.
    pub fn base(&self) -> &Bdev {
        &self.0.base
    }

    /// Bytes of a cluster, of which volumes are made.
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

    /// Blobs that are no volumes one can use, and why: a name is missing, a name or UUID is another's.
    pub fn set_aside(&self) -> Vec<String> {
        locked(&self.0.set_aside).clone()
    }

    /// What is known of it.
    ///
    /// # Errors
    /// It was left.
    pub async fn info(&self) -> Result<StoreInfo, LvolError> {
        self.0.run(async |store| store.info().await).await
    }

    /// Makes a volume, and a bdev of it.
    ///
    /// # Errors
    /// The name is taken or no name; there is no room for a thick one, or for its metadata; a write fails.
    pub async fn create(&self, spec: LvolSpec) -> Result<Lvol, LvolError> {
        self.0.run(async move |store| store.create(spec).await).await
    }

    /// Makes a volume that reads a bdev outside of the store until it is written, and a bdev of it. Nobody writes to
    /// that bdev as long as the volume is open.
    ///
    /// # Errors
    /// The bdev is a volume of this store, or no whole number of clusters (`EINVAL`), or open for writing; the name is
    /// taken or no name; a write fails.
    pub async fn clone_bdev(&self, bdev: &Bdev, name: &str) -> Result<Lvol, LvolError> {
        let (bdev, name) = (bdev.clone(), Name::new("volume name", name)?);
        self.0.run(async move |store| store.clone_bdev(&bdev, name).await).await
    }

    /// Gives it another name, and its volumes the aliases that follow. The same name changes nothing.
    ///
    /// # Errors
    /// It is another store's name, or no name; an alias is another bdev's; a write fails.
    pub async fn rename(&self, name: &str) -> Result<(), LvolError> {
        let name = Name::new("lvolstore name", name)?;
        self.0.run(async move |store| store.rename(name).await).await
    }

    /// Takes over the space that its bdev has gained; looks first whether it has.
    ///
    /// # Errors
    /// The masks of the store have no room, or the bdev has shrunk (`ENOSPC`); a write fails.
    pub async fn grow(&self) -> Result<(), LvolError> {
        self.0.run(async |store| store.grow().await).await
    }

    /// Deletes all its volumes, clones before what they read through, and then the store. Those that have volumes
    /// open are told. If a volume cannot be deleted the store goes on with those that are left, and this can be
    /// asked for again.
    ///
    /// # Errors
    /// It is being left already; a write fails.
    pub async fn delete(&self) -> Result<(), LvolError> {
        let store = self.0.clone();
        self.0.registry()?.on_app(async move |_: Registry| store.delete_all().await).await
    }

    /// Leaves it in order, with all its volumes: it can be found again on its bdev, which others may use then. Those
    /// that have volumes open are told, and waited for as long as they ask for.
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

/// A lock that a panic elsewhere does not close: what it guards is whole between any two statements.
pub(crate) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
