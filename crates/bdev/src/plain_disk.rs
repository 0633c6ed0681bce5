//! A module's side of a bdev that has nothing beside its device: what is shown of it is the same for all its life.

use std::sync::Arc;

use spindle_block::Device;

use crate::{Bdev, Detail, Disk, LocalFuture, Recipe};

/// A device, what is shown of it, and the call that makes it again.
pub struct PlainDisk {
    device: Arc<dyn Device>,
    details: Detail,
    recipe: Option<Recipe>,
}

impl PlainDisk {
    /// A disk that shows nothing of its own and is in no saved configuration.
    pub fn new(device: Arc<dyn Device>) -> PlainDisk {
        PlainDisk { device, details: Detail::none(), recipe: None }
    }

    /// Shows these members under a name in `driver_specific` of `bdev_get_bdevs`.
    #[must_use]
    pub fn showing(self, name: &'static str, members: Vec<(&'static str, Detail)>) -> PlainDisk {
        PlainDisk { details: Detail::Object(vec![(name, Detail::Object(members))]), ..self }
    }

    /// Is saved as a call of this method: see [`Disk::recipe`].
    #[must_use]
    pub fn made_by(self, method: &'static str, params: Vec<(&'static str, Detail)>) -> PlainDisk {
        PlainDisk { recipe: Some(Recipe { method, params: Detail::Object(params) }), ..self }
    }
}

impl Disk for PlainDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        Box::pin(std::future::ready(self.details.clone()))
    }

    fn recipe(&self, _bdev: &Bdev) -> Option<Recipe> {
        self.recipe.clone()
    }
}
