//! Methods of error bdevs.

use serde::Deserialize;
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_block::Operation;
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;
use crate::values::{Uuid, refused};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_error_create", States::RUNTIME, decode, create))?;
    table.add(Method::with("bdev_error_delete", States::RUNTIME, decode, delete))?;
    table.add(Method::with("bdev_error_inject_error", States::RUNTIME, decode, inject_error))?;
    table.add(Method::with("bdev_error_resume_pending", States::RUNTIME, decode, resume_pending))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    base_name: String,
    uuid: Option<Uuid>,
}

async fn create(control: Control, params: Create) -> Result<bool, RpcError> {
    let spec = ErrorSpec { base: params.base_name, uuid: params.uuid.map(|Uuid(uuid)| uuid) };
    error::create(control.registry(), spec).await.map_err(refused)?;
    Ok(true)
}

async fn delete(control: Control, params: Named) -> Result<bool, RpcError> {
    error::delete(control.registry(), &params.name).await.map_err(refused)?;
    Ok(true)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IoType {
    Clear,
    Read,
    Write,
    Unmap,
    Flush,
    All,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ErrorType {
    Failure,
    Pending,
    CorruptData,
    Nomem,
    NvmeFailure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectError {
    name: String,
    io_type: IoType,
    error_type: ErrorType,
    nvme_sct: Option<u32>,
    nvme_sc: Option<u32>,
    num: Option<u32>,
    queue_depth: Option<u64>,
    corrupt_offset: Option<u64>,
    corrupt_value: Option<u8>,
}

impl InjectError {
    fn effect(&self) -> Result<Effect, RpcError> {
        let (sct, sc) = (self.nvme_sct.unwrap_or(0), self.nvme_sc.unwrap_or(0));
        if (self.error_type == ErrorType::NvmeFailure) == (sct == 0 && sc == 0) {
            let what = "nvme_sct or nvme_sc should be specified for NVMe error injection, and for no other";
            return Err(RpcError::new(Errno::INVAL.code(), what));
        }
        let (offset, value) = (self.corrupt_offset.unwrap_or(0), self.corrupt_value.unwrap_or(0));
        if self.error_type == ErrorType::CorruptData && value == 0 {
            let what = "a 'corrupt_value' of 0 changes nothing; give 1 to 255";
            return Err(RpcError::errno(Errno::INVAL, what));
        }
        Ok(match self.error_type {
            ErrorType::Failure => Effect::Failure,
            ErrorType::Pending => Effect::Pending,
            ErrorType::CorruptData => Effect::CorruptData { offset, value },
            ErrorType::Nomem => Effect::NoMemory,
            ErrorType::NvmeFailure => Effect::NvmeFailure { sct, sc },
        })
    }
}

async fn inject_error(control: Control, params: InjectError) -> Result<bool, RpcError> {
    let effect = params.effect()?;
    let (count, queue_depth) = (params.num.unwrap_or(1), params.queue_depth.unwrap_or(0));
    let target = match params.io_type {
        IoType::Clear => None,
        IoType::Read => Some(Target::One(Operation::Read)),
        IoType::Write => Some(Target::One(Operation::Write)),
        IoType::Unmap => Some(Target::One(Operation::Unmap)),
        IoType::Flush => Some(Target::One(Operation::Flush)),
        IoType::All => Some(Target::All),
    };
    let injection = Injection { effect, count, queue_depth };
    let (registry, name) = (control.registry(), &params.name);
    let done = match target {
        Some(target) => error::inject(registry, name, target, injection),
        None => error::clear(registry, name),
    };
    done.map_err(refused)?;
    Ok(true)
}

async fn resume_pending(control: Control, params: Named) -> Result<bool, RpcError> {
    error::resume(control.registry(), &params.name).await.map_err(refused)?;
    Ok(true)
}
