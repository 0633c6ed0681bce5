//! A volume, as its users see it.

use std::sync::Arc;

use spindle_bdev::{Bdev, Extent};

use crate::state::{LvolInner, StoreInner};
use crate::{Lvol, LvolError, LvolInfo, LvolStore, ShallowCopy};

/// A store and one of its volumes.
type Pair = (Arc<StoreInner>, Arc<LvolInner>);

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
