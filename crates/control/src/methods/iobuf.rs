//! SPDK's buffer pools. Requests here bring their own memory, so no module takes part of a pool: sizes are checked,
//! kept and shown, and have no effect.

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;
use crate::settings::iobuf::Values;

/// The smallest that SPDK takes.
const LEAST: Values = Values {
    small_pool_count: 64,
    large_pool_count: 8,
    small_bufsize: 4096,
    large_bufsize: 8192,
    enable_numa: false,
};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::new(RpcError::INVALID_PARAMS, "spdk_json_decode_object failed");
    table.add(Method::with("iobuf_set_options", States::STARTUP, decode, set_options))?;
    table.add(Method::ignoring("iobuf_get_stats", States::RUNTIME, get_stats))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    small_pool_count: Option<u64>,
    large_pool_count: Option<u64>,
    small_bufsize: Option<u32>,
    large_bufsize: Option<u32>,
    enable_numa: Option<bool>,
}

async fn set_options(control: Control, asked: SetOptions) -> Result<bool, RpcError> {
    let before = control.iobuf().get();
    let options = Values {
        small_pool_count: asked.small_pool_count.unwrap_or(before.small_pool_count),
        large_pool_count: asked.large_pool_count.unwrap_or(before.large_pool_count),
        small_bufsize: asked.small_bufsize.unwrap_or(before.small_bufsize),
        large_bufsize: asked.large_bufsize.unwrap_or(before.large_bufsize),
        enable_numa: asked.enable_numa.unwrap_or(before.enable_numa),
    };
    let sizes = [
        ("small_pool_count", options.small_pool_count, LEAST.small_pool_count),
        ("large_pool_count", options.large_pool_count, LEAST.large_pool_count),
        ("small_bufsize", options.small_bufsize.into(), LEAST.small_bufsize.into()),
        ("large_bufsize", options.large_bufsize.into(), LEAST.large_bufsize.into()),
    ];
    if let Some((name, given, least)) = sizes.iter().find(|(_, given, least)| given < least) {
        let what = format!("'{name}' {given} is less than {least}; give that at least");
        return Err(RpcError::errno(Errno::INVAL, what));
    }
    control.iobuf().set(options);
    Ok(true)
}

#[derive(Serialize)]
struct OfModule {}

async fn get_stats(_: Control) -> Result<Vec<OfModule>, RpcError> {
    Ok(Vec::new())
}
