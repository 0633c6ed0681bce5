//! Deletes volumes and stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use spindle_blob::{BlobId, Parent};

use crate::lvol::LvolInner;
use crate::store::StoreInner;
use crate::{LvolError, Lvols};

impl StoreInner {
    /// Deletes a volume: its bdev first, then its blob. If that is refused the bdev is registered again.
    pub(crate) async fn delete_lvol(self: &Arc<StoreInner>, lvol: &Arc<LvolInner>) -> Result<(), LvolError> {
        let begun = lvol.begin();
        lvol.opened()?;
        let clones = lvol.blob_info(self).await?.clones.len();
        if clones > 1 {
            // Also while another operation works on it, as in SPDK.
            return Err(LvolError::HasClones { lvol: lvol.shown(), clones });
        }
        let _busy = begun?;
        let name = lvol.name();
        lvol.close(self).await?;
        let deleted = self.blobstore.delete_blob(lvol.id).await;
        self.volumes.remove(lvol);
        let _named = self.names_bdevs().await;
        if deleted.is_err() && self.volumes.take(&name) {
            // Best effort: this may fail for the same reason, and then the next load finds the blob.
            match self.open_as(lvol.id, &name, lvol.uuid, false).await {
                Ok(lvol) => {
                    let _busy = lvol.begin()?;
                    self.offer_or_wait(&lvol).await?;
                }
                Err(_) => self.volumes.free(&name),
            }
        }
        deleted.map_err(LvolError::blob(lvol.shown()))
    }

    /// Deletes all volumes and the store; on the app thread.
    pub(crate) async fn delete_all(self: &Arc<StoreInner>) -> Result<(), LvolError> {
        self.ready.seen().await;
        self.check_copying()?;
        if !self.close().await {
            return Err(self.gone());
        }
        let what = || format!("lvolstore {:?}", self.name().as_str());
        let lvols = self.volumes.all();
        for lvol in &lvols {
            if let Err(error) = lvol.close(self).await {
                return self.give_up(error).await;
            }
        }
        let ordered = match self.clones_first(&lvols).await {
            Ok(ordered) => ordered,
            Err(error) => return self.give_up(error).await,
        };
        for lvol in ordered {
            if let Err(error) = self.blobstore.delete_blob(lvol.id).await {
                return self.give_up(LvolError::blob(lvol.shown())(error)).await;
            }
            self.volumes.remove(&lvol);
        }
        if let Err(error) = self.blobstore.destroy().await {
            return self.give_up(LvolError::blob(what())(error)).await;
        }
        self.leave();
        Ok(())
    }

    /// The volumes in an order in which each has no clones left at its turn.
    async fn clones_first(&self, lvols: &[Arc<LvolInner>]) -> Result<Vec<Arc<LvolInner>>, LvolError> {
        let mut clones: BTreeMap<BlobId, usize> = BTreeMap::new();
        let mut parents: BTreeMap<BlobId, BlobId> = BTreeMap::new();
        for lvol in lvols {
            let info = lvol.blob_info(self).await?;
            clones.insert(lvol.id, info.clones.len());
            if let Some(Parent::Snapshot(parent)) = info.parent {
                parents.insert(lvol.id, parent);
            }
        }
        let by_id: BTreeMap<BlobId, &Arc<LvolInner>> = lvols.iter().map(|lvol| (lvol.id, lvol)).collect();
        let mut ready: Vec<BlobId> =
            clones.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        let mut ordered = Vec::new();
        while let Some(id) = ready.pop() {
            ordered.extend(by_id.get(&id).map(|lvol| (*lvol).clone()));
            let Some(parent) = parents.get(&id) else { continue };
            if let Some(count) = clones.get_mut(parent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(*parent);
                }
            }
        }
        Ok(ordered)
    }

    /// After a failed deletion of the store: unloads it, and loads what is still in it.
    async fn give_up(self: &Arc<StoreInner>, error: LvolError) -> Result<(), LvolError> {
        self.reopen();
        let _ = self.unload().await;
        if let Some(lvols) = self.lvols.upgrade().map(Lvols)
            && let Err(error) = lvols.load(&self.base).await
        {
            lvols.report(&self.base, &error);
        }
        Err(error)
    }
}
