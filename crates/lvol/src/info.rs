//! Information about stores and volumes: the answers of `bdev_lvol_get_lvstores` and `bdev_lvol_get_lvols`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_bdev::Uuid;
use spindle_blob::{ClearMethod, Parent};

use crate::state::{LvolInner, StoreInner};
use crate::{LvolError, Lvols};

/// Properties of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The name of its base bdev.
    pub base_bdev: String,
    /// Clusters that can hold data.
    pub total_data_clusters: u64,
    /// Clusters that are free.
    pub free_clusters: u64,
    /// Bytes of free clusters that deletions have left and that are still to clear, in the background.
    pub clearing_bytes: u64,
    /// Why it refuses changes, and what to do; none while it takes them.
    pub refuses_changes: Option<String>,
    /// Bytes of the smallest I/O, the block size of its volumes.
    pub block_size: u32,
    /// Bytes of a cluster.
    pub cluster_size: u32,
    /// Size in bytes of the largest bdev to which it can grow.
    pub max_growable_size: u64,
}

/// Properties of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LvolInfo {
    /// `store/volume`.
    pub alias: String,
    /// The name of its bdev: its UUID as text.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// True if it takes space on first write.
    pub is_thin_provisioned: bool,
    /// True if clones read through it, or have since the store was loaded.
    pub is_snapshot: bool,
    /// True if it reads through a snapshot of its store.
    pub is_clone: bool,
    /// True if it reads through a bdev outside of its store.
    pub is_esnap_clone: bool,
    /// True if something that it reads through is missing; it has no bdev then.
    pub is_degraded: bool,
    /// True if it cannot be written.
    pub is_read_only: bool,
    /// Clusters that it owns.
    pub num_allocated_clusters: u64,
    /// How clusters that it gives back are cleared.
    pub clear_method: ClearMethod,
    /// The name of the snapshot that it reads through, or the id of its external snapshot.
    pub parent: Option<String>,
    /// The names of the clones that read through it.
    pub clones: Vec<String>,
    /// The name of its store.
    pub store: String,
    /// The UUID of its store.
    pub store_uuid: Uuid,
}

impl StoreInner {
    pub(crate) async fn info(&self) -> Result<StoreInfo, LvolError> {
        let name = self.name().to_string();
        let info = self.blobstore.info().await.map_err(LvolError::blob(format!("lvolstore {name:?}")))?;
        Ok(StoreInfo {
            uuid: self.uuid,
            name,
            base_bdev: self.base.name().to_owned(),
            total_data_clusters: info.data_clusters.into(),
            free_clusters: info.free_clusters.into(),
            clearing_bytes: info.clearing_bytes,
            refuses_changes: info.refuses_changes,
            block_size: info.io_unit_size,
            cluster_size: info.cluster_size,
            max_growable_size: info.max_growable_size,
        })
    }
}

impl LvolInner {
    pub(crate) async fn info(self: &Arc<LvolInner>, store: &StoreInner) -> Result<LvolInfo, LvolError> {
        self.opened()?;
        let info = self.blob_info(store).await?;
        let went = self.lost_its_end(store, info.parent.clone()).await;
        let name_of = |id| store.volumes.get(id).map(|lvol| lvol.name().to_string());
        let parent = match &info.parent {
            Some(Parent::Snapshot(id)) => name_of(*id),
            Some(Parent::External(id)) => Some(external_id(id)),
            None => None,
        };
        Ok(LvolInfo {
            alias: store.alias(&self.name()),
            uuid: self.unique_id.clone(),
            name: self.name().to_string(),
            size: info.clusters * store.cluster_size(),
            is_thin_provisioned: info.thin,
            is_snapshot: self.snapshot.load(Ordering::Acquire) || !info.clones.is_empty(),
            is_clone: matches!(info.parent, Some(Parent::Snapshot(_))),
            is_esnap_clone: matches!(info.parent, Some(Parent::External(_))),
            is_degraded: info.degraded || went,
            is_read_only: info.read_only,
            num_allocated_clusters: info.allocated,
            clear_method: info.clear_method,
            parent,
            clones: info.clones.into_iter().filter_map(name_of).collect(),
            store: store.name().to_string(),
            store_uuid: store.uuid,
        })
    }

    /// True if the chain of its parents ends in a bdev that was removed after the store was loaded: the store takes the
    /// device in its place for whole.
    async fn lost_its_end(self: &Arc<LvolInner>, store: &StoreInner, mut parent: Option<Parent>) -> bool {
        let Some(lvols) = store.lvols.upgrade().map(Lvols) else { return false };
        // In no chain: most stores need not be searched.
        if Arc::strong_count(&lvols.0.missing) == 1 {
            return false;
        }
        let mut last = self.clone();
        // Every chain ends; one that a damaged store leads back is cut where it was seen.
        let mut seen = BTreeSet::from([last.id]);
        while let Some(Parent::Snapshot(id)) = parent {
            let Some(next) = store.volumes.get(id).filter(|_| seen.insert(id)) else { return false };
            let Ok(info) = next.blob_info(store).await else { return false };
            (last, parent) = (next, info.parent);
        }
        let device = last.blob().and_then(|blob| blob.external_device());
        device.is_some_and(|device| lvols.is_missing(&device))
    }
}

/// The id of an external snapshot as text.
pub(crate) fn external_id(id: &[u8]) -> String {
    let end = id.iter().position(|&byte| byte == 0).unwrap_or(id.len());
    String::from_utf8_lossy(&id[..end]).into_owned()
}
