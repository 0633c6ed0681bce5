//! Snapshots outside of a store: bdevs by their UUIDs.
//!
//! One that is missing when its clone is opened leaves the clone, and what reads through it, without bdevs. When a
//! bdev of that UUID comes they get theirs.

use std::sync::Arc;

use spindle_bdev::{Bdev, BlobDevice, ClaimKind, OpenOptions};
use spindle_blob::{ExternalSource, Parent};
use spindle_block::Device;

use crate::identity::uuid_of;
use crate::lvol::{Busy, LvolInner};
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
    async fn plug_in(self: &Arc<StoreInner>, bdev: &Bdev) -> Result<(), LvolError> {
        let waiting = self.volumes.all().into_iter().filter(|lvol| lvol.bdev().is_none());
        // One that another operation works on is being deleted.
        let waiting: Vec<(Arc<LvolInner>, Busy)> =
            waiting.filter_map(|lvol| lvol.begin().ok().map(|busy| (lvol, busy))).collect();
        let mut any = false;
        for (lvol, _) in &waiting {
            let parent = lvol.blob_info(self).await?.parent;
            let waits = matches!(&parent, Some(Parent::External(id)) if uuid_of(id) == Some(bdev.uuid()));
            if waits && let Some(blob) = lvol.blob() {
                let device = claim(bdev)?;
                blob.set_external_device(device).await.map_err(LvolError::blob(lvol.shown()))?;
                any = true;
            }
        }
        if any {
            // Those that read through the ones that waited have everything now, too.
            for (lvol, _) in &waiting {
                if lvol.blob().is_some() {
                    self.offer(lvol).await?;
                }
            }
        }
        Ok(())
    }
}
