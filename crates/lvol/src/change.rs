//! Changes of volumes and stores: names, sizes, parents.

use std::sync::Arc;

use spindle_bdev::Bdev;
use spindle_blob::{Blob, BlobError};

use crate::copying::Copying;
use crate::create::check_clusters;
use crate::identity::NAME;
use crate::lvol::LvolInner;
use crate::name::Name;
use crate::store::{StoreInner, locked};
use crate::{LvolError, Lvols};

/// Writes a name to a blob, durably; if that fails, the blob in memory has the old one.
async fn write_name(blob: &Blob, from: &Name, to: &Name) -> Result<(), BlobError> {
    blob.set_xattr(NAME, to.terminated()).await?;
    if let Err(error) = blob.sync().await {
        // The contents of the disk are then unknown, and the store refuses changes.
        let _ = blob.set_xattr(NAME, from.terminated()).await;
        return Err(error);
    }
    Ok(())
}

impl LvolInner {
    pub(crate) async fn rename(self: &Arc<LvolInner>, store: &StoreInner, to: &str) -> Result<(), LvolError> {
        let begun = self.begin();
        self.check_bdev()?;
        let _named = store.names_bdevs().await;
        let (blob, from) = (self.opened()?, self.name());
        // SPDK refuses a taken name first, then a read-only volume. It takes any other name.
        store.check_free(to)?;
        if self.blob_info(store).await?.read_only {
            return Err(LvolError::ReadOnly { lvol: self.shown(), what: "renamed" });
        }
        let to = Name::new("volume name", to)?;
        let _busy = begun?;
        if !store.volumes.take(&to) {
            return Err(LvolError::LvolExists { store: store.name().to_string(), name: to.to_string() });
        }
        let (before, after) = (store.alias(&from), store.alias(&to));
        let bdev = self.bdev();
        // The alias first: only this step can conflict with another bdev.
        let mut renamed =
            bdev.as_ref().map_or(Ok(()), |bdev| bdev.rename_alias(&before, &after).map_err(Into::into));
        if renamed.is_ok() {
            renamed = write_name(&blob, &from, &to).await.map_err(LvolError::blob(before.clone()));
            if renamed.is_err()
                && let Some(bdev) = &bdev
            {
                let _ = bdev.rename_alias(&after, &before);
            }
        }
        match renamed {
            Ok(()) => {
                store.volumes.renamed(self, &from, &to);
                self.set_name(to);
            }
            Err(_) => store.volumes.free(&to),
        }
        renamed
    }

    pub(crate) async fn resize(
        self: &Arc<LvolInner>,
        store: &StoreInner,
        bytes: u64,
    ) -> Result<(), LvolError> {
        let begun = self.begin();
        self.check_bdev()?;
        let (blob, info) = (self.opened()?, self.blob_info(store).await?);
        if info.read_only {
            return Err(LvolError::ReadOnly { lvol: self.shown(), what: "resized" });
        }
        let clusters = bytes.div_ceil(store.cluster_size());
        if clusters == info.clusters {
            // Also while another operation works on it, as in SPDK.
            return Ok(());
        }
        let _busy = begun?;
        check_clusters(&self.shown(), clusters, info.thin)?;
        let bdev = self.bdev();
        if clusters < info.clusters
            && let Some(bdev) = &bdev
        {
            self.may_shrink(bdev).await?;
        }
        blob.resize(clusters).await.map_err(LvolError::blob(self.shown()))?;
        if let Some(bdev) = &bdev {
            bdev.resized();
        }
        Ok(())
    }

    /// An error if the bdev is open. Waits for modules that still examine a new bdev, of which the caller cannot know.
    async fn may_shrink(&self, bdev: &Bdev) -> Result<(), LvolError> {
        bdev.examined().await;
        if bdev.descriptors() == 0 {
            return Ok(());
        }
        let why = format!("it is open for {} and cannot shrink; have it closed there first", bdev.holders());
        Err(LvolError::Busy { lvol: self.shown(), why })
    }

    pub(crate) async fn set_read_only(self: &Arc<LvolInner>, store: &StoreInner) -> Result<(), LvolError> {
        let begun = self.begin();
        self.check_bdev()?;
        if self.blob_info(store).await?.read_only {
            // Also while it is being copied, as in SPDK.
            return Ok(());
        }
        let _busy = begun?;
        self.opened()?.set_read_only().await.map_err(LvolError::blob(self.shown()))
    }

    pub(crate) async fn inflate(self: &Arc<LvolInner>, store: &Arc<StoreInner>) -> Result<(), LvolError> {
        let _busy = self.begin_on_bdev()?;
        let copying = store.begin_copying(format!("inflate of volume {:?}", self.shown()));
        let inflated = store.blobstore.inflate_while(self.id, copying.goes_on()).await;
        inflated.map_err(|error| self.not_detached(&copying, error))
    }

    pub(crate) async fn decouple(self: &Arc<LvolInner>, store: &Arc<StoreInner>) -> Result<(), LvolError> {
        let _busy = self.begin_on_bdev()?;
        let copying = store.begin_copying(format!("decouple of volume {:?}", self.shown()));
        if self.blob_info(store).await?.parent.is_none() {
            return Err(LvolError::NoParent { lvol: self.shown() });
        }
        let decoupled = store.blobstore.decouple_parent_while(self.id, copying.goes_on()).await;
        decoupled.map_err(|error| self.not_detached(&copying, error))
    }

    fn not_detached(&self, copying: &Copying, error: BlobError) -> LvolError {
        match error {
            BlobError::Stopped { .. } => {
                copying.stopped("what was copied stays with the volume, and the same call goes on from there")
            }
            error => LvolError::blob(self.shown())(error),
        }
    }
}

impl StoreInner {
    /// An error if a volume of the store has that name, or another bdev has the alias that it would give.
    fn check_free(&self, name: &str) -> Result<(), LvolError> {
        if self.volumes.by_name(name).is_some() {
            return Err(LvolError::LvolExists { store: self.name().to_string(), name: name.to_owned() });
        }
        self.check_alias(&format!("{}/{name}", self.name()))
    }

    pub(crate) async fn rename(self: &Arc<StoreInner>, to: Name) -> Result<(), LvolError> {
        let from = self.name();
        if to == from {
            return Ok(());
        }
        let lvols = self.lvols.upgrade().map(Lvols).ok_or(LvolError::NotStarted)?;
        let Some(_renaming) = self.renames_itself().await else {
            let why = "the store is being renamed already; ask again when that has ended".to_owned();
            return Err(LvolError::Busy { lvol: from.to_string(), why });
        };
        self.rename_all(&lvols, &self.name(), to).await
    }

    /// Renames the aliases first, then the disk; undoes everything if that fails.
    async fn rename_all(
        self: &Arc<StoreInner>,
        lvols: &Lvols,
        from: &Name,
        to: Name,
    ) -> Result<(), LvolError> {
        lvols.check_name(to.as_str(), Some(self))?;
        let all = self.volumes.all();
        self.set_name(to.clone());
        for (done, lvol) in all.iter().enumerate() {
            if let Err(error) = lvol.rename_alias(from, &to) {
                all[..done].iter().for_each(|lvol| _ = lvol.rename_alias(&to, from));
                self.set_name(from.clone());
                return Err(error);
            }
        }
        let written = self.write_own_name(from, &to).await;
        if written.is_err() {
            self.set_name(from.clone());
            all.iter().for_each(|lvol| _ = lvol.rename_alias(&to, from));
        }
        written.map_err(LvolError::blob(format!("lvolstore {:?}", from.as_str())))?;
        if let Some(desc) = &*locked(&self.base_desc) {
            desc.claimed_by(&format!("lvolstore {:?}", to.as_str()));
        }
        // Volumes whose names were taken have other names now.
        self.registry()?.look_again();
        Ok(())
    }

    async fn write_own_name(&self, from: &Name, to: &Name) -> Result<(), BlobError> {
        let blob = self.blobstore.open_blob(self.super_blob).await?;
        let written = write_name(&blob, from, to).await;
        let closed = blob.close().await;
        written.and(closed)
    }

    pub(crate) async fn grow(&self) -> Result<(), LvolError> {
        let what = || format!("lvolstore {:?}", self.name().as_str());
        self.base.disk().clone().rescan(&self.base).await?;
        self.blobstore.grow().await.map_err(LvolError::blob(what()))
    }
}

impl LvolInner {
    /// Updates the alias after a rename of the store.
    fn rename_alias(&self, from: &Name, to: &Name) -> Result<(), LvolError> {
        let (name, bdev) = (self.name(), self.bdev());
        let rename = |bdev: Bdev| bdev.rename_alias(&format!("{from}/{name}"), &format!("{to}/{name}"));
        Ok(bdev.map_or(Ok(()), rename)?)
    }
}
