//! The traits of a bdev module: [`Disk`] for each bdev, and [`Module`] for modules that make bdevs of what
//! they find on others.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use spindle_block::Device;

use crate::{Bdev, BdevError, Detail, Extents, IoTypes};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A module's side of one bdev.
pub trait Disk: Any + Send + Sync {
    /// The device that does the work; always the same.
    fn device(&self) -> Arc<dyn Device>;

    /// The supported requests: by default those of its device. Kinds that write are removed if the device is
    /// read-only.
    fn io_types(&self) -> IoTypes {
        IoTypes::of_device(&*self.device())
    }

    /// Number of blocks now; may be 0, which no device has.
    fn num_blocks(&self) -> u64 {
        self.device().geometry().blocks()
    }

    /// The memory node that it was made for, -1 for any. `None` is that of its base, if it has one: see
    /// [`Bdev::numa_id`].
    fn numa_id(&self) -> Option<i32> {
        None
    }

    /// Checks whether its base has grown, and grows with it. Called on the app thread.
    fn rescan<'a>(&'a self, bdev: &'a Bdev) -> LocalFuture<'a, Result<(), BdevError>> {
        let _ = bdev;
        Box::pin(std::future::ready(Ok(())))
    }

    /// The module's own information about it. Called on the app thread.
    fn details(&self) -> LocalFuture<'_, Detail> {
        Box::pin(std::future::ready(Detail::none()))
    }

    /// The method of the control plane that makes it again, with its parameters: its entry in a saved configuration.
    /// `None` for a bdev that comes back without a call, such as a partition of another one. Called on the app thread.
    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let _ = bdev;
        None
    }

    /// Its extents, if it can report them: for a disk with holes. Usually itself.
    fn extents(self: Arc<Self>) -> Option<Arc<dyn Extents>> {
        None
    }

    /// Called once the bdev is gone: it has no names and no requests. The module releases what it holds. On
    /// the app thread, once.
    fn destruct(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A call that makes a bdev again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The method.
    pub method: &'static str,
    /// Its parameters, an object.
    pub params: Detail,
}

/// A module that examines every bdev and may make other bdevs of the contents.
pub trait Module: Send + Sync + 'static {
    /// Its name, also used in its claims.
    fn name(&self) -> &'static str;

    /// Examines a registered bdev. Called on the app thread, once for each bdev, independent of the order in which
    /// modules and bdevs came; not for one claimed by another module. Other bdevs are examined concurrently.
    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()>;

    /// The registry shuts down. The module closes its descriptors on other bdevs; its own bdevs are
    /// unregistered afterwards, once nothing stands on them. Called on the app thread, modules in reverse
    /// order.
    fn shutdown(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
