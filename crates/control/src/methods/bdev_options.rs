//! Options of the bdev layer, set before it is started.
//!
//! SPDK's pools and caches of requests and buffers have no counterpart here: their sizes are checked, kept and shown,
//! and have no effect.

use serde::Deserialize;
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;
use crate::settings::bdev_options::Values;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    table.add(Method::with_optional("bdev_set_options", States::STARTUP, BadParams::INVALID, set_options))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    bdev_io_pool_size: Option<u32>,
    bdev_io_cache_size: Option<u32>,
    bdev_auto_examine: Option<bool>,
    iobuf_small_cache_size: Option<u32>,
    iobuf_large_cache_size: Option<u32>,
}

async fn set_options(control: Control, params: Option<SetOptions>) -> Result<bool, RpcError> {
    let (asked, before) = (params.unwrap_or_default(), control.bdev_options().get());
    let options = Values {
        bdev_io_pool_size: asked.bdev_io_pool_size.unwrap_or(before.bdev_io_pool_size),
        bdev_io_cache_size: asked.bdev_io_cache_size.unwrap_or(before.bdev_io_cache_size),
        bdev_auto_examine: asked.bdev_auto_examine.unwrap_or(before.bdev_auto_examine),
        iobuf_small_cache_size: asked.iobuf_small_cache_size.unwrap_or(before.iobuf_small_cache_size),
        iobuf_large_cache_size: asked.iobuf_large_cache_size.unwrap_or(before.iobuf_large_cache_size),
    };
    let (pool, cache) = (options.bdev_io_pool_size, options.bdev_io_cache_size);
    // SPDK's pool must hold one cache for each thread and one more; one thread exists by then.
    if u64::from(pool) < 2 * u64::from(cache) {
        let what = format!("Pool size {pool} too small for cache size {cache}: give at least twice as much");
        return Err(RpcError::new(RpcError::INVALID_PARAMS, what));
    }
    control.bdev_options().set(options);
    control.registry().set_auto_examine(options.bdev_auto_examine);
    Ok(true)
}
