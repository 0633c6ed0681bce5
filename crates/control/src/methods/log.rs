//! Levels and flags of the log.

use std::collections::BTreeMap;

use serde::Deserialize;
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;
use crate::log::Level;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (both, decode) = (States::BOTH, BadParams::DECODE_FAILED);
    let refusal = |words| BadParams::new(RpcError::INVALID_PARAMS, words);
    let timestamps = refusal("spdk_json_decode_object failed");
    table.add(Method::with("log_enable_timestamps", States::RUNTIME, timestamps, enable_timestamps))?;
    table.add(Method::without(
        "log_get_flags",
        both,
        refusal("log_get_flags requires no parameters"),
        get_flags,
    ))?;
    table.add(Method::with("log_set_flag", both, decode, set_flag))?;
    table.add(Method::with("log_clear_flag", both, decode, clear_flag))?;
    table.add(Method::without(
        "log_get_level",
        both,
        refusal("log_get_level requires no parameters"),
        get_level,
    ))?;
    table.add(Method::with("log_set_level", both, decode, set_level))?;
    let words = "log_get_print_level requires no parameters";
    table.add(Method::without("log_get_print_level", both, refusal(words), get_print_level))?;
    table.add(Method::with("log_set_print_level", both, decode, set_print_level))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    flag: String,
}

async fn get_flags(control: Control) -> Result<BTreeMap<&'static str, bool>, RpcError> {
    Ok(control.log().flags())
}

async fn set_flag(control: Control, params: Flag) -> Result<bool, RpcError> {
    change_flag(&control, &params.flag, true)
}

async fn clear_flag(control: Control, params: Flag) -> Result<bool, RpcError> {
    change_flag(&control, &params.flag, false)
}

fn change_flag(control: &Control, name: &str, to: bool) -> Result<bool, RpcError> {
    if !control.log().set_flag(name, to) {
        let what = format!("invalid log flag: '{name}'; log_get_flags lists them");
        return Err(RpcError::new(RpcError::INVALID_PARAMS, what));
    }
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevel {
    level: Level,
}

async fn get_level(control: Control) -> Result<Level, RpcError> {
    Ok(control.log().level())
}

async fn set_level(control: Control, params: SetLevel) -> Result<bool, RpcError> {
    control.log().set_level(params.level);
    Ok(true)
}

async fn get_print_level(control: Control) -> Result<Level, RpcError> {
    Ok(control.log().print_level())
}

async fn set_print_level(control: Control, params: SetLevel) -> Result<bool, RpcError> {
    control.log().set_print_level(params.level);
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamps {
    enabled: bool,
}

async fn enable_timestamps(control: Control, params: Timestamps) -> Result<bool, RpcError> {
    control.log().set_timestamps(params.enabled);
    Ok(true)
}
