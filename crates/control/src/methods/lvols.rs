//! Logical volumes.

use serde::{Deserialize, Serialize};
use spindle_lvol::{ClearMethod, LvolError, LvolInfo, LvolSpec};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named};
use super::lvol_params::{at_once, lvol, selected, under_way};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_lvol_create", runtime, decode, create))?;
    table.add(Method::with("bdev_lvol_snapshot", runtime, decode, snapshot))?;
    table.add(Method::with("bdev_lvol_clone", runtime, decode, clone))?;
    table.add(Method::with("bdev_lvol_rename", runtime, decode, rename))?;
    table.add(Method::with("bdev_lvol_resize", runtime, decode, resize))?;
    table.add(Method::with("bdev_lvol_set_read_only", runtime, decode, set_read_only))?;
    table.add(Method::with("bdev_lvol_delete", runtime, decode, delete))?;
    table.add(Method::with("bdev_lvol_inflate", runtime, decode, inflate))?;
    table.add(Method::with("bdev_lvol_decouple_parent", runtime, decode, decouple_parent))?;
    table.add(Method::with_optional("bdev_lvol_get_lvols", runtime, decode, get))
}

/// MiB as bytes. A size of more bytes than 64 bits count becomes one that is refused as too large, in its turn.
fn bytes(size_in_mib: u64) -> u64 {
    size_in_mib.saturating_mul(1 << 20)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    uuid: Option<String>,
    lvs_name: Option<String>,
    lvol_name: String,
    size_in_mib: u64,
    thin_provision: Option<bool>,
    clear_method: Option<String>,
}

async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    let store = selected(&control, ("uuid", params.uuid.as_deref()), params.lvs_name.as_deref())?;
    let clear_method = match params.clear_method.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => ClearMethod::Default,
        Some("none") => ClearMethod::None,
        Some("unmap") => ClearMethod::Unmap,
        Some("write_zeroes") => ClearMethod::WriteZeroes,
        Some(other) => {
            let what =
                format!("Invalid clean_method option: '{other}' is not one of none, unmap, write_zeroes");
            return Err(RpcError::new(Errno::INVAL.code(), what));
        }
    };
    let (bytes, thin) = (bytes(params.size_in_mib), params.thin_provision.unwrap_or(false));
    let spec = LvolSpec { name: params.lvol_name, bytes, thin, clear_method };
    let lvol = store.create(spec).await.map_err(|error| match &error {
        LvolError::Name { .. } | LvolError::LvolExists { .. } => at_once(&error),
        _ => under_way(&error),
    })?;
    Ok(lvol.unique_id().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    lvol_name: String,
    snapshot_name: String,
}

async fn snapshot(control: Control, params: Snapshot) -> Result<String, RpcError> {
    let taken = lvol(&control, &params.lvol_name)?.snapshot(&params.snapshot_name).await;
    Ok(taken.map_err(|error| under_way(&error))?.unique_id().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clone {
    snapshot_name: String,
    clone_name: String,
}

async fn clone(control: Control, params: Clone) -> Result<String, RpcError> {
    let made = lvol(&control, &params.snapshot_name)?.clone_as(&params.clone_name).await;
    Ok(made.map_err(|error| under_way(&error))?.unique_id().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    old_name: String,
    new_name: String,
}

async fn rename(control: Control, params: Rename) -> Result<bool, RpcError> {
    lvol(&control, &params.old_name)?.rename(&params.new_name).await.map_err(|error| under_way(&error))?;
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    name: String,
    size_in_mib: u64,
}

async fn resize(control: Control, params: Resize) -> Result<bool, RpcError> {
    let lvol = lvol(&control, &params.name)?;
    lvol.resize(bytes(params.size_in_mib)).await.map_err(|error| under_way(&error))?;
    Ok(true)
}

async fn set_read_only(control: Control, params: Named) -> Result<bool, RpcError> {
    lvol(&control, &params.name)?.set_read_only().await.map_err(|error| under_way(&error))?;
    Ok(true)
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    lvol(&control, &params.name)?.delete().await.map_err(|error| {
        // Only this method answers so.
        RpcError::named(RpcError::INTERNAL, Errno::from_raw(error.errno()), &error)
    })?;
    Ok(true)
}

async fn inflate(control: Control, params: Named) -> Result<bool, RpcError> {
    lvol(&control, &params.name)?.inflate().await.map_err(|error| under_way(&error))?;
    Ok(true)
}

async fn decouple_parent(control: Control, params: Named) -> Result<bool, RpcError> {
    lvol(&control, &params.name)?.decouple_parent().await.map_err(|error| under_way(&error))?;
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    lvs_uuid: Option<String>,
    lvs_name: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    alias: String,
    uuid: String,
    name: String,
    is_thin_provisioned: bool,
    is_snapshot: bool,
    is_clone: bool,
    is_esnap_clone: bool,
    is_degraded: bool,
    num_allocated_clusters: u64,
    lvs: Store,
}

#[derive(Serialize)]
struct Store {
    name: String,
    uuid: String,
}

impl From<LvolInfo> for Shown {
    fn from(info: LvolInfo) -> Shown {
        Shown {
            alias: info.alias,
            uuid: info.uuid,
            name: info.name,
            is_thin_provisioned: info.is_thin_provisioned,
            is_snapshot: info.is_snapshot,
            is_clone: info.is_clone,
            is_esnap_clone: info.is_esnap_clone,
            is_degraded: info.is_degraded,
            num_allocated_clusters: info.num_allocated_clusters,
            lvs: Store { name: info.store, uuid: info.store_uuid.to_string() },
        }
    }
}

async fn get(control: Control, params: Option<Selector>) -> Result<Vec<Shown>, RpcError> {
    let lvols = match params {
        Some(Selector { lvs_uuid, lvs_name }) => {
            selected(&control, ("lvs_uuid", lvs_uuid.as_deref()), lvs_name.as_deref())?.lvols()
        }
        None => control.lvols().lvols(),
    };
    let mut shown = Vec::new();
    for lvol in lvols {
        // A volume deleted in the meantime is left out.
        if let Ok(info) = lvol.info().await {
            shown.push(info.into());
        }
    }
    Ok(shown)
}
