//! Bdevs that answer later.

use serde::{Deserialize, Serialize};
use spindle_bdev::modules::delay::{self, DelaySpec, Latency};
use spindle_bdev::{Bdev, BdevError};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;
use crate::values::{Uuid, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_delay_create", States::RUNTIME, decode, create))?;
    table.add(Method::with("bdev_delay_delete", States::RUNTIME, decode, delete))?;
    table.add(Method::with("bdev_delay_update_latency", States::RUNTIME, decode, update_latency))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    base_bdev_name: String,
    uuid: Option<Uuid>,
    /// Microseconds, like the following ones.
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
}

async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    let Create { name, base_bdev_name: base, uuid, .. } = params;
    let latencies = [
        params.avg_read_latency,
        params.p99_read_latency,
        params.avg_write_latency,
        params.p99_write_latency,
    ];
    let spec = DelaySpec { name: name.clone(), base, uuid: uuid.map(|Uuid(uuid)| uuid), latencies };
    delay::create(control.registry(), spec).await.map_err(refused)?;
    Ok(name)
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    delay::delete(control.registry(), &params.name).await.map_err(refused)?;
    Ok(true)
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Which {
    AvgRead,
    P99Read,
    AvgWrite,
    P99Write,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateLatency {
    delay_bdev_name: String,
    latency_type: Which,
    latency_us: u64,
}

impl UpdateLatency {
    /// The calls that a saved configuration has after the creation of a bdev.
    pub(super) fn of(bdev: &Bdev) -> impl Iterator<Item = UpdateLatency> {
        let delay_bdev_name = bdev.name().to_owned();
        delay::latencies_below_average(bdev).into_iter().map(move |(latency, latency_us)| {
            let latency_type = match latency {
                Latency::AvgRead => Which::AvgRead,
                Latency::P99Read => Which::P99Read,
                Latency::AvgWrite => Which::AvgWrite,
                Latency::P99Write => Which::P99Write,
            };
            UpdateLatency { delay_bdev_name: delay_bdev_name.clone(), latency_type, latency_us }
        })
    }
}

async fn update_latency(control: Control, params: UpdateLatency) -> Result<bool, RpcError> {
    let latency = match params.latency_type {
        Which::AvgRead => Latency::AvgRead,
        Which::P99Read => Latency::P99Read,
        Which::AvgWrite => Latency::AvgWrite,
        Which::P99Write => Latency::P99Write,
    };
    let name = params.delay_bdev_name;
    let missing = |error| {
        let what = format!("The requested bdev does not exist.: {error}");
        RpcError::new(RpcError::INVALID_PARAMS, what).of_missing_object()
    };
    // SPDK finds it by its own name only.
    if control.registry().get(&name).is_ok_and(|bdev| bdev.name() != name) {
        return Err(missing(BdevError::NoSuchBdev { name }));
    }
    delay::update(control.registry(), &name, latency, params.latency_us).map_err(missing)?;
    Ok(true)
}
