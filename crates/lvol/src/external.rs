//! External snapshots: bdevs outside of a store, found by their UUIDs.
//!
//! If one is missing when its clone is opened, the clone and all volumes that read through it get no bdevs
//! until a bdev of that UUID appears. If one is removed while clones are open, the clones release it first:
//! reads of it end as removed until a bdev of that UUID appears.

use std::sync::Arc;

use spindle_bdev::{Bdev, BdevError, BlobDevice, ClaimType, Counter, DescOptions, Event, Uuid};
use spindle_blob::{ExternalSource, Parent};
use spindle_block::{Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, OpenError, Submit};

use crate::identity::uuid_of;
use crate::state::{LvolInner, StoreInner};
use crate::{LvolError, Lvols, MODULE};

impl Lvols {
    /// Finds bdevs for the Blobstores; called on the app thread.
    pub(crate) fn external_source(&self) -> ExternalSource {
        let lvols = Arc::downgrade(&self.0);
        Arc::new(move |id| {
            let lvols = Lvols(lvols.upgrade()?);
            let bdev = lvols.registry().ok()?.get(&uuid_of(id)?.to_string()).ok()?;
            lvols.claim_external(&bdev).inspect_err(|_| lvols.plug_in_later(&bdev)).ok()
        })
    }

    /// Opens a bdev as a read-only snapshot; writers are excluded from now on.
    fn claim_external(&self, bdev: &Bdev) -> Result<Arc<dyn Device>, BdevError> {
        let (open, uuid, lvols) = (Counter::default(), bdev.uuid(), Arc::downgrade(&self.0));
        let still_open = open.clone();
        let on_event = move |event| {
            let Event::Remove(grace) = event else { return };
            let (lvols, open) = (lvols.clone(), still_open.clone());
            // Called on the app thread, where the descriptor was opened.
            drop(spindle_reactor::spawn_local(async move {
                if let Some(lvols) = lvols.upgrade() {
                    Lvols(lvols).unplug(uuid).await;
                }
                open.none().await;
                drop(grace);
            }));
        };
        let options = DescOptions::new().on_event(on_event).counted(&open);
        let kind = ClaimType::ReadManyWriteNone;
        Ok(BlobDevice::claim(bdev, options, kind, "clones of an external snapshot", MODULE)?)
    }

    /// A bdev has appeared: clones that wait for it read it from now on.
    pub(crate) async fn plug_in(&self, bdev: &Bdev) {
        for store in self.stores() {
            if store.base() == bdev {
                continue;
            }
            store.0.ready.seen().await;
            let Ok(_counted) = store.0.begin() else { continue };
            let _named = store.0.names_bdevs().await;
            if let Err(error) = store.0.plug_in(self, bdev).await {
                self.report(bdev, &error);
            }
        }
    }

    /// The bdev of that UUID is being removed: clones that read it release it.
    async fn unplug(&self, uuid: Uuid) {
        for store in self.stores() {
            store.0.ready.seen().await;
            // A store that is being left closes its volumes, and with them their snapshots.
            let Ok(_counted) = store.0.begin() else { continue };
            for lvol in store.0.volumes.reading(uuid) {
                let Some(blob) = lvol.blob() else { continue };
                if lvol.reads(&store.0, uuid).await {
                    // Refused only if it has got another parent.
                    let _ = blob.set_external_device(self.0.missing.clone()).await;
                }
            }
        }
    }
}

impl LvolInner {
    /// True if the bdev of that UUID is its parent.
    async fn reads(&self, store: &StoreInner, uuid: Uuid) -> bool {
        let info = self.blob_info(store).await;
        info.is_ok_and(|info| matches!(&info.parent, Some(Parent::External(id)) if uuid_of(id) == Some(uuid)))
    }
}

impl StoreInner {
    /// Volumes that miss the bdev read it from now on, and get bdevs if nothing else is missing.
    async fn plug_in(self: &Arc<StoreInner>, lvols: &Lvols, bdev: &Bdev) -> Result<(), LvolError> {
        for lvol in self.volumes.reading(bdev.uuid()) {
            // A busy one is being deleted, or gets another parent.
            let (Ok(_busy), Some(blob)) = (lvol.begin(), lvol.blob()) else { continue };
            let misses = |known: Arc<dyn Device>| lvols.is_missing(&known);
            if lvol.reads(self, bdev.uuid()).await && blob.external_device().is_none_or(misses) {
                let device = match lvols.claim_external(bdev) {
                    Ok(device) => device,
                    Err(error) => {
                        lvol.external_snapshot_is_held(bdev, error);
                        lvols.plug_in_later(bdev);
                        continue;
                    }
                };
                blob.set_external_device(device).await.map_err(LvolError::blob(lvol.shown()))?;
                self.offer_with_clones(&lvol).await?;
            }
        }
        Ok(())
    }

    /// Registers the bdevs of a volume that missed something, and of those that read through it.
    async fn offer_with_clones(self: &Arc<StoreInner>, first: &Arc<LvolInner>) -> Result<(), LvolError> {
        let mut next = vec![first.clone()];
        while let Some(lvol) = next.pop() {
            let clones = lvol.blob_info(self).await?.clones;
            next.extend(clones.into_iter().filter_map(|id| self.volumes.get(id)));
            // The caller has marked the first one busy; a busy clone is being deleted.
            let busy = (!Arc::ptr_eq(&lvol, first)).then(|| lvol.begin());
            let held = !matches!(busy, Some(Err(_)));
            if held && lvol.bdev().is_none() && lvol.blob().is_some() {
                self.offer_or_wait(&lvol).await?;
            }
        }
        Ok(())
    }
}

/// The placeholder for a bdev that was removed while clones read it: of any size, and every read fails.
pub(crate) struct Missing;

impl Device for Missing {
    fn name(&self) -> &str {
        "an external snapshot that was removed"
    }

    fn geometry(&self) -> Geometry {
        let blocks = i64::MAX as u64 / 512;
        Geometry::new(512, blocks).expect("fewer bytes than 2^63").with_writable(false)
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(MissingLane))
    }
}

struct MissingLane;

impl Lane for MissingLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.done(io, Err(IoErrorKind::Removed));
        Submit::Taken
    }
}
