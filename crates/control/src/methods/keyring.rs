//! Keys in files. Nothing uses them yet.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::control::Control;
use crate::settings::keyring::{Key, KeyError};

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, invalid) = (States::RUNTIME, BadParams::new(RpcError::INVALID_PARAMS, "Invalid argument"));
    table.add(Method::with("keyring_file_add_key", runtime, invalid, add_key))?;
    table.add(Method::with("keyring_file_remove_key", runtime, invalid, remove_key))?;
    table.add(Method::ignoring("keyring_get_keys", runtime, get_keys))
}

/// Members beside these are ignored, as in SPDK.
#[derive(Deserialize)]
struct AddKey {
    name: String,
    path: PathBuf,
}

async fn add_key(control: Control, params: AddKey) -> Result<bool, RpcError> {
    let name = params.name.clone();
    control.keyring().add(params.name, params.path).map_err(refused)?;
    spindle_reactor::tell("keyring", || format!("key {name:?} is there"));
    Ok(true)
}

async fn remove_key(control: Control, params: Named) -> Result<bool, RpcError> {
    control.keyring().remove(&params.name).map_err(refused)?;
    spindle_reactor::tell("keyring", || format!("key {:?} is gone", params.name));
    Ok(true)
}

fn refused(error: KeyError) -> RpcError {
    let is_missing = matches!(error, KeyError::Unknown(_));
    let errno = match &error {
        KeyError::NoKeyring(_) => Errno::INVAL,
        KeyError::Exists(_) => Errno::EXIST,
        KeyError::Unknown(_) => Errno::NOKEY,
        KeyError::Relative(_) | KeyError::Open { .. } | KeyError::Foreign { .. } => Errno::PERM,
        KeyError::File { source, .. } => source.raw_os_error().map_or(Errno::INVAL, Errno::from_raw),
    };
    let refused = RpcError::errno(errno, error);
    if is_missing { refused.of_missing_object() } else { refused }
}

#[derive(Serialize)]
struct Shown {
    name: String,
    module: &'static str,
    removed: bool,
    probed: bool,
    /// Its users: the keyring alone.
    refcnt: i32,
    path: PathBuf,
}

async fn get_keys(control: Control) -> Result<Vec<Shown>, RpcError> {
    let shown = |Key { name, path }| {
        let (module, removed, probed, refcnt) = ("keyring_file", false, false, 1);
        Shown { name, module, removed, probed, refcnt, path }
    };
    Ok(control.keyring().keys().into_iter().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::keyring::Keyring;

    #[test]
    fn a_refusal_for_a_file_that_cannot_be_accessed_has_its_path_the_remedy_and_the_reason_once() {
        for (path, reason) in
            [("/nope/key", "No such file or directory"), ("/dev/null/key", "Not a directory")]
        {
            let error = Keyring::default().add("k".to_owned(), path.into()).unwrap_err();
            let said = refused(error).message;
            assert!(said.starts_with(&format!("{reason}: the key's file '{path}'")), "{said}");
            assert!(
                said.matches(reason).count() == 1 && said.contains("name a file that is there"),
                "{said}"
            );
        }
    }
}
