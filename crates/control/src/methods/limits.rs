//! Rate limits of bdevs.

use serde::{Deserialize, Serialize};
use spindle_bdev::Bdev;
use spindle_block::{DeviceState, Limits};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;
use crate::values::refused;

/// Limits on requests per second are multiples of this.
const REQUESTS_STEP: u64 = 1000;

const MIB: u64 = 1 << 20;

/// The most MiB per second whose bytes fit 64 bits.
const MOST_MIB: u64 = u64::MAX / MIB;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    table.add(Method::with("bdev_set_qos_limit", States::RUNTIME, BadParams::DECODE_FAILED, set_qos_limit))
}

/// The limits of a bdev, as they are shown.
#[derive(Default, Serialize)]
pub(super) struct ShownLimits {
    rw_ios_per_sec: u64,
    rw_mbytes_per_sec: u64,
    r_mbytes_per_sec: u64,
    w_mbytes_per_sec: u64,
}

impl ShownLimits {
    pub(super) fn of(bdev: &Bdev) -> ShownLimits {
        let limits = bdev.disk().device().state().map(DeviceState::limits).unwrap_or_default();
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) / MIB;
        ShownLimits {
            rw_ios_per_sec: limits.operations.unwrap_or(0),
            rw_mbytes_per_sec: mib(limits.bytes),
            r_mbytes_per_sec: mib(limits.read_bytes),
            w_mbytes_per_sec: mib(limits.written_bytes),
        }
    }
}

/// The call that sets the limits of a bdev again.
#[derive(Serialize)]
pub(super) struct SetLimits {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rw_ios_per_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rw_mbytes_per_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r_mbytes_per_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    w_mbytes_per_sec: Option<u64>,
}

impl SetLimits {
    /// None for a bdev without limits.
    pub(super) fn of(bdev: &Bdev) -> Option<SetLimits> {
        let ShownLimits { rw_ios_per_sec, rw_mbytes_per_sec, r_mbytes_per_sec, w_mbytes_per_sec } =
            ShownLimits::of(bdev);
        let set = |limit: u64| Some(limit).filter(|limit| *limit != 0);
        let limits = [rw_ios_per_sec, rw_mbytes_per_sec, r_mbytes_per_sec, w_mbytes_per_sec].map(set);
        limits.iter().any(Option::is_some).then(|| SetLimits {
            name: bdev.name().to_owned(),
            rw_ios_per_sec: limits[0],
            rw_mbytes_per_sec: limits[1],
            r_mbytes_per_sec: limits[2],
            w_mbytes_per_sec: limits[3],
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetQosLimit {
    name: String,
    rw_ios_per_sec: Option<u64>,
    rw_mbytes_per_sec: Option<u64>,
    r_mbytes_per_sec: Option<u64>,
    w_mbytes_per_sec: Option<u64>,
}

/// A limit after the call: 0 removes it, and without a value it stays.
fn changed(before: Option<u64>, asked: Option<u64>, rounded: impl Fn(u64) -> u64) -> Option<u64> {
    match asked {
        None => before,
        Some(0) => None,
        Some(asked) => Some(rounded(asked)),
    }
}

/// The limit, unless it is the value that SPDK treats as a missing parameter.
fn given(limit: Option<u64>) -> Option<u64> {
    limit.filter(|limit| *limit != u64::MAX)
}

async fn set_qos_limit(control: Control, params: SetQosLimit) -> Result<bool, RpcError> {
    let bdev = control.registry().get(&params.name).map_err(refused)?;
    let requests = given(params.rw_ios_per_sec);
    let bytes = [params.rw_mbytes_per_sec, params.r_mbytes_per_sec, params.w_mbytes_per_sec].map(given);
    if requests.is_none() && bytes == [None; 3] {
        let what = "No rate limits specified: give at least one of rw_ios_per_sec, rw_mbytes_per_sec, \
                    r_mbytes_per_sec, w_mbytes_per_sec";
        return Err(RpcError::new(Errno::INVAL.code(), what));
    }
    let device = bdev.disk().device();
    let Some(state) = device.state() else {
        return Err(RpcError::errno(Errno::OPNOTSUPP, format!("bdev '{}' has no limits", params.name)));
    };
    let before = state.limits();
    let in_bytes = |mib: u64| mib.min(MOST_MIB) * MIB;
    let limits = Limits {
        operations: changed(before.operations, requests, |limit| {
            limit.div_ceil(REQUESTS_STEP).saturating_mul(REQUESTS_STEP)
        }),
        bytes: changed(before.bytes, bytes[0], in_bytes),
        read_bytes: changed(before.read_bytes, bytes[1], in_bytes),
        written_bytes: changed(before.written_bytes, bytes[2], in_bytes),
    };
    state.set_limits(limits).await;
    Ok(true)
}
