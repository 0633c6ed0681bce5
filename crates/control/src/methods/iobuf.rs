//! SPDK's buffer pools. Requests here bring their own memory, so no module has a share of any.

use serde::Serialize;
use spindle_rpc::{Method, RpcError, States, Table};

use super::Added;
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    table.add(Method::ignoring("iobuf_get_stats", States::RUNTIME, get_stats))
}

#[derive(Serialize)]
struct OfModule {}

async fn get_stats(_: Control) -> Result<Vec<OfModule>, RpcError> {
    Ok(Vec::new())
}
