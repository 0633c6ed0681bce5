//! A volume as a bdev, and why it has none.

use std::sync::Arc;

use spindle_bdev::{BdevError, BdevSpec, ClaimType, Disk, IoType, IoTypes, LocalFuture, Uuid};
use spindle_block::Device;

use crate::state::{Busy, Lacks, LvolInner, StoreInner, locked};
use crate::{LvolError, MODULE};

impl LvolInner {
    /// As [`begin`](Self::begin), for an operation that needs the volume to have a bdev.
    pub(crate) fn begin_on_bdev(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        self.check_bdev()?;
        self.begin()
    }

    /// An error if it has no bdev.
    pub(crate) fn check_bdev(&self) -> Result<(), LvolError> {
        if self.bdev().is_none() {
            self.opened()?;
            return Err(self.without_bdev());
        }
        Ok(())
    }

    /// The error for what needs its bdev while it has none.
    pub(crate) fn without_bdev(&self) -> LvolError {
        let lvol = self.shown();
        match self.lacks() {
            Some(Lacks::Name { name, by }) => LvolError::NameTaken { lvol, name, by },
            Some(Lacks::ExternalSnapshot(external)) => {
                LvolError::Degraded { lvol, external: Some(external), held: self.holds_back(external) }
            }
            None => LvolError::Degraded { lvol, external: None, held: None },
        }
    }

    /// Why the bdev of that UUID cannot be read through, if it is there.
    fn holds_back(&self, external: Uuid) -> Option<BdevError> {
        let registry = self.store.upgrade()?.registry().ok()?;
        let bdev = registry.get(&external.to_string()).ok()?;
        bdev.check_claim(ClaimType::ReadManyWriteNone).err()
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
        let mut state = locked(&self.state);
        state.bdev = Some(bdev.downgrade());
        state.lacks = None;
        Ok(())
    }

    /// Unregisters its bdev, if it has one, and closes its blob.
    pub(crate) async fn close(self: &Arc<LvolInner>, store: &StoreInner) -> Result<(), LvolError> {
        let bdev = self.bdev();
        locked(&self.state).bdev = None;
        if let Some(bdev) = bdev {
            // Refused if it is being removed already, for which this waits.
            let _ = store.registry()?.unregister(&bdev).await;
            bdev.removed().await;
        }
        self.close_blob().await
    }

    /// Closes the blob for all users that still have the device: their requests end as removed.
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

    fn numa_id(&self) -> Option<i32> {
        self.store.upgrade()?.base.numa_id()
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
            // Every operation that changed it has synced it; a failing device was reported then.
            let _ = self.close_blob().await;
        })
    }
}
