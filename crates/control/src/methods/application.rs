//! The application itself: its version, its methods, its end.

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

/// The release of SPDK whose methods and answers are implemented.
const SPDK: (u32, u32, u32) = (26, 5, 0);

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let refusal = BadParams::new(RpcError::INVALID_PARAMS, "spdk_get_version method requires no parameters");
    table.add(Method::with("spdk_kill_instance", States::RUNTIME, BadParams::INVALID, kill_instance))?;
    table.add(Method::list("rpc_get_methods"))?;
    table.add(Method::without("spdk_get_version", States::BOTH, refusal, async |_| Ok(Version::ours())))
}

#[derive(Serialize)]
struct Version {
    version: String,
    fields: Fields,
}

#[derive(Serialize)]
struct Fields {
    major: u32,
    minor: u32,
    patch: u32,
    suffix: &'static str,
    commit: &'static str,
}

impl Version {
    fn ours() -> Version {
        let (major, minor, patch) = SPDK;
        let version = format!("SPDK v{major}.{minor:02} (Spindle {})", env!("CARGO_PKG_VERSION"));
        Version { version, fields: Fields { major, minor, patch, suffix: "", commit: "" } }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    sig_name: Signal,
}

#[derive(Deserialize, Clone, Copy)]
enum Signal {
    #[serde(rename = "SIGINT")]
    Interrupt,
    #[serde(rename = "SIGTERM")]
    Terminate,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGHUP")]
    HangUp,
    #[serde(rename = "SIGKILL")]
    Kill,
    #[serde(rename = "SIGUSR1")]
    User1,
}

/// Has the effect of the signal. An orderly end sends this answer first.
async fn kill_instance(control: Control, kill: Kill) -> Result<bool, RpcError> {
    match kill.sig_name {
        Signal::HangUp if control.log().has_file() => control.log().reopen(),
        Signal::Interrupt | Signal::Terminate | Signal::Quit | Signal::HangUp => control.runtime().stop(0),
        Signal::Kill => {
            let kill =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            kill.map_err(|errno| {
                RpcError::new(RpcError::INTERNAL, format!("failed to send signal: {errno}"))
            })?;
        }
        Signal::User1 => {
            let dump = control.runtime().dump().await;
            control.log().dump(&dump.to_string());
        }
    }
    Ok(true)
}
