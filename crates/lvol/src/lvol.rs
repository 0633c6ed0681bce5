//! A volume: an open blob with a name and a UUID, and its bdev.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use spindle_bdev::{Bdev, BdevSpec, Disk, Extent, IoType, IoTypes, LocalFuture, Uuid, WeakBdev};
use spindle_blob::{Blob, BlobId, BlobInfo};
use spindle_block::Device;

use crate::name::Name;
use crate::store::{Pair, StoreInner, locked};
use crate::{LvolError, LvolInfo, LvolStore, MODULE, ShallowCopy};

/// A volume. A handle: clones are the same volume, for any thread.
#[derive(Clone)]
pub struct Lvol(pub(crate) Arc<LvolInner>);

pub(crate) struct LvolInner {
    pub(crate) store: Weak<StoreInner>,
    pub(crate) id: BlobId,
    pub(crate) uuid: Option<Uuid>,
    /// Its UUID as text, or what SPDK calls a volume without one.
    pub(crate) unique_id: String,
    device: Arc<dyn Device>,
    state: Mutex<State>,
    /// An operation works on it.
    busy: AtomicBool,
    /// A clone reads through it, or has since it was loaded.
    pub(crate) snapshot: AtomicBool,
}

struct State {
    name: Name,
    /// `None` once it was closed.
    blob: Option<Blob>,
    /// `None` while it is none: an external snapshot is missing, or it is going.
    bdev: Option<WeakBdev>,
}

/// An operation works on a volume until this is dropped.
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
            state: Mutex::new(State { name, blob: Some(blob), bdev: None }),
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

    /// The open blob.
    pub(crate) fn opened(&self) -> Result<Blob, LvolError> {
        self.blob().ok_or_else(|| LvolError::NoLvol { name: self.name().to_string() })
    }

    /// What people call it.
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

    /// An operation begins that must be the only one.
    pub(crate) fn begin(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            let why = "another operation works on it; ask again when that has ended".to_owned();
            return Err(LvolError::Busy { lvol: self.shown(), why });
        }
        Ok(Busy(self.clone()))
    }

    /// As [`begin`](Self::begin), of an operation that works on bdevs only.
    pub(crate) fn begin_on_bdev(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        let busy = self.begin()?;
        if self.bdev().is_none() {
            self.opened()?;
            return Err(LvolError::Degraded { lvol: self.shown() });
        }
        Ok(busy)
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
        locked(&self.state).bdev = Some(bdev.downgrade());
        Ok(())
    }

    /// Unregisters its bdev, if it has one, and closes its blob.
    pub(crate) async fn close(self: &Arc<LvolInner>, store: &StoreInner) -> Result<(), LvolError> {
        let bdev = self.bdev();
        locked(&self.state).bdev = None;
        if let Some(bdev) = bdev {
            // Refused if it is being removed already, which is waited for.
            let _ = store.registry()?.unregister(&bdev).await;
            bdev.removed().await;
        }
        self.close_blob().await
    }

    /// Closes the blob, for all who still have the device: their requests end as removed.
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
            // It was synced by every operation that changed it; a device that fails has said so then.
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

    /// Its bdev; none while its external snapshot is missing.
    pub fn bdev(&self) -> Option<Bdev> {
        self.0.bdev()
    }

    /// Its store.
    ///
    /// # Errors
    /// That was left.
    pub fn store(&self) -> Result<LvolStore, LvolError> {
        self.0.loaded().map(LvolStore)
    }

    /// What is known of it.
    ///
    /// # Errors
    /// It was deleted, or its store left.
    pub async fn info(&self) -> Result<LvolInfo, LvolError> {
        self.run(async |(store, lvol)| lvol.info(&store).await).await
    }

    /// Takes a snapshot: a read-only volume that holds what this one holds now. What was acknowledged before this
    /// was asked for is in it; what is asked for after this has answered is not.
    ///
    /// # Errors
    /// The name is taken or no name; the volume is read-only; another operation works on it; no metadata pages are
    /// left; a write fails.
    pub async fn snapshot(&self, name: &str) -> Result<Lvol, LvolError> {
        let name = Name::new("volume name", name)?;
        self.run(async move |(store, lvol)| store.snapshot(&lvol, name).await).await
    }

    /// Makes a clone of this read-only volume: one that can be written and holds the same until it is.
    ///
    /// # Errors
    /// The name is taken or no name; this volume can be written; no metadata pages are left; a write fails.
    pub async fn clone_as(&self, name: &str) -> Result<Lvol, LvolError> {
        let name = Name::new("volume name", name)?;
        self.run(async move |(store, lvol)| store.clone_of(&lvol, name).await).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// The name is taken, also by itself, or no name; the volume is read-only; a write fails. Nothing has changed
    /// then.
    pub async fn rename(&self, name: &str) -> Result<(), LvolError> {
        let name = Name::new("volume name", name)?;
        self.run(async move |(store, lvol)| lvol.rename(&store, name).await).await
    }

    /// Changes its size in bytes, rounded up to whole clusters. What is added reads zero; what is cut off is gone.
    ///
    /// # Errors
    /// It is read-only (`EPERM`); it is to shrink and is open (`EBUSY`; nothing has changed then); no room
    /// (`ENOSPC`); a write fails.
    pub async fn resize(&self, bytes: u64) -> Result<(), LvolError> {
        self.run(async move |(store, lvol)| lvol.resize(&store, bytes).await).await
    }

    /// Makes it read-only, for good. Writes that are under way end first.
    ///
    /// # Errors
    /// Another operation works on it; a write fails.
    pub async fn set_read_only(&self) -> Result<(), LvolError> {
        self.run(async |(_, lvol)| lvol.set_read_only().await).await
    }

    /// Gives it clusters of its own for everything: it has no parent then, and is no longer thin.
    ///
    /// # Errors
    /// No room (`ENOSPC`; nothing was copied then); another operation works on it; a device fails.
    pub async fn inflate(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| lvol.inflate(&store).await).await
    }

    /// Gives it clusters of its own for what its parent has: its parent is its grandparent then, or none.
    ///
    /// # Errors
    /// It has no parent (`EINVAL`); no room (`ENOSPC`); another operation works on it; a device fails.
    pub async fn decouple_parent(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| lvol.decouple(&store).await).await
    }

    /// Has this thin volume read another snapshot of its store, of the same size, where it has nothing itself.
    ///
    /// # Errors
    /// It is not thin, or the parent is no snapshot, has another size, or reads through this volume (`EINVAL`); it is
    /// its parent already (`EEXIST`); another operation works on one of both (`EBUSY`); a write fails.
    pub async fn set_parent(&self, parent: &Lvol) -> Result<(), LvolError> {
        let parent = parent.0.clone();
        self.run(async move |(store, lvol)| lvol.set_parent(&store, &parent).await).await
    }

    /// Has this thin volume read a bdev outside of its store where it has nothing itself. Nobody writes to that bdev
    /// as long as the volume is open.
    ///
    /// # Errors
    /// It is not thin, or the bdev is no whole number of clusters or stands below (`EINVAL`); it is its parent already
    /// (`EEXIST`); the bdev is open for writing; a write fails.
    pub async fn set_parent_bdev(&self, parent: &Bdev) -> Result<(), LvolError> {
        let parent = parent.clone();
        self.run(async move |(store, lvol)| lvol.set_parent_bdev(&store, &parent).await).await
    }

    /// Starts to copy the clusters that this read-only volume has itself, not what it reads through others, to the
    /// same offsets of a bdev, which is claimed meanwhile.
    ///
    /// # Errors
    /// The bdev is claimed or open for writing. What else goes wrong the copy says at its end.
    pub async fn shallow_copy(&self, target: &Bdev) -> Result<ShallowCopy, LvolError> {
        let target = target.clone();
        self.run(async move |(store, lvol)| lvol.shallow_copy(&store, &target).await).await
    }

    /// Deletes it. Those that have it open are told, and waited for as long as they ask for. A snapshot with one
    /// clone leaves that what it reads.
    ///
    /// # Errors
    /// It has more than one clone (`EPERM`); another operation works on it or on its clone; a write fails. It is a
    /// bdev again then.
    pub async fn delete(&self) -> Result<(), LvolError> {
        self.run(async |(store, lvol)| store.delete_lvol(&lvol).await).await
    }

    /// What lies in `length` bytes from byte `offset` on: where it has data, whose, and where nobody wrote. At most
    /// `max` extents; where that is not enough they end before the range does. On any thread.
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
