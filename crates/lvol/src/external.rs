//! Snapshots outside of a store: bdevs by their UUIDs.
//!
//! One that is missing when its clone is opened leaves the clone, and what reads through it, without bdevs. When a
//! bdev of that UUID comes they get theirs.

use std::sync::Arc;

use spindle_bdev::{Bdev, BlobDevice, ClaimKind, OpenOptions};
use spindle_blob::{ExternalSource, Parent};
use spindle_block::{Device, Gate};

use crate::identity::uuid_of;
use crate::lvol::LvolInner;
use crate::store::StoreInner;
use crate::{LvolError, Lvols, MODULE};

/// Opens a bdev as a snapshot that is only read; nobody writes to it from now on.
fn claim(bdev: &Bdev) -> Result<Arc<dyn Device>, LvolError> {
    let (options, kind) = (OpenOptions::new(), ClaimKind::ReadManyWriteNone);
    Ok(BlobDevice::claim(bdev, options, kind, "a clone of an external snapshot", MODULE)?)
}

impl Lvols {
    /// Finds bdevs for the Blobstores; called on the app thread.
    pub(crate) fn external_source(&self) -> ExternalSource {
        let registry = self.0.registry.clone();
        Arc::new(move |id| {
            let bdev = registry.get().ok()?.get(&uuid_of(id)?.to_string()).ok()?;
            claim(&bdev).ok()
        })
    }

    /// A bdev has come: clones that wait for it read it from now on.
    pub(crate) async fn plug_in(&self, bdev: &Bdev) {
        for store in self.stores() {
            if store.base() == bdev {
                continue;
            }
            store.0.ready.seen().await;
            let Ok(_counted) = store.0.begin() else { continue };
            let _named = store.0.names_bdevs().await;
            if let Err(error) = store.0.plug_in(bdev).await {
                self.report(bdev, &error);
            }
        }
    }
}

impl StoreInner {
    /// Volumes that miss the bdev read it from now on, and become bdevs where that was all they missed.
    async fn plug_in(self: &Arc<StoreInner>, bdev: &Bdev) -> Result<(), LvolError> {
        for lvol in self.volumes.reading(bdev.uuid()) {
            // One that another operation works on is being deleted, or gets another parent.
            let (Ok(_busy), Some(blob)) = (lvol.begin(), lvol.blob()) else { continue };
            let parent = lvol.blob_info(self).await?.parent;
            let reads = matches!(&parent, Some(Parent::External(id)) if uuid_of(id) == Some(bdev.uuid()));
            if reads && blob.external_device().is_none_or(|known| is_gone(&*known)) {
                let device = claim(bdev)?;
                blob.set_external_device(device).await.map_err(LvolError::blob(lvol.shown()))?;
                self.offer_with_clones(&lvol).await?;
            }
        }
        Ok(())
    }

    /// Offers a volume that missed something, and those that read through it.
    async fn offer_with_clones(self: &Arc<StoreInner>, first: &Arc<LvolInner>) -> Result<(), LvolError> {
        let mut next = vec![first.clone()];
        while let Some(lvol) = next.pop() {
            let clones = lvol.blob_info(self).await?.clones;
            next.extend(clones.into_iter().filter_map(|id| self.volumes.get(id)));
            // The first is held by the caller; a clone that is being worked on is being deleted.
            let busy = (!Arc::ptr_eq(&lvol, first)).then(|| lvol.begin());
            let held = !matches!(busy, Some(Err(_)));
            if held && lvol.bdev().is_none() && lvol.blob().is_some() {
                self.offer(&lvol).await?;
            }
        }
        Ok(())
    }
}

/// Whether the bdev that a clone read was removed.
fn is_gone(device: &dyn Device) -> bool {
    device.state().is_some_and(|lanes| lanes.gate() == Gate::Husk)
}
