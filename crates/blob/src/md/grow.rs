//! Takes over space that the device has gained.

use std::rc::Rc;
use std::sync::Arc;

use spindle_format::{Geometry, grow};

use super::metadata::Md;
use crate::error::BlobError;
use crate::map::can_tell;
use crate::waiting::locked;

impl Md {
    /// Grows a store in use to the present size of its device.
    pub(crate) async fn grow_live(self: &Rc<Md>) -> Result<(), BlobError> {
        let bytes = self.shared.device.bytes();
        let _guard = self.exclusive().await?;
        // Before any cluster there is given out: a channel keeps the size that it found when it was opened.
        if bytes != self.local.channel().geometry().bytes() {
            let members = locked(&self.shared.members).clone();
            for member in members {
                let store = self.shared.clone();
                let looked = member.thread.run(async move || {
                    store.device.known().iter().for_each(|local| local.channel().refresh());
                });
                // A thread that has exited writes nothing.
                let _ = looked.await;
            }
        }
        self.grow_to(bytes).await
    }

    /// Takes over the space of a device of `device_bytes` bytes.
    pub(crate) async fn grow_to(&self, device_bytes: u64) -> Result<(), BlobError> {
        self.check_allocation()?;
        let planned = grow::plan(&self.super_block.borrow(), &self.geometry.borrow(), device_bytes);
        let planned =
            planned.map_err(|source| BlobError::Grow { store: self.shared.name.clone(), source })?;
        let Some((super_block, geometry)) = planned else { return Ok(()) };
        check_clusters(&self.shared.name, &geometry)?;
        // The masks on disk are those of the smaller store: mark it dirty before it grows.
        self.mark_dirty().await?;
        let clusters = geometry.total_clusters();
        self.change_super_block(|_| super_block).await?;
        *self.geometry.borrow_mut() = geometry;
        self.space.borrow_mut().grow(clusters);
        self.space_changed();
        Ok(())
    }
}

/// An error if there are too many clusters for the maps in memory.
pub(super) fn check_clusters(store: &Arc<str>, geometry: &Geometry) -> Result<(), BlobError> {
    match geometry.total_clusters() {
        clusters if can_tell(clusters) => Ok(()),
        clusters => Err(BlobError::TooManyClusters { store: store.clone(), clusters }),
    }
}
