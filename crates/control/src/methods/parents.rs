//! Parents of volumes: clones of bdevs outside of their store, and other parents.

use serde::Deserialize;
use spindle_bdev::Bdev;
use spindle_lvol::{LvolStore, StoreKey};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use super::lvol_params::{lvol_on_bdev, refused_by_bdev, under_way};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_lvol_clone_bdev", runtime, decode, clone_bdev))?;
    table.add(Method::with("bdev_lvol_set_parent", runtime, decode, set_parent))?;
    table.add(Method::with("bdev_lvol_set_parent_bdev", runtime, decode, set_parent_bdev))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloneBdev {
    /// Its name, alias or UUID.
    bdev: String,
    lvs_name: String,
    clone_name: String,
}

async fn clone_bdev(control: Control, params: CloneBdev) -> Result<String, RpcError> {
    let CloneBdev { bdev, lvs_name, clone_name } = params;
    let invalid = |what: String| RpcError::new(RpcError::INVALID_PARAMS, what);
    let store = control.lvols().store(&StoreKey::Name(lvs_name.clone())).map_err(|_| {
        invalid(format!("lvs does not exist: '{lvs_name}'; bdev_lvol_get_lvstores lists those there are"))
            .of_missing_object()
    })?;
    let bdev = control.registry().get(&bdev).map_err(|_| {
        invalid(format!("bdev does not exist: '{bdev}'; bdev_get_bdevs lists those there are"))
            .of_missing_object()
    })?;
    if is_volume_of(&control, &store, &bdev) {
        let what = format!(
            "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead: '{}' in '{lvs_name}'",
            bdev.name()
        );
        return Err(invalid(what));
    }
    let made = store.clone_bdev(&bdev, &clone_name).await.map_err(|error| under_way(&error))?;
    Ok(made.unique_id().to_owned())
}

/// Whether a bdev is a volume of the store.
fn is_volume_of(control: &Control, store: &LvolStore, bdev: &Bdev) -> bool {
    let of = control.lvols().lvol(bdev.name()).ok().filter(|lvol| lvol.bdev().as_ref() == Some(bdev));
    of.and_then(|lvol| lvol.store().ok()).is_some_and(|of| of.uuid() == store.uuid())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetParent {
    lvol_name: String,
    parent_name: String,
}

async fn set_parent(control: Control, params: SetParent) -> Result<bool, RpcError> {
    let volume = lvol_on_bdev(&control, &params.lvol_name)?;
    let parent = lvol_on_bdev(&control, &params.parent_name)?;
    volume.set_parent(&parent).await.map_err(|error| under_way(&error))?;
    Ok(true)
}

async fn set_parent_bdev(control: Control, params: SetParent) -> Result<bool, RpcError> {
    let volume = lvol_on_bdev(&control, &params.lvol_name)?;
    let parent = control.registry().get(&params.parent_name).map_err(refused_by_bdev)?;
    volume.set_parent_bdev(&parent).await.map_err(|error| under_way(&error))?;
    Ok(true)
}
