//! A loaded lvolstore, as its users see it.

use spindle_bdev::{Bdev, Registry, Uuid};

use crate::name::Name;
use crate::state::{Lacks, locked};
use crate::{Lvol, LvolError, LvolSpec, LvolStore, StoreInfo};

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
