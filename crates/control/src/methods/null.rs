//! Disks that store nothing.

use serde::Deserialize;
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named, check_blocks, check_names};
use super::metadata::Metadata;
use crate::control::Control;
use crate::values::{Uuid, not_implemented, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_null_create", States::RUNTIME, decode, create))?;
    table.add(Method::with("bdev_null_delete", States::RUNTIME, decode, delete))?;
    table.add(Method::with("bdev_null_resize", States::RUNTIME, decode, resize))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    uuid: Option<Uuid>,
    num_blocks: u64,
    block_size: u32,
    physical_block_size: Option<u32>,
    md_size: Option<u32>,
    dif_type: Option<i32>,
    #[expect(dead_code, reason = "without metadata it has no effect, in SPDK neither")]
    dif_is_head_of_md: Option<bool>,
    dif_pi_format: Option<u32>,
    preferred_write_granularity: Option<u32>,
    preferred_write_alignment: Option<u32>,
    optimal_write_size: Option<u32>,
    preferred_unmap_granularity: Option<u32>,
    preferred_unmap_alignment: Option<u32>,
}

impl Create {
    fn metadata(&self) -> Metadata {
        Metadata {
            size: self.md_size.unwrap_or(0),
            protection: self.dif_type.unwrap_or(0),
            format: self.dif_pi_format.unwrap_or(0),
        }
    }

    /// An error if a hint is given.
    fn check_hints(&self) -> Result<(), RpcError> {
        let hints = [
            ("preferred_write_granularity", self.preferred_write_granularity),
            ("preferred_write_alignment", self.preferred_write_alignment),
            ("optimal_write_size", self.optimal_write_size),
            ("preferred_unmap_granularity", self.preferred_unmap_granularity),
            ("preferred_unmap_alignment", self.preferred_unmap_alignment),
        ];
        match hints.into_iter().find(|(_, hint)| hint.is_some_and(|hint| hint != 0)) {
            Some((name, _)) => Err(not_implemented(name, "0, no preference")),
            None => Ok(()),
        }
    }
}

/// The checks are in SPDK's order; what SPDK would take is refused last.
async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    let metadata = params.metadata();
    metadata.check_size()?;
    check_blocks(params.num_blocks, params.block_size, params.physical_block_size)?;
    metadata.check_protection(params.block_size)?;
    metadata.check_none().and_then(|()| params.check_hints()).or_else(|refused| {
        check_names(&control, Some(&params.name), params.uuid)?;
        Err(refused)
    })?;
    let spec = NullSpec {
        name: params.name,
        uuid: params.uuid.map(|Uuid(uuid)| uuid),
        block_size: params.block_size,
        num_blocks: params.num_blocks,
        physical_block_size: params.physical_block_size.unwrap_or(0),
        leaves_buffers_alone: false,
    };
    let bdev = null::create(control.registry(), spec).await.map_err(refused)?;
    Ok(bdev.name().to_owned())
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    control.registry().delete(null::MODULE, &params.name).await.map_err(refused)?;
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    name: String,
    /// In MiB.
    new_size: u64,
}

async fn resize(control: Control, params: Resize) -> Result<bool, RpcError> {
    let registry = control.registry();
    let geometry = registry.get(&params.name).map_err(refused)?.geometry();
    let bytes = params.new_size.checked_mul(1 << 20).ok_or_else(|| {
        RpcError::errno(
            Errno::INVAL,
            format!(
                "bdev {:?}: 'new_size' {} MiB is more than a disk can have; give less than {}",
                params.name,
                params.new_size,
                1_u64 << (u64::BITS - 20)
            ),
        )
    })?;
    null::resize(registry, &params.name, bytes >> geometry.block_shift()).await.map_err(refused)?;
    Ok(true)
}
