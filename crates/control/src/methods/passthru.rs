//! Methods of passthru bdevs.

use serde::Deserialize;
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;
use crate::values::{Uuid, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_passthru_create", States::RUNTIME, decode, create))?;
    table.add(Method::with("bdev_passthru_delete", States::RUNTIME, decode, delete))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    base_bdev_name: String,
    name: String,
    uuid: Option<Uuid>,
}

async fn create(control: Control, params: Create) -> Result<String, RpcError> {
    let Create { base_bdev_name: base, name, uuid } = params;
    let spec = PassthruSpec { name: name.clone(), base, uuid: uuid.map(|Uuid(uuid)| uuid) };
    passthru::create(control.registry(), spec).await.map_err(refused)?;
    Ok(name)
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    passthru::delete(control.registry(), &params.name).await.map_err(refused)?;
    Ok(true)
}
