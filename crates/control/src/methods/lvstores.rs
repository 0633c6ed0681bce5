//! Stores of logical volumes.

use serde::{Deserialize, Serialize};
use spindle_lvol::{ClearData, LvolError, LvolStore, StoreInfo, StoreKey, StoreSpec};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use super::lvol_params::{at_once, selected, under_way};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_lvol_create_lvstore", runtime, decode, create))?;
    table.add(Method::with("bdev_lvol_rename_lvstore", runtime, decode, rename))?;
    table.add(Method::with("bdev_lvol_delete_lvstore", runtime, decode, delete))?;
    table.add(Method::with("bdev_lvol_grow_lvstore", runtime, decode, grow))?;
    table.add(Method::with_optional("bdev_lvol_get_lvstores", runtime, decode, get))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    bdev_name: String,
    lvs_name: String,
    cluster_sz: Option<u32>,
    clear_method: Option<String>,
    num_md_pages_per_cluster_ratio: Option<u32>,
    md_page_size: Option<u32>,
}

async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    let clear = match params.clear_method.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("unmap") => ClearData::Unmap,
        Some("write_zeroes") => ClearData::WriteZeroes,
        Some("none") => ClearData::None,
        Some(other) => {
            let what =
                format!("Invalid clear_method parameter: '{other}' is not one of unmap, write_zeroes, none");
            return Err(RpcError::new(Errno::INVAL.code(), what));
        }
    };
    let spec = StoreSpec {
        bdev: params.bdev_name,
        name: params.lvs_name,
        cluster_size: params.cluster_sz,
        clear,
        md_pages_per_hundred_clusters: params.num_md_pages_per_cluster_ratio,
        md_page_size: params.md_page_size,
        // The caller names the bdev; SPDK does not ask again, and its method has no parameter for it.
        force: true,
    };
    let store = control.lvols().create_store(spec).await.map_err(|error| match &error {
        LvolError::Blob { .. } | LvolError::TooSmall { .. } => under_way(&error),
        _ => at_once(&error),
    })?;
    Ok(store.uuid().to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    old_name: String,
    new_name: String,
}

async fn rename(control: Control, params: Rename) -> Result<bool, RpcError> {
    let Rename { old_name, new_name } = params;
    let store = control.lvols().store(&StoreKey::Name(old_name.clone())).map_err(|_| {
        let what = format!("Lvol store {old_name} not found; bdev_lvol_get_lvstores lists those there are");
        RpcError::new(Errno::NOENT.code(), what).of_missing_object()
    })?;
    store.rename(&new_name).await.map_err(|error| under_way(&error))?;
    Ok(true)
}

/// Exactly one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    uuid: Option<String>,
    lvs_name: Option<String>,
}

impl Selector {
    fn store(&self, control: &Control) -> Result<LvolStore, RpcError> {
        selected(control, ("uuid", self.uuid.as_deref()), self.lvs_name.as_deref())
    }
}

async fn delete(control: Control, params: Selector) -> Result<bool, RpcError> {
    params.store(&control)?.delete().await.map_err(|error| under_way(&error))?;
    Ok(true)
}

async fn grow(control: Control, params: Selector) -> Result<bool, RpcError> {
    params.store(&control)?.grow().await.map_err(|error| under_way(&error))?;
    Ok(true)
}

#[derive(Serialize)]
struct Shown {
    uuid: String,
    name: String,
    base_bdev: String,
    total_data_clusters: u64,
    free_clusters: u64,
    block_size: u32,
    cluster_size: u32,
    max_growable_size: u64,
    /// Beyond SPDK; only while there is something to clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    clearing_bytes: Option<u64>,
    /// Beyond SPDK; only while it takes no changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    refuses_changes: Option<String>,
}

impl From<StoreInfo> for Shown {
    fn from(info: StoreInfo) -> Shown {
        Shown {
            uuid: info.uuid.to_string(),
            name: info.name,
            base_bdev: info.base_bdev,
            total_data_clusters: info.total_data_clusters,
            free_clusters: info.free_clusters,
            block_size: info.block_size,
            cluster_size: info.cluster_size,
            max_growable_size: info.max_growable_size,
            clearing_bytes: Some(info.clearing_bytes).filter(|&bytes| bytes > 0),
            refuses_changes: info.refuses_changes,
        }
    }
}

async fn get(control: Control, params: Option<Selector>) -> Result<Vec<Shown>, RpcError> {
    let stores = match params {
        Some(selector) => vec![selector.store(&control)?],
        None => control.lvols().stores(),
    };
    let mut shown = Vec::new();
    for store in stores {
        match store.info().await {
            Ok(info) => shown.push(info.into()),
            // A store that was left in the meantime is left out.
            Err(LvolError::NoStore { .. } | LvolError::Leaving { .. }) => {}
            Err(error) => return Err(at_once(&error)),
        }
    }
    Ok(shown)
}
