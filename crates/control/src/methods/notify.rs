//! The log of bdevs that were registered, unregistered or resized, for clients that poll it.

use serde::{Deserialize, Serialize};
use spindle_bdev::NotificationKind;
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let refusal = BadParams::new(RpcError::INVALID_PARAMS, "No parameters required");
    let bad = BadParams::new(RpcError::INVALID_PARAMS, "Invalid argument");
    table.add(Method::without("notify_get_types", States::RUNTIME, refusal, get_types))?;
    table.add(Method::with_optional("notify_get_notifications", States::RUNTIME, bad, get_notifications))
}

async fn get_types(_: Control) -> Result<Vec<&'static str>, RpcError> {
    Ok(NotificationKind::ALL.iter().map(|kind| kind.name()).collect())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    id: Option<u64>,
    max: Option<u64>,
}

#[derive(Serialize)]
struct Notification {
    #[serde(rename = "type")]
    kind: &'static str,
    ctx: String,
    id: u64,
}

async fn get_notifications(control: Control, range: Option<Range>) -> Result<Vec<Notification>, RpcError> {
    let Range { id, max } = range.unwrap_or_default();
    let found = control.registry().notifications(id.unwrap_or(0), max.unwrap_or(u64::MAX));
    let shown = found.into_iter();
    let shown = shown.map(|found| Notification { kind: found.kind.name(), ctx: found.name, id: found.id });
    Ok(shown.collect())
}
