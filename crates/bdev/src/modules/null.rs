//! `bdev_null_*`: disks that store nothing. Writes are discarded, reads give zeroes.

use std::any::Any;
use std::sync::Arc;

use spindle_block::{Device, Geometry, Null};
use uuid::Uuid;

use super::with_physical_block;
use crate::{Bdev, BdevError, BdevSpec, Detail, Disk, Recipe, Registry};

/// The module's name.
pub const MODULE: &str = "null";

/// Parameters of a null disk.
#[derive(Clone, Debug, Default)]
pub struct NullSpec {
    /// Its name.
    pub name: String,
    /// Its UUID; default: random.
    pub uuid: Option<Uuid>,
    /// Bytes of a block: 512, 1024, ... 65536.
    pub block_size: u32,
    /// Blocks.
    pub num_blocks: u64,
    /// The physical block size that the disk reports; 0 is one block.
    pub physical_block_size: u32,
    /// Reads leave the buffers as they are and cost nothing. For measuring: the buffers may hold data of other
    /// requests, so do not expose such a disk to users. No RPC makes one.
    pub leaves_buffers_alone: bool,
}

/// Makes a disk that stores nothing and registers it.
///
/// # Errors
/// An invalid size or block size (`EINVAL`), and as [`Registry::register`].
pub async fn create(registry: &Registry, spec: NullSpec) -> Result<Bdev, BdevError> {
    let what = || format!("null bdev {:?}", spec.name);
    let refused = |error: spindle_block::GeometryError| BdevError::argument(what(), error.to_string());
    let geometry = Geometry::new(spec.block_size, spec.num_blocks).map_err(refused)?;
    let (geometry, physical_block_size) =
        with_physical_block(geometry, spec.physical_block_size).map_err(refused)?;
    let geometry = geometry.with_unmap_reads_zero(true);
    let device = match spec.leaves_buffers_alone {
        true => Null::leaving_buffers_alone(spec.name.clone(), geometry),
        false => Null::new(spec.name.clone(), geometry),
    };
    let disk = Arc::new(NullDisk { device, physical_block_size });
    registry.register(BdevSpec::new(spec.name, "Null disk", MODULE, disk).with_uuid(spec.uuid)).await
}

/// Changes the size of a null disk, which must not become smaller.
///
/// # Errors
/// No bdev has that name (`ENODEV`); it is another module's, or the size is smaller or invalid (`EINVAL`), or smaller by
/// less than a MiB (`EBUSY`).
pub async fn resize(registry: &Registry, name: &str, num_blocks: u64) -> Result<(), BdevError> {
    let name = name.to_owned();
    let resize = async move |registry: Registry| {
        let bdev = registry.get(&name)?;
        let what = || format!("resize of bdev {name:?}");
        let Some(disk) = (&**bdev.disk() as &dyn Any).downcast_ref::<NullDisk>() else {
            let why = format!("it is a bdev of module {}; only null bdevs are resized so", bdev.module());
            return Err(BdevError::argument(what(), why));
        };
        let now = bdev.geometry().blocks();
        let mib = |blocks: u64| (u128::from(blocks) << bdev.geometry().block_shift()) >> 20;
        if num_blocks < now && mib(num_blocks) == mib(now) {
            // SPDK compares whole MiB, and refuses less than that because it has the bdev open itself.
            let why = format!("{num_blocks} blocks are fewer than the {now} it has; it only grows");
            return Err(BdevError::Busy { name: bdev.name().to_owned(), why });
        }
        if num_blocks < now {
            let why = format!("{num_blocks} blocks are fewer than the {now} it has; it only grows");
            return Err(BdevError::argument(what(), why));
        }
        let known = disk.device.resize(num_blocks);
        known.map_err(|error| BdevError::argument(what(), error.to_string()))?.await;
        if num_blocks > now {
            bdev.resized();
        }
        Ok(())
    };
    registry.on_app(resize).await
}

struct NullDisk {
    device: Arc<Null>,
    /// As reported.
    physical_block_size: u32,
}

impl Disk for NullDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let geometry = self.device.geometry();
        let params = vec![
            ("name", bdev.name().into()),
            ("num_blocks", geometry.blocks().into()),
            ("block_size", geometry.block_size().into()),
            ("physical_block_size", self.physical_block_size.into()),
            ("md_size", 0_u32.into()),
            ("dif_type", 0_u32.into()),
            ("dif_is_head_of_md", false.into()),
            ("dif_pi_format", 0_u32.into()),
            ("uuid", bdev.uuid().to_string().into()),
            ("preferred_write_granularity", 0_u32.into()),
            ("preferred_write_alignment", 0_u32.into()),
            ("optimal_write_size", 0_u32.into()),
            ("preferred_unmap_granularity", 0_u32.into()),
            ("preferred_unmap_alignment", 0_u32.into()),
        ];
        Some(Recipe { method: "bdev_null_create", params: Detail::Object(params) })
    }
}
