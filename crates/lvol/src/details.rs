//! The volume-specific part of `bdev_get_bdevs`.

use std::sync::atomic::Ordering;

use spindle_bdev::Detail;
use spindle_blob::Parent;

use crate::info::external_id;
use crate::state::LvolInner;

impl LvolInner {
    /// `driver_specific`, in SPDK's order; empty once the volume is being removed.
    pub(crate) async fn driver_specific(&self) -> Detail {
        let Ok(store) = self.loaded() else { return Detail::none() };
        let Ok(info) = self.blob_info(&store).await else { return Detail::none() };
        let name_of = |id| store.volumes.get(id).map(|lvol| Detail::Text(lvol.name().to_string()));
        let is_snapshot = self.snapshot.load(Ordering::Acquire) || !info.clones.is_empty();
        let is_clone = matches!(info.parent, Some(Parent::Snapshot(_)));
        let mut shown = vec![
            ("lvol_store_uuid", store.uuid.to_string().into()),
            ("base_bdev", store.base.name().into()),
            ("thin_provision", info.thin.into()),
            ("num_allocated_clusters", info.allocated.into()),
            ("snapshot", is_snapshot.into()),
            ("clone", is_clone.into()),
        ];
        if let Some(Parent::Snapshot(parent)) = info.parent
            && let Some(name) = name_of(parent)
        {
            shown.push(("base_snapshot", name));
        }
        let clones: Vec<Detail> = info.clones.iter().filter_map(|&id| name_of(id)).collect();
        if !clones.is_empty() {
            shown.push(("clones", Detail::List(clones)));
        }
        match &info.parent {
            Some(Parent::External(id)) => {
                shown.push(("esnap_clone", true.into()));
                shown.push(("external_snapshot_name", external_id(id).into()));
            }
            _ => shown.push(("esnap_clone", false.into())),
        }
        Detail::Object(vec![("lvol", Detail::Object(shown))])
    }
}
