//! Methods of split bdevs.

use serde::Deserialize;
use spindle_bdev::BdevError;
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    table.add(Method::with("bdev_split_create", States::RUNTIME, BadParams::INVALID, create))?;
    table.add(Method::with("bdev_split_delete", States::RUNTIME, BadParams::INVALID, delete))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    base_bdev: String,
    split_count: u32,
    split_size_mb: Option<u64>,
}

async fn create(control: Control, params: Create) -> Result<Vec<String>, RpcError> {
    let Create { base_bdev: base, split_count: count, split_size_mb } = params;
    let spec = SplitSpec { base: base.clone(), count, size_mib: split_size_mb.unwrap_or(0) };
    let parts = split::create(control.registry(), spec).await.map_err(|error| {
        let errno = Errno::from_raw(error.errno());
        let what = format!("Failed to create {count} split bdevs from '{base}': {errno}: {error}");
        RpcError::new(RpcError::INVALID_PARAMS, what)
    })?;
    Ok(parts.iter().map(|part| part.name().to_owned()).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    base_bdev: String,
}

async fn delete(control: Control, params: Delete) -> Result<bool, RpcError> {
    split::delete(control.registry(), &params.base_bdev).await.map_err(|error| {
        let is_missing = matches!(error, BdevError::NotOnBase { .. });
        let refused = RpcError::named(RpcError::INVALID_PARAMS, Errno::from_raw(error.errno()), error);
        if is_missing { refused.of_missing_object() } else { refused }
    })?;
    Ok(true)
}
