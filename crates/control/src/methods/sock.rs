//! Sockets: which implementations there are, and their options.

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;
use crate::settings::sockets::{DEFAULT, IMPLEMENTATIONS, Values};

/// Versions of TLS that may be asked for: whichever both sides have, 1.2 or 1.3 at least.
const TLS_VERSIONS: [u32; 2] = [0, 12];

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (both, startup, invalid) = (States::BOTH, States::STARTUP, BadParams::INVALID);
    let refusal = BadParams::new(RpcError::INVALID_PARAMS, "sock_get_default_impl requires no parameters");
    table.add(Method::with("sock_impl_get_options", both, invalid, get_options))?;
    table.add(Method::with("sock_impl_set_options", startup, invalid, set_options))?;
    table.add(Method::with("sock_set_default_impl", startup, invalid, set_default))?;
    table.add(Method::without("sock_get_default_impl", both, refusal, get_default))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    impl_name: String,
}

fn unknown(implementation: &str) -> RpcError {
    let known = IMPLEMENTATIONS.join(" and ");
    BadParams::INVALID.error(format!("there is no socket implementation '{implementation}', but {known}"))
}

async fn get_options(control: Control, params: Named) -> Result<Values, RpcError> {
    let options = control.sockets().of(&params.impl_name).ok_or_else(|| unknown(&params.impl_name))?;
    Ok(options.get())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    impl_name: String,
    recv_buf_size: Option<u32>,
    send_buf_size: Option<u32>,
    enable_recv_pipe: Option<bool>,
    enable_quickack: Option<bool>,
    enable_placement_id: Option<u32>,
    enable_zerocopy_send_server: Option<bool>,
    enable_zerocopy_send_client: Option<bool>,
    zerocopy_threshold: Option<u32>,
    tls_version: Option<u32>,
    enable_ktls: Option<bool>,
}

async fn set_options(control: Control, asked: SetOptions) -> Result<bool, RpcError> {
    let options = control.sockets().of(&asked.impl_name).ok_or_else(|| unknown(&asked.impl_name))?;
    if let Some(version) = asked.tls_version.filter(|version| !TLS_VERSIONS.contains(version)) {
        let what = format!("'tls_version' {version}: a version of TLS cannot be forced; leave it out, or 0");
        return Err(BadParams::INVALID.error(what));
    }
    if asked.enable_ktls == Some(true) {
        let what = "'enable_ktls' true: TLS is not left to the kernel; leave it out, or false";
        return Err(BadParams::INVALID.error(what));
    }
    let before = options.get();
    options.set(Values {
        recv_buf_size: asked.recv_buf_size.unwrap_or(before.recv_buf_size),
        send_buf_size: asked.send_buf_size.unwrap_or(before.send_buf_size),
        enable_recv_pipe: asked.enable_recv_pipe.unwrap_or(before.enable_recv_pipe),
        enable_quickack: asked.enable_quickack.unwrap_or(before.enable_quickack),
        enable_placement_id: asked.enable_placement_id.unwrap_or(before.enable_placement_id),
        enable_zerocopy_send_server: asked
            .enable_zerocopy_send_server
            .unwrap_or(before.enable_zerocopy_send_server),
        enable_zerocopy_send_client: asked
            .enable_zerocopy_send_client
            .unwrap_or(before.enable_zerocopy_send_client),
        zerocopy_threshold: asked.zerocopy_threshold.unwrap_or(before.zerocopy_threshold),
        tls_version: asked.tls_version.unwrap_or(before.tls_version),
        enable_ktls: before.enable_ktls,
    });
    Ok(true)
}

/// "posix" is the default already. "ssl" is not: a listener of `nbd_listen` is encrypted if it is given certificates.
async fn set_default(_: Control, params: Named) -> Result<bool, RpcError> {
    match params.impl_name.as_str() {
        DEFAULT => Ok(true),
        "ssl" => {
            let what = "sockets are encrypted one by one, by 'tls' of nbd_listen; set 'posix'";
            Err(BadParams::INVALID.error(what))
        }
        other => Err(unknown(other)),
    }
}

#[derive(Serialize)]
struct Chosen {
    impl_name: &'static str,
}

async fn get_default(_: Control) -> Result<Chosen, RpcError> {
    Ok(Chosen { impl_name: DEFAULT })
}
