//! RAM disks.

use serde::Deserialize;
use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named, check_blocks, check_names};
use super::metadata::Metadata;
use crate::control::Control;
use crate::memory_nodes;
use crate::values::{Uuid, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_malloc_create", States::RUNTIME, decode, create))?;
    table.add(Method::with("bdev_malloc_delete", States::RUNTIME, decode, delete))
}

/// The `numa_id` that asks for no node.
const ANY_NODE: i32 = -1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: Option<String>,
    uuid: Option<Uuid>,
    num_blocks: u64,
    block_size: u32,
    physical_block_size: Option<u32>,
    optimal_io_boundary: Option<u32>,
    md_size: Option<u32>,
    #[expect(dead_code, reason = "without metadata it has no effect, in SPDK neither")]
    md_interleave: Option<bool>,
    dif_type: Option<i32>,
    #[expect(dead_code, reason = "without metadata it has no effect, in SPDK neither")]
    dif_is_head_of_md: Option<bool>,
    dif_pi_format: Option<u32>,
    numa_id: Option<i32>,
}

impl Create {
    fn metadata(&self) -> Metadata {
        Metadata {
            size: self.md_size.unwrap_or(0),
            protection: self.dif_type.unwrap_or(0),
            format: self.dif_pi_format.unwrap_or(0),
        }
    }

    /// The memory node; none is any.
    fn node(&self) -> Result<Option<u16>, RpcError> {
        let Some(asked) = self.numa_id.filter(|asked| *asked != ANY_NODE) else { return Ok(None) };
        let node = u16::try_from(asked).ok().filter(|node| memory_nodes::exists(*node));
        node.map(Some).ok_or_else(|| {
            let what = format!("'numa_id' {asked}: this machine has no such node; leave it out");
            RpcError::errno(Errno::INVAL, what)
        })
    }
}

/// A RAM disk takes memory as it is written; a size that can never be filled is refused.
fn check_memory(params: &Create) -> Result<(), RpcError> {
    let machine = rustix::system::sysinfo();
    let has = machine.totalram as u64 * u64::from(machine.mem_unit);
    let needs = params.num_blocks.saturating_mul(u64::from(params.block_size));
    let block_size_fits = params.block_size.is_power_of_two() && (512..=65536).contains(&params.block_size);
    if needs <= has || !block_size_fits {
        return Ok(());
    }
    let bdev = params.name.as_deref().map_or_else(|| "the bdev".to_owned(), |name| format!("bdev {name:?}"));
    let what = format!(
        "{bdev} needs {} MiB, and this machine has {}; lower 'num_blocks' or 'block_size'",
        needs >> 20,
        has >> 20
    );
    Err(RpcError::errno(Errno::NOMEM, what))
}

fn check_metadata(control: &Control, params: &Create, metadata: Metadata) -> Result<(), RpcError> {
    metadata.check_protection(params.block_size)?;
    metadata.check_none().or_else(|refused| {
        check_names(control, params.name.as_deref(), params.uuid)?;
        Err(refused)
    })
}

/// The checks are in SPDK's order; what SPDK would take is refused last.
async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    check_blocks(params.num_blocks, params.block_size, params.physical_block_size)?;
    let numa_id = params.node()?;
    let metadata = params.metadata();
    metadata.check_size()?;
    check_memory(&params)?;
    if let Err(error) = check_metadata(&control, &params, metadata) {
        if params.name.is_none() && metadata.protection != 0 {
            // SPDK uses up the name, so that the next one has the same name on both.
            control.registry().next_name("Malloc");
        }
        return Err(error);
    }
    let spec = MallocSpec {
        name: params.name,
        uuid: params.uuid.map(|Uuid(uuid)| uuid),
        block_size: params.block_size,
        num_blocks: params.num_blocks,
        optimal_io_boundary: params.optimal_io_boundary.unwrap_or(0),
        physical_block_size: params.physical_block_size.unwrap_or(0),
        numa_id,
    };
    let bdev = malloc::create(control.registry(), spec).await.map_err(refused)?;
    Ok(bdev.name().to_owned())
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    control.registry().delete(malloc::MODULE, &params.name).await.map_err(refused)?;
    Ok(true)
}
