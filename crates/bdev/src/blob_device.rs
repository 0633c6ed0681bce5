//! The device for a Blobstore on a bdev: the counterpart of `spdk_bdev_create_bs_dev_ext`.
//!
//! It keeps the bdev open and claimed while it is referenced, for example by the store.

use std::sync::Arc;

use spindle_block::{Claim, Device, DeviceState, Geometry, Lane, LaneCx, OpenError, Operation};

use crate::{Bdev, BdevError, ClaimType, Desc, DescOptions, Event, Registry};

/// A bdev that is open and claimed for a store.
pub struct BlobDevice {
    device: Arc<dyn Device>,
    desc: Desc,
}

impl BlobDevice {
    /// Opens the bdev of that name in the current runtime for a store that writes. Calls `on_event` on this
    /// thread when the bdev is removed or changes its size. Other writers are excluded from now on
    /// ([`ReadManyWriteOne`](ClaimType::ReadManyWriteOne)).
    ///
    /// # Errors
    /// As [`Bdev::open`]; another descriptor is open for writing.
    pub fn open(
        name: &str,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Arc<BlobDevice>, BdevError> {
        let bdev = Registry::current_for(name)?.get(name)?;
        let options = DescOptions::new().on_event(on_event);
        BlobDevice::claim(&bdev, options, ClaimType::ReadManyWriteOne, "a Blobstore", "")
    }

    /// Opens the bdev for a store that is only read, such as an external snapshot: writers are excluded from
    /// now on.
    ///
    /// # Errors
    /// As [`Bdev::open`]; a descriptor is open for writing.
    pub fn open_read_only(
        name: &str,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Arc<BlobDevice>, BdevError> {
        let bdev = Registry::current_for(name)?.get(name)?;
        let options = DescOptions::new().on_event(on_event);
        BlobDevice::claim(&bdev, options, ClaimType::ReadManyWriteNone, "a Blobstore that is read", "")
    }

    /// Opens and claims a bdev for a module.
    ///
    /// # Errors
    /// As [`Bdev::open`] and [`Desc::claim`].
    pub fn claim(
        bdev: &Bdev,
        options: DescOptions,
        kind: ClaimType,
        holder: &str,
        module: &'static str,
    ) -> Result<Arc<BlobDevice>, BdevError> {
        let desc = bdev.descriptor(options)?;
        desc.claim(kind, holder, module)?;
        Ok(Arc::new(BlobDevice { device: desc.device(), desc }))
    }

    /// The descriptor.
    pub fn desc(&self) -> &Desc {
        &self.desc
    }
}

impl Device for BlobDevice {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn state(&self) -> Option<&DeviceState> {
        self.device.state()
    }

    fn claim(&self) -> Option<&Claim> {
        self.device.claim()
    }

    fn supports(&self, operation: Operation) -> bool {
        self.device.supports(operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        self.device.clone().lane(cx)
    }
}
