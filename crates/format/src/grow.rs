//! Growing a store onto a device that has become larger.

use crate::geometry::{Geometry, mask_pages};
use crate::super_block::SuperBlock;

/// Why a store cannot grow.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrowError {
    /// The device is smaller than the store.
    #[error("the device has {device} bytes, fewer than the {store} of the store: it cannot grow")]
    Shrunk {
        /// Bytes of the device.
        device: u64,
        /// Bytes of the store.
        store: u64,
    },
    /// The cluster mask has no room for more.
    #[error(
        "the store can grow to {max} bytes at most, the device has {device}: more needs a new store with more metadata pages"
    )]
    NoRoom {
        /// Bytes of the device.
        device: u64,
        /// The most bytes the store can have.
        max: u64,
    },
}

/// The super block and geometry of the store on a device of `device_bytes` bytes; `None` if the store already
/// has the device's size. The super block is not clean: the masks on disk are those of the smaller store
/// until the next unload.
///
/// # Errors
/// The device has shrunk, or the space reserved for the cluster mask is too small.
pub fn plan(
    super_block: &SuperBlock,
    geometry: &Geometry,
    device_bytes: u64,
) -> Result<Option<(SuperBlock, Geometry)>, GrowError> {
    let unit = u64::from(geometry.io_unit_size());
    let size = device_bytes / unit * unit;
    let store = geometry.size();
    if size < store {
        return Err(GrowError::Shrunk { device: device_bytes, store });
    }
    if size == store {
        return Ok(None);
    }
    let no_room = GrowError::NoRoom { device: device_bytes, max: geometry.max_growable_size() };
    let Ok(clusters) = u32::try_from(size / u64::from(geometry.cluster_size())) else { return Err(no_room) };
    let pages = mask_pages(clusters, geometry.md_page_size());
    if pages > u64::from(geometry.cluster_mask_reserve()) {
        return Err(no_room);
    }
    let mut grown = SuperBlock { clean: false, size, ..super_block.clone() };
    grown.used_cluster_mask.len = pages as u32;
    let geometry = Geometry::from_super(&grown, device_bytes).map_err(|_| no_room)?;
    Ok(Some((grown, geometry)))
}
