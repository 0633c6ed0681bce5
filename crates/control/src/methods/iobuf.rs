//! SPDK's buffer pools. Requests here bring their own memory, so no module has a share of any: sizes are checked,
//! kept and shown, and have no effect.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::Added;
use crate::control::Control;

/// The smallest that SPDK takes.
const LEAST: Values = Values {
    small_pool_count: 64,
    large_pool_count: 8,
    small_bufsize: 4096,
    large_bufsize: 8192,
    enable_numa: false,
};

/// What is set.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Values {
    small_pool_count: u64,
    large_pool_count: u64,
    small_bufsize: u32,
    large_bufsize: u32,
    enable_numa: bool,
}

/// What is set, and may be set again.
pub(crate) struct IobufOptions(Cell<Values>);

impl IobufOptions {
    /// All of them.
    pub(crate) fn get(&self) -> Values {
        self.0.get()
    }
}

impl Default for IobufOptions {
    /// SPDK's.
    fn default() -> IobufOptions {
        IobufOptions(Cell::new(Values {
            small_pool_count: 8192,
            large_pool_count: 1024,
            small_bufsize: 8192,
            large_bufsize: 135_168,
            enable_numa: false,
        }))
    }
}

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
    control.iobuf().0.set(options);
    Ok(true)
}

#[derive(Serialize)]
struct OfModule {}

async fn get_stats(_: Control) -> Result<Vec<OfModule>, RpcError> {
    Ok(Vec::new())
}
