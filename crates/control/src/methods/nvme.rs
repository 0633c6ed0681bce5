//! NVMe controllers: none is attached. Clients that list or clear everything get an empty answer.

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    let invalid = BadParams::new(RpcError::INVALID_PARAMS, "Invalid argument");
    table.add(Method::with_optional("bdev_nvme_get_controllers", runtime, decode, get_controllers))?;
    table.add(Method::with("bdev_nvme_set_hotplug", runtime, invalid, set_hotplug))
}

#[derive(Serialize)]
struct Controller {}

async fn get_controllers(_: Control, params: Option<OneOrAll>) -> Result<Vec<Controller>, RpcError> {
    match params.and_then(|params| params.name) {
        None => Ok(Vec::new()),
        Some(name) => {
            let what = format!(
                "Controller {name} does not exist: NVMe controllers are not reached; bdev_uring_create opens /dev/nvme*n*"
            );
            Err(RpcError::new(Errno::INVAL.code(), what))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneOrAll {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetHotplug {
    enable: bool,
    #[expect(dead_code, reason = "nothing is looked for, however often")]
    period_us: Option<u64>,
}

/// It is off, and can only be left so.
async fn set_hotplug(_: Control, params: SetHotplug) -> Result<bool, RpcError> {
    if params.enable {
        let what = "'enable' true: NVMe controllers are not reached; bdev_uring_create opens /dev/nvme*n*";
        return Err(RpcError::named(RpcError::INVALID_PARAMS, Errno::OPNOTSUPP, what));
    }
    Ok(true)
}
