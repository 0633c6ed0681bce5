//! A volume: an open blob with a name and a UUID, and its bdev.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use spindle_bdev::{Bdev, BdevSpec, Disk, Extent, IoType, IoTypes, LocalFuture, Uuid, WeakBdev};
use spindle_blob::{Blob, BlobId, BlobInfo};
use spindle_block::Device;

use crate::name::Name;
use crate::offer::Lacks;
use crate::store::{Pair, StoreInner, locked};
use crate::{LvolError, LvolInfo, LvolStore, MODULE, ShallowCopy};

/// A volume. A handle: clones are the same volume, for any thread.
#[derive(Clone)]
pub struct Lvol(pub(crate) Arc<LvolInner>);

pub(crate) struct LvolInner {
    pub(crate) store: Weak<StoreInner>,
    pub(crate) id: BlobId,
    pub(crate) uuid: Option<Uuid>,
    /// Its UUID as text, or SPDK's id of a volume without one.
    pub(crate) unique_id: String,
    device: Arc<dyn Device>,
    state: Mutex<State>,
    /// Set while an operation works on it.
    busy: AtomicBool,
    /// Set if a clone reads through it, or has since it was loaded.
    pub(crate) snapshot: AtomicBool,
}

struct State {
    name: Name,
    /// `None` once closed.
    blob: Option<Blob>,
    /// `None` while it has no bdev: an external snapshot is missing, or it is being removed.
    bdev: Option<WeakBdev>,
    /// Why it has no bdev, if it was to get one.
    lacks: Option<Lacks>,
}

/// Marks a volume as busy until this is dropped.
pub(crate) struct Busy(Arc<LvolInner>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl LvolInner {
    pub(crate) fn new(
        store: &Arc<StoreInner>,
        blob: Blob,
        name: Name,
        uuid: Option<Uuid>,
        snapshot: bool,
    ) -> Arc<LvolInner> {
        let id = blob.id();
        let unique_id = match uuid {
            Some(uuid) => uuid.to_string(),
            None => format!("{}_{}", store.uuid, id.raw()),
        };
        Arc::new(LvolInner {
            store: Arc::downgrade(store),
            id,
            uuid,
            unique_id,
            device: blob.device(),
            state: Mutex::new(State { name, blob: Some(blob), bdev: None, lacks: None }),
            busy: AtomicBool::new(false),
            snapshot: AtomicBool::new(snapshot),
        })
    }

    pub(crate) fn name(&self) -> Name {
        locked(&self.state).name.clone()
    }

    pub(crate) fn set_name(&self, name: Name) {
        locked(&self.state).name = name;
    }

    pub(crate) fn blob(&self) -> Option<Blob> {
        locked(&self.state).blob.clone()
    }

    pub(crate) fn bdev(&self) -> Option<Bdev> {
        locked(&self.state).bdev.as_ref().and_then(WeakBdev::upgrade)
    }

    pub(crate) fn lacks(&self) -> Option<Lacks> {
        locked(&self.state).lacks.clone()
    }

    pub(crate) fn set_lacks(&self, lacks: Option<Lacks>) {
        locked(&self.state).lacks = lacks;
    }

    /// The open blob.
    pub(crate) fn opened(&self) -> Result<Blob, LvolError> {
        self.blob().ok_or_else(|| LvolError::NoLvol { name: self.name().to_string() })
    }

    /// Its name for messages.
    pub(crate) fn shown(&self) -> String {
        match self.store.upgrade() {
            Some(store) => store.alias(&self.name()),
            None => self.name().to_string(),
        }
    }

    /// Its store.
    pub(crate) fn loaded(&self) -> Result<Arc<StoreInner>, LvolError> {
        self.store.upgrade().ok_or_else(|| LvolError::NoLvol { name: self.name().to_string() })
    }

    /// Begins an exclusive operation.
    pub(crate) fn begin(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            let why = "another operation works on it; ask again when that has ended".to_owned();
            return Err(LvolError::Busy { lvol: self.shown(), why });
        }
        Ok(Busy(self.clone()))
    }

    /// As [`begin`](Self::begin), for an operation that needs the volume to have a bdev.
    pub(crate) fn begin_on_bdev(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        self.check_bdev()?;
        self.begin()
    }

    /// An error if it has no bdev.
    pub(crate) fn check_bdev(&self) -> Result<(), LvolError> {
        if self.bdev().is_none() {
            self.opened()?;
            return Err(self.without_bdev());
        }
        Ok(())
    }

    pub(crate) async fn blob_info(&self, store: &StoreInner) -> Result<BlobInfo, LvolError> {
        store.blobstore.blob_info(self.id).await.map_err(LvolError::blob(self.shown()))
    }

    /// Registers its bdev.
    pub(crate) async fn register(self: &Arc<LvolInner>, store: &StoreInner) -> Result<(), LvolError> {
        let spec = BdevSpec {
            name: self.unique_id.clone(),
            aliases: vec![store.alias(&self.name())],
            uuid: self.uuid,
            product_name: "Logical Volume",
            module: MODULE,
            disk: self.clone(),
        };
        let bdev = store.registry()?.register(spec).await?;
        let mut state = locked(&self.state);
        state.bdev = Some(bdev.downgrade());
        state.lacks = None;
        Ok(())
    }

    /// Unregisters its bdev, if it has one, and closes its blob.
    pub(crate) async fn close(self: &Arc<LvolInner>, store: &StoreInner) -> Result<(), LvolError> {
        let bdev = self.bdev();
        locked(&self.state).bdev = None;
        if let Some(bdev) = bdev {
            // Refused if it is being removed already, for which this waits.
            let _ = store.registry()?.unregister(&bdev).await;
            bdev.removed().await;
        }
        self.close_blob().await
    }

    /// Closes the blob for all users that still have the device: their requests end as removed.
    async fn close_blob(&self) -> Result<(), LvolError> {
        let blob = locked(&self.state).blob.take();
        match blob {
            Some(blob) => blob.close().await.map_err(LvolError::blob(self.shown())),
            None => Ok(()),
        }
    }
}

impl Disk for LvolInner {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn num_blocks(&self) -> u64 {
        self.blob().map_or(0, |blob| blob.size() >> self.device.geometry().block_shift())
    }

    fn numa_id(&self) -> Option<i32> {
        self.store.upgrade()?.base.numa_id()
    }

    fn io_types(&self) -> IoTypes {
        let of_blob = IoTypes::of_device(&*self.device);
        of_blob.with(IoType::SeekData, true).with(IoType::SeekHole, true)
    }

    fn details(&self) -> LocalFuture<'_, spindle_bdev::Detail> {
        Box::pin(self.driver_specific())
    }

    fn extents(self: Arc<Self>) -> Option<Arc<dyn spindle_bdev::Extents>> {
        Some(self)
    }

    fn destruct(&self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            locked(&self.state).bdev = None;
            // Every operation that changed it has synced it; a failing device was reported then.
            let _ = self.close_blob().await;
        })
    }
}

impl Lvol {
    /// Its name in its store.
    pub fn name(&self) -> String {
        self.0.name().as_str().to_owned()
    }

    /// The name of its bdev: its UUID as text.
    pub fn unique_id(&self) -> &str {
        &self.0.unique_id
    }

    /// `store/volume`.
    pub fn alias(&self) -> String {
        self.0.shown()
    }

    /// Its bdev; none while its external snapshot is missing, or another bdev has its name.
    pub fn bdev(&self) -> Option<Bdev> {
        self.0.bdev()
    }

    /// Why it has no bdev, if it has none.
    pub fn without_bdev(&self) -> Option<LvolError> {
        self.0.bdev().is_none().then(|| self.0.without_bdev())
    }

    /// Its store.
    ///
    /// # Errors
    /// The store was left.
    pub fn store(&self) -> Result<LvolStore, LvolError> {
        self.0.loaded().map(LvolStore)
    }

    /// Its properties.
    ///
    /// # Errors
    /// It was deleted, or its store left.
    pub async fn info(&self) -> Result<LvolInfo, LvolError> {
        self.run(async |(store, lvol)| lvol.info(&store).await).await
    }

    /// Takes a snapshot: a read-only volume with this one's present contents. Writes acknowledged before this
    /// call are in it; writes submitted after it has returned are not.
    ///
    /// # Errors
    /// The name is taken or invalid; the volume is read-only; another operation works on it; no metadata
    /// pages are left; a write fails.
    pub async fn snapshot(&self, name: &str) -> Result<Lvol, LvolError> {
        let name = name.to_owned();
        self.run(async move |(store, lvol)| store.snapshot(&lvol, &name).await).await
    }

    /// Makes a clone of this read-only volume: a writable one that initially has the same contents.
    ///
    /// # Errors
    /// The name is taken or invalid; this volume is writable; no metadata pages are left; a write fails.
    pub async fn clone_as(&self, name: &str) -> Result<Lvol, LvolError> {
        let name = name.to_owned();
        self.run(async move |(store, lvol)| store.clone_of(&lvol, &name).await).await
    }

    /// Renames it.
    ///
    /// # Errors
    /// The name is taken, by this volume too, or invalid; the volume is read-only; a write fails. Then nothing
    /// has changed.
    pub async fn rename(&self, name: &str) -> Result<(), LvolError> {
        let name = name.to_owned();
        self.run(async move |(store, lvol)| lvol.rename(&store, &name).await).await
    }

    /// Changes its size in bytes, rounded up to whole clusters. An added part reads zero; a removed part is
    /// lost.
    ///
    /// # Errors
    /// It is read-only (`EPERM`); it would shrink and is open (`EBUSY`; nothing has changed then); no room
    /// (`ENOSPC`); a write fails.
    pub async fn resize(&self, bytes: u64) -> Result<(), LvolError> {
        self.run(async move |(store, lvol)| lvol.resize(&store, bytes).await).await
    }

    /// Makes it read-only, permanently. Writes under way end first.
    ///
    /// # Errors
    /// Another operation works on it; a write fails.
    pub async fn set_read_only(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| lvol.set_read_only(&store).await).await
    }

    /// Allocates and fills all of its clusters: then it has no parent, and is no longer thin.
    ///
    /// # Errors
    /// No room (`ENOSPC`; nothing was copied then); another operation works on it; a device fails.
    pub async fn inflate(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| lvol.inflate(&store).await).await
    }

    /// Allocates and fills the clusters that it reads in its parent: then its grandparent, or none, is its parent.
    ///
    /// # Errors
    /// It has no parent (`EINVAL`); no room (`ENOSPC`); another operation works on it; a device fails.
    pub async fn decouple_parent(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| lvol.decouple(&store).await).await
    }

    /// Makes another snapshot of its store, of the same size, the parent of this thin volume.
    ///
    /// # Errors
    /// It is not thin, or the parent is no snapshot, has another size, or reads through this volume
    /// (`EINVAL`); it is its parent already (`EEXIST`); another operation works on one of them (`EBUSY`); a
    /// write fails.
    pub async fn set_parent(&self, parent: &Lvol) -> Result<(), LvolError> {
        let parent = parent.0.clone();
        self.run(async move |(store, lvol)| lvol.set_parent(&store, &parent).await).await
    }

    /// Makes a bdev outside of its store the parent of this thin volume. Writers of that bdev are excluded
    /// while the volume is open.
    ///
    /// # Errors
    /// It is not thin, or the bdev is not a whole number of clusters or is below this volume (`EINVAL`); it
    /// is its parent already (`EEXIST`); the bdev is open for writing; a write fails.
    pub async fn set_parent_bdev(&self, parent: &Bdev) -> Result<(), LvolError> {
        let parent = parent.clone();
        self.run(async move |(store, lvol)| lvol.set_parent_bdev(&store, &parent).await).await
    }

    /// Starts to copy the clusters that this read-only volume owns, not those of its parents, to the same
    /// offsets of a bdev, which is claimed meanwhile.
    ///
    /// # Errors
    /// The bdev is claimed or open for writing. Other errors are the copy's result.
    pub async fn shallow_copy(&self, target: &Bdev) -> Result<ShallowCopy, LvolError> {
        let target = target.clone();
        self.run(async move |(store, lvol)| lvol.shallow_copy(&store, &target).await).await
    }

    /// Deletes it. Its openers get an event, and the deletion waits for those that ask for it. If it is a
    /// snapshot with one clone, the clone takes over what it reads.
    ///
    /// # Errors
    /// It has more than one clone (`EPERM`); another operation works on it or on its clone; a write fails.
    /// Then it has its bdev again.
    pub async fn delete(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| store.delete_lvol(&lvol).await).await
    }

    /// The extents of `length` bytes from byte `offset` on: data with its owner, and unwritten ranges. At
    /// most `max`, which may end before the range does. On any thread.
    ///
    /// # Errors
    /// The range is not inside the volume, or the volume was closed.
    pub async fn extents(&self, offset: u64, length: u64, max: usize) -> Result<Vec<Extent>, LvolError> {
        self.0.look(offset, length, max).await
    }

    async fn run<R, F>(&self, operation: F) -> Result<R, LvolError>
    where
        F: AsyncFnOnce(Pair) -> Result<R, LvolError> + Send + 'static,
        R: Send + 'static,
    {
        let lvol = self.0.clone();
        self.0.loaded()?.run(async move |store| operation((store, lvol)).await).await
    }
}

impl PartialEq for Lvol {
    fn eq(&self, other: &Lvol) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Lvol {}

impl std::fmt::Debug for Lvol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lvol({})", self.0.shown())
    }
}
