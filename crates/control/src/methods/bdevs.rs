//! Methods for bdevs of all modules: listing and examining.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use spindle_bdev::{Bdev, BdevInfo, IoTypes};
use spindle_reactor::timeout;
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use super::limits::ShownLimits;
use crate::control::Control;
use crate::values::{Details, refused};

const RUNTIME: States = States::RUNTIME;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let refusal = BadParams::new(RpcError::INVALID_PARAMS, "bdev_wait_for_examine requires no parameters");
    let decode = BadParams::DECODE_FAILED;
    let examined = BadParams::new(RpcError::INVALID_PARAMS, "spdk_json_decode_object failed");
    table.add(Method::with_optional("bdev_get_bdevs", RUNTIME, decode, get_bdevs))?;
    table.add(Method::with("bdev_examine", RUNTIME, examined, examine))?;
    table.add(Method::without("bdev_wait_for_examine", RUNTIME, refusal, wait_for_examine))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    name: Option<String>,
    /// Milliseconds to wait for it.
    timeout: Option<u64>,
}

/// A bdev as SPDK shows it, its members in SPDK's order.
#[derive(Serialize)]
struct Shown {
    name: String,
    aliases: Vec<String>,
    product_name: &'static str,
    block_size: u32,
    num_blocks: u64,
    preferred_write_alignment: u32,
    preferred_write_granularity: u32,
    optimal_write_size: u32,
    preferred_unmap_alignment: u32,
    preferred_unmap_granularity: u32,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    numa_id: Option<i32>,
    assigned_rate_limits: ShownLimits,
    claimed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_type: Option<&'static str>,
    zoned: bool,
    supported_io_types: ShownIoTypes,
    driver_specific: Details,
}

struct ShownIoTypes(IoTypes);

impl Serialize for ShownIoTypes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (io_type, supported) in self.0.iter() {
            map.serialize_entry(io_type.name(), &supported)?;
        }
        map.end()
    }
}

impl Shown {
    async fn of(bdev: &Bdev) -> Result<Shown, RpcError> {
        let details = bdev.details().await.map_err(refused)?;
        let info: BdevInfo = bdev.info();
        Ok(Shown {
            name: info.name,
            aliases: info.aliases,
            product_name: info.product_name,
            block_size: info.geometry.block_size(),
            num_blocks: info.num_blocks,
            preferred_write_alignment: 0,
            preferred_write_granularity: 0,
            optimal_write_size: 0,
            preferred_unmap_alignment: 0,
            preferred_unmap_granularity: 0,
            uuid: info.uuid.to_string(),
            numa_id: bdev.numa_id(),
            assigned_rate_limits: ShownLimits::of(bdev),
            claimed: info.claim.is_some(),
            claim_type: info.claim.map(|claim| claim.kind.name()),
            zoned: false,
            supported_io_types: ShownIoTypes(info.io_types),
            driver_specific: Details(details),
        })
    }
}

/// One bdev by name, alias or UUID, or all. With a timeout, waits for a missing one.
async fn get_bdevs(control: Control, params: Option<GetBdevs>) -> Result<Vec<Shown>, RpcError> {
    let GetBdevs { name, timeout: patience } = params.unwrap_or_default();
    let registry = control.registry();
    let Some(name) = name else {
        let mut all = Vec::new();
        for bdev in registry.bdevs() {
            all.push(Shown::of(&bdev).await?);
        }
        return Ok(all);
    };
    let bdev = match (registry.get(&name), patience.unwrap_or(0)) {
        (Err(error), 0) => return Err(refused(error)),
        (Ok(bdev), _) => bdev,
        (Err(_), milliseconds) => {
            let found = timeout(Duration::from_millis(milliseconds), registry.appears(&name)).await;
            found.map_err(|_| {
                let what = format!(
                    "no bdev '{name}' came within {milliseconds} ms; bdev_get_bdevs lists those there are"
                );
                RpcError::errno(Errno::TIMEDOUT, what)
            })?
        }
    };
    Ok(vec![Shown::of(&bdev).await?])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examine {
    name: String,
}

async fn examine(control: Control, params: Examine) -> Result<bool, RpcError> {
    control.registry().examine(&params.name).await.map_err(refused)?;
    Ok(true)
}

async fn wait_for_examine(control: Control) -> Result<bool, RpcError> {
    control.registry().wait_for_examine().await;
    Ok(true)
}
