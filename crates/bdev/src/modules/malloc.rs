//! `bdev_malloc_*`: RAM disks. Contents are lost with the disk.

use std::sync::Arc;

use spindle_block::{Device, Geometry, Malloc};
use uuid::Uuid;

use super::with_physical_block;
use crate::error::errno;
use crate::{Bdev, BdevError, BdevSpec, Detail, Disk, Recipe, Registry};

/// The module's name.
pub const MODULE: &str = "malloc";

/// Parameters of a RAM disk.
#[derive(Clone, Debug, Default)]
pub struct MallocSpec {
    /// Its name; default: the next of `Malloc0`, `Malloc1`.
    pub name: Option<String>,
    /// Its UUID; default: random.
    pub uuid: Option<Uuid>,
    /// Bytes of a block: 512, 1024, ... 65536.
    pub block_size: u32,
    /// Blocks.
    pub num_blocks: u64,
    /// Blocks whose multiples a transfer should not cross; 0 for none.
    pub optimal_io_boundary: u32,
    /// The physical block size that the disk reports; 0 is one block.
    pub physical_block_size: u32,
    /// The memory node that is shown and saved, of this disk and of those on it; default: any. The memory is bound to
    /// none.
    pub numa_id: Option<u16>,
}

impl MallocSpec {
    /// A disk of `bytes` bytes, rounded up to blocks of 4096.
    pub fn of_bytes(name: impl Into<String>, bytes: u64) -> MallocSpec {
        let num_blocks = bytes.div_ceil(4096);
        MallocSpec { name: Some(name.into()), block_size: 4096, num_blocks, ..MallocSpec::default() }
    }
}

/// No crash leaves half a page written in memory, with any block size: a store on it needs no copies of its pages.
const LEAST_ATOMIC_UNIT: u32 = 4096;

/// Makes a RAM disk and registers it.
///
/// # Errors
/// An invalid size or block size (`EINVAL`), no room in the address space (`ENOMEM`), and as
/// [`Registry::register`].
pub async fn create(registry: &Registry, spec: MallocSpec) -> Result<Bdev, BdevError> {
    registry.on_app(async move |registry| create_here(&registry, spec).await).await
}

async fn create_here(registry: &Registry, spec: MallocSpec) -> Result<Bdev, BdevError> {
    let what = || format!("malloc bdev {:?}", spec.name.as_deref().unwrap_or("without a name"));
    let refused = |error: spindle_block::GeometryError| BdevError::argument(what(), error.to_string());
    let geometry = Geometry::new(spec.block_size, spec.num_blocks).map_err(refused)?;
    let (geometry, physical_block_size) =
        with_physical_block(geometry, spec.physical_block_size).map_err(refused)?;
    let atomic_unit = geometry.atomic_unit().max(LEAST_ATOMIC_UNIT);
    let geometry = geometry.with_atomic_unit(atomic_unit).map_err(refused)?;
    let geometry = geometry.with_boundary(spec.optimal_io_boundary).with_unmap_reads_zero(true);
    // A refused request uses up no number.
    let name = spec.name.clone().unwrap_or_else(|| registry.next_name("Malloc"));
    let made = Malloc::with_geometry(name.clone(), geometry);
    let device = made.map_err(|error| BdevError::Module {
        what: what(),
        why: format!("{} bytes of address space are not free: {error}", geometry.bytes()),
        errno: errno::ENOMEM,
    })?;
    let disk = Arc::new(MallocDisk { device, physical_block_size, numa_id: spec.numa_id });
    registry.register(BdevSpec::new(name, "Malloc disk", MODULE, disk).with_uuid(spec.uuid)).await
}

struct MallocDisk {
    device: Arc<Malloc>,
    /// As reported; the atomic unit does not depend on it.
    physical_block_size: u32,
    numa_id: Option<u16>,
}

impl MallocDisk {
    /// As SPDK writes it.
    fn node(&self) -> i32 {
        self.numa_id.map_or(-1, i32::from)
    }
}

impl Disk for MallocDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn numa_id(&self) -> Option<i32> {
        Some(self.node())
    }

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let geometry = self.device.geometry();
        let params = vec![
            ("name", bdev.name().into()),
            ("num_blocks", geometry.blocks().into()),
            ("block_size", geometry.block_size().into()),
            ("physical_block_size", self.physical_block_size.into()),
            ("uuid", bdev.uuid().to_string().into()),
            ("optimal_io_boundary", geometry.boundary().into()),
            ("md_size", 0_u32.into()),
            ("dif_type", 0_u32.into()),
            ("dif_is_head_of_md", false.into()),
            ("dif_pi_format", 0_u32.into()),
            ("numa_id", Detail::Signed(self.node().into())),
        ];
        Some(Recipe { method: "bdev_malloc_create", params: Detail::Object(params) })
    }
}
