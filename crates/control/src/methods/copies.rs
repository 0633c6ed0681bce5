//! Shallow copies of volumes: one method starts them, another reports their progress.

use serde::{Deserialize, Serialize};
use spindle_lvol::LvolError;
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use super::lvol_params::{lvol_on_bdev, refused_by_bdev, under_way};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_lvol_start_shallow_copy", runtime, decode, start))?;
    table.add(Method::with("bdev_lvol_check_shallow_copy", runtime, decode, check))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    src_lvol_name: String,
    dst_bdev_name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Started {
    operation_id: u32,
}

async fn start(control: Control, params: Start) -> Result<Started, RpcError> {
    let source = lvol_on_bdev(&control, &params.src_lvol_name)?;
    let operation_id = control.copies().next();
    let target = control.registry().get(&params.dst_bdev_name).map_err(refused_by_bdev)?;
    let copy = source.shallow_copy(&target).await.map_err(|error| under_way(&error))?;
    control.copies().keep(operation_id, copy);
    Ok(Started { operation_id })
}

#[derive(Serialize)]
struct Progress {
    copied_clusters: u64,
    total_clusters: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn check(control: Control, params: Started) -> Result<Progress, RpcError> {
    let Started { operation_id } = params;
    let mut known = control.copies().known.borrow_mut();
    let Some(copy) = known.get(&operation_id).cloned() else {
        let what = format!(
            "no shallow copy has the operation_id {operation_id}; one whose end was asked for is forgotten"
        );
        return Err(RpcError::errno(Errno::NODEV, what));
    };
    let ended = copy.ended();
    if ended.is_some() {
        known.remove(&operation_id);
    }
    let (state, error) = match &ended {
        None => ("in progress", None),
        Some(Ok(())) => ("complete", None),
        Some(Err(error)) => ("error", Some(reason(error))),
    };
    Ok(Progress { copied_clusters: copy.copied(), total_clusters: copy.total(), state, error })
}

/// The text of the error number, as in SPDK, and what failed.
fn reason(error: &LvolError) -> String {
    RpcError::named(RpcError::INVALID_PARAMS, Errno::from_raw(error.errno()), error).message
}
