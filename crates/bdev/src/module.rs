//! What a bdev module implements: [`Disk`] for each bdev, and [`Module`] where it makes bdevs of what it finds on
//! others.

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

    /// The requests that it supports: those of its device, as a rule. Writing kinds are taken out where the device
    /// cannot be written.
    fn io_types(&self) -> IoTypes {
        IoTypes::of_device(&*self.device())
    }

    /// How many blocks it has now; may be 0, which no device has.
    fn num_blocks(&self) -> u64 {
        self.device().geometry().blocks()
    }

    /// Looks whether what it stands on has grown, and grows with it. Called on the app thread.
    fn rescan<'a>(&'a self, bdev: &'a Bdev) -> LocalFuture<'a, Result<(), BdevError>> {
        let _ = bdev;
        Box::pin(std::future::ready(Ok(())))
    }

    /// What the module says of its own about it. Called on the app thread.
    fn details(&self) -> LocalFuture<'_, Detail> {
        Box::pin(std::future::ready(Detail::none()))
    }

    /// What tells where it holds what, if anything does: for a disk with holes. Itself, as a rule.
    fn extents(self: Arc<Self>) -> Option<Arc<dyn Extents>> {
        None
    }

    /// The bdev is gone: no name leads to it and no request is under way. The module gives up what it holds.
    /// Called on the app thread, once.
    fn destruct(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A module that looks at every bdev and may make others of what it finds there.
pub trait Module: Send + Sync + 'static {
    /// Its name: that of the claims it takes.
    fn name(&self) -> &'static str;

    /// A bdev was registered. Called on the app thread, once for each bdev, in whatever order modules and bdevs
    /// came; not for one that another module has claimed. Other bdevs are examined at the same time.
    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()>;

    /// The registry shuts down. The module closes what it has open on other bdevs; its own bdevs that nothing
    /// stands on any more are unregistered afterwards. Called on the app thread, modules in reverse order.
    fn shutdown(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
