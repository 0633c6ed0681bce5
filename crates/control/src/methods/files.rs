//! Files and block devices of the operating system, in the two spellings that SPDK has for them.

use std::path::PathBuf;

use serde::Deserialize;
use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;
use crate::values::{Uuid, not_implemented, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_aio_create", runtime, decode, create_aio))?;
    table.add(Method::with("bdev_aio_delete", runtime, decode, async |control, params| {
        delete(control, Spelling::Aio, params).await
    }))?;
    table.add(Method::with("bdev_aio_rescan", runtime, decode, async |control, params| {
        rescan(control, Spelling::Aio, params).await
    }))?;
    table.add(Method::with("bdev_uring_create", runtime, decode, create_uring))?;
    table.add(Method::with("bdev_uring_delete", runtime, decode, async |control, params| {
        delete(control, Spelling::Uring, params).await
    }))?;
    table.add(Method::with("bdev_uring_rescan", runtime, decode, async |control, params| {
        rescan(control, Spelling::Uring, params).await
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateAio {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    readonly: Option<bool>,
    fallocate: Option<bool>,
    uuid: Option<Uuid>,
    nowait: Option<bool>,
}

async fn create_aio(control: Control, params: CreateAio) -> Result<String, RpcError> {
    if params.nowait == Some(true) {
        return Err(not_implemented("nowait", "false: requests never block the reactor"));
    }
    let spec = FileSpec {
        name: params.name,
        filename: params.filename,
        block_size: params.block_size,
        read_only: params.readonly.unwrap_or(false),
        fallocate: params.fallocate.unwrap_or(false),
        uuid: params.uuid.map(|Uuid(uuid)| uuid),
        spelling: Spelling::Aio,
    };
    create(control, spec).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateUring {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    uuid: Option<Uuid>,
}

async fn create_uring(control: Control, params: CreateUring) -> Result<String, RpcError> {
    let spec = FileSpec {
        name: params.name,
        filename: params.filename,
        block_size: params.block_size,
        read_only: false,
        fallocate: false,
        uuid: params.uuid.map(|Uuid(uuid)| uuid),
        spelling: Spelling::Uring,
    };
    // SPDK gives no reason.
    create(control, spec).await.map_err(|error| {
        let what = format!("Unable to create URING bdev.: {}", error.message);
        RpcError::new(RpcError::INTERNAL, what)
    })
}

async fn create(control: Control, spec: FileSpec) -> Result<String, RpcError> {
    let bdev = file::create(control.registry(), spec).await.map_err(refused)?;
    // Stores and volumes on it exist before the answer.
    control.registry().wait_for_examine().await;
    Ok(bdev.name().to_owned())
}

async fn delete(control: Control, spelling: Spelling, params: Named) -> Result<bool, RpcError> {
    control.registry().delete(spelling.module(), &params.name).await.map_err(refused)?;
    Ok(true)
}

async fn rescan(control: Control, spelling: Spelling, params: Named) -> Result<bool, RpcError> {
    file::rescan(control.registry(), spelling, &params.name).await.map_err(refused)?;
    Ok(true)
}
