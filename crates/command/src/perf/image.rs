//! Stores of any size for loading, written page by page as a program would have left them.

use std::sync::Arc;

use spindle::block::{Channel, Device};
use spindle::format::init::{DeviceShape, InitOptions, MdPages, plan};
use spindle::format::{BlobId, BlobMetadata, ClusterIdx, Geometry, PageIdx, chain};
use spindle::mem::IoBuf;
use spindle::{Blobstore, LoadOptions};

use super::Failed;
use super::flight::{buffers, fly};
use super::medium::{BLOCK, Disk, Medium};

/// Bytes of a cluster.
const CLUSTER: u32 = 64 << 10;
/// Bytes of a write.
const CHUNK: usize = 1 << 20;

/// A store to make.
#[derive(Clone, Copy)]
pub struct Image {
    /// Metadata pages.
    pub pages: u32,
    /// Blobs, each with a name, one cluster and so one extent page.
    pub blobs: u32,
}

impl Image {
    /// Creates the store, not cleanly unloaded.
    ///
    /// # Errors
    /// The disk is not available or cannot be written.
    pub async fn make(self, medium: &Medium) -> Result<Disk, Failed> {
        let room = u64::from(self.blobs) * u64::from(CLUSTER) + u64::from(self.pages) * u64::from(BLOCK);
        let size = (room + room / 64 + (16 << 20)).next_multiple_of(CLUSTER.into());
        let disk = medium.disk(size).await?;
        let shape = DeviceShape { size, block_size: BLOCK, physical_block_size: BLOCK };
        let options = InitOptions {
            cluster_size: CLUSTER,
            md_pages: MdPages::Count(self.pages),
            ..InitOptions::default()
        };
        let plan = plan(&shape, &options)?;
        let channel = Channel::open(disk.device.clone())?;
        self.write_pages(&channel, &plan.geometry, medium.is_memory()).await?;
        let (written, _) = channel.write(0, IoBuf::copy_from(&plan.super_block.to_bytes())).await;
        written?;
        channel.flush().await?;
        channel.close().await;
        Ok(disk)
    }

    /// Writes the pages in order. Free ones of a fresh memory disk read zero as they are.
    async fn write_pages(self, channel: &Channel, geometry: &Geometry, sparse: bool) -> Result<(), Failed> {
        let per_chunk = CHUNK as u32 / BLOCK;
        let used = if sparse { self.blobs * 2 } else { self.pages };
        let base = geometry.page_offset(PageIdx(0));
        let mut first = 0;
        fly(u64::from(used.div_ceil(per_chunk)), &mut buffers(4, CHUNK), |_| {
            let pages = per_chunk.min(self.pages - first);
            let mut chunk = IoBuf::zeroed((pages * BLOCK) as usize);
            for (at, slot) in (first..first + pages).zip(chunk.chunks_mut(BLOCK as usize)) {
                if let Some(bytes) = self.page(at, geometry) {
                    slot.copy_from_slice(&bytes);
                }
            }
            let offset = base + u64::from(first) * u64::from(BLOCK);
            first += pages;
            channel.write(offset, chunk)
        })
        .await
    }

    /// A page: a blob's root, its extent page after it, and so on.
    fn page(self, at: u32, geometry: &Geometry) -> Option<[u8; BLOCK as usize]> {
        let (number, is_extent) = (at / 2, at % 2 == 1);
        if number >= self.blobs {
            return None;
        }
        let root = PageIdx(at - u32::from(is_extent));
        let id = BlobId::from_page(root);
        let cluster = geometry.metadata_clusters() + number;
        if is_extent {
            return Some(*chain::extent_page(id, 0, &[cluster]).bytes());
        }
        let mut blob = BlobMetadata::new_thin();
        // A short name always fits.
        let _ = blob.xattrs.set(b"name", format!("volume-{number}").as_bytes());
        blob.map.resize(1);
        blob.map.set(0, Some(ClusterIdx(cluster)));
        blob.map.set_extent_page(0, PageIdx(at + 1));
        let mut pages = chain::to_pages(id, &blob);
        chain::link(&mut pages, &[root]);
        pages.first().map(|page| *page.bytes())
    }
}

/// Loads a store that was not cleanly unloaded, and unloads it.
///
/// # Errors
/// It cannot be loaded or unloaded.
pub async fn clean(device: &Arc<dyn Device>) -> Result<(), Failed> {
    let store = Blobstore::load(device.clone(), LoadOptions::default()).await?;
    Ok(store.unload().await?)
}
