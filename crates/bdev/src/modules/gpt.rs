//! Partitions of a GPT as bdevs: those of SPDK's types, found when a bdev is examined. There are no methods:
//! partitions come and go with their bdev.
//!
//! The table at the start counts; the one at the end is read if that one is damaged. A bdev without a
//! protective MBR is left alone.

use std::sync::Arc;

use spindle_block::Offset;
use spindle_mem::IoBuf;

use super::gpt_table::{self, Copy, Disk as On, Partition, TABLE_BYTES};
use crate::{
    Base, Bdev, BdevError, BdevSpec, DescOptions, LocalFuture, Module, PlainDisk, Recipe, Registry, Virtual,
};

/// The module's name.
pub const MODULE: &str = "gpt";

/// Adds the module to a registry: from now on it looks at every bdev.
///
/// # Errors
/// As [`Registry::add_module`].
pub async fn start(registry: &Registry) -> Result<(), BdevError> {
    registry.add_module(Arc::new(Gpt)).await
}

struct Gpt;

impl Module for Gpt {
    fn name(&self) -> &'static str {
        MODULE
    }

    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            // A bdev that cannot be read has no partitions.
            let Ok(partitions) = read(&bdev).await else { return };
            if let (false, Ok(registry)) = (partitions.is_empty(), bdev.registry()) {
                // Refused if another user has claimed it meanwhile, or a name is taken.
                let _ = registry.create_virtual(GptSpec { base: bdev.name().to_owned(), partitions }).await;
            }
        })
    }
}

/// The partitions on a bdev that become bdevs.
async fn read(bdev: &Bdev) -> Result<Vec<Partition>, BdevError> {
    let geometry = bdev.geometry();
    let on = On { block_size: geometry.block_size() as usize, blocks: geometry.blocks() };
    let bytes = TABLE_BYTES.max(u64::from(geometry.block_size()));
    if bdev.num_blocks() < 2 || geometry.bytes() < bytes {
        return Ok(Vec::new());
    }
    let channel = bdev.descriptor(DescOptions::new())?.channel()?;
    let read = async |offset| {
        let (read, data) = channel.read(offset, IoBuf::zeroed(bytes as usize)).await;
        read.map(|()| data.to_vec()).map_err(|error| BdevError::argument(bdev.name(), error.to_string()))
    };
    let first = read(0).await?;
    if !gpt_table::is_protective(&first, on) {
        return Ok(Vec::new());
    }
    if let Some(found) = gpt_table::partitions(&first, on, Copy::Primary) {
        return Ok(found);
    }
    let last = read(geometry.bytes() - bytes).await?;
    Ok(gpt_table::partitions(&last, on, Copy::Secondary).unwrap_or_default())
}

/// The partitions of one bdev.
struct GptSpec {
    base: String,
    partitions: Vec<Partition>,
}

impl Virtual for GptSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.base
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn comes_back(&self) -> bool {
        // A base that comes back is examined again.
        false
    }

    fn holder(&self) -> String {
        format!("partitions of bdev {:?}", self.base)
    }

    fn recipe(&self) -> Option<Recipe> {
        None
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let part = |partition: &Partition| {
            let name = format!("{}p{}", base.name(), partition.number);
            let device = Offset::new(name.clone(), base.device(), partition.start, partition.blocks)?;
            let members = vec![
                ("base_bdev", base.name().into()),
                ("offset_blocks", partition.start.into()),
                ("partition_table_guid", partition.table.to_string().into()),
                ("partition_type_guid", partition.kind.to_string().into()),
                ("unique_partition_guid", partition.uuid.to_string().into()),
                ("partition_name", partition.name.as_str().into()),
            ];
            let disk = Arc::new(PlainDisk::new(device).showing("gpt", members));
            Ok(BdevSpec::new(name, "GPT Disk", MODULE, disk).with_uuid(Some(partition.uuid)))
        };
        self.partitions.iter().map(part).collect()
    }
}
