//! Trace points. There are none, and so no group of them: what is asked of all groups is done, and one that is named is not there.

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;

/// Stands for all groups.
const ALL: &str = "all";

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (both, invalid) = (States::BOTH, BadParams::INVALID);
    let refusal = |words| BadParams::new(RpcError::INVALID_PARAMS, words);
    let (clear, info) =
        (refusal("trace_clear requires no parameters"), "trace_get_info requires no parameters");
    let mask = refusal("trace_get_tpoint_group_mask requires no parameters");
    table.add(Method::without("trace_clear", States::RUNTIME, clear, async |_| Ok(true)))?;
    table.add(Method::without("trace_get_info", both, refusal(info), get_info))?;
    table.add(Method::without("trace_get_tpoint_group_mask", both, mask, get_group_mask))?;
    table.add(Method::with("trace_enable_tpoint_group", both, invalid, of_group))?;
    table.add(Method::with("trace_disable_tpoint_group", both, invalid, of_group))?;
    table.add(Method::with("trace_set_tpoint_mask", both, invalid, of_points))?;
    table.add(Method::with("trace_clear_tpoint_mask", both, invalid, of_points))
}

#[derive(Serialize)]
struct Info {
    /// Empty: nothing is traced into shared memory.
    tpoint_shm_path: &'static str,
    tpoint_group_mask: &'static str,
}

async fn get_info(_: Control) -> Result<Info, RpcError> {
    Ok(Info { tpoint_shm_path: "", tpoint_group_mask: "0x0" })
}

#[derive(Serialize)]
struct GroupMask {
    tpoint_group_mask: &'static str,
}

async fn get_group_mask(_: Control) -> Result<GroupMask, RpcError> {
    Ok(GroupMask { tpoint_group_mask: "0x0" })
}

async fn of_group(_: Control, params: Named) -> Result<bool, RpcError> {
    in_group(&params.name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    name: String,
    #[expect(dead_code, reason = "no group has points that it could name")]
    tpoint_mask: u64,
}

async fn of_points(_: Control, params: Points) -> Result<bool, RpcError> {
    in_group(&params.name)
}

fn in_group(name: &str) -> Result<bool, RpcError> {
    if name == ALL {
        return Ok(true);
    }
    let what =
        format!("there is no trace group '{name}', and none else; bdev_get_iostat and histograms count");
    Err(BadParams::INVALID.error(what))
}
