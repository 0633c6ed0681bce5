//! The device on which a Blobstore stands, made of a bdev: what `spdk_bdev_create_bs_dev_ext` makes.
//!
//! It keeps the bdev open and claimed as long as anything holds it, the store included.

use std::sync::Arc;

use spindle_block::{Claim, Device, DeviceState, Geometry, Lane, LaneCx, OpenError, Operation};

use crate::{Bdev, BdevError, ClaimKind, Desc, Event, OpenOptions, Registry};

/// A bdev that is open and claimed for a store.
pub struct BlobDevice {
    device: Arc<dyn Device>,
    desc: Desc,
}

impl BlobDevice {
    /// Opens the bdev of that name in the current runtime for a store that is written, and has `on_event` called on
    /// this thread when it is removed or changes its size. Nobody else writes to it from now on
    /// ([`ReadManyWriteOne`](ClaimKind::ReadManyWriteOne)).
    ///
    /// # Errors
    /// As [`Bdev::open`]; another has it open for writing.
    pub fn open(
        name: &str,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Arc<BlobDevice>, BdevError> {
        let bdev = Registry::current_for(name)?.get(name)?;
        let options = OpenOptions::new().on_event(on_event);
        BlobDevice::claim(&bdev, options, ClaimKind::ReadManyWriteOne, "a Blobstore", "")
    }

    /// Opens the bdev for a store that is only read, such as an external snapshot: nobody writes to it from now on.
    ///
    /// # Errors
    /// As [`Bdev::open`]; somebody has it open for writing.
    pub fn open_read_only(
        name: &str,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Arc<BlobDevice>, BdevError> {
        let bdev = Registry::current_for(name)?.get(name)?;
        let options = OpenOptions::new().on_event(on_event);
        BlobDevice::claim(&bdev, options, ClaimKind::ReadManyWriteNone, "a Blobstore that is read", "")
    }

    /// Opens and claims a bdev for a module.
    ///
    /// # Errors
    /// As [`Bdev::open`] and [`Desc::claim`].
    pub fn claim(
        bdev: &Bdev,
        options: OpenOptions,
        kind: ClaimKind,
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
