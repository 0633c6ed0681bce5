//! Looks up the volumes and stores that parameters name, and turns errors of both into answers.

use spindle_bdev::BdevError;
use spindle_lvol::{Lvol, LvolError, LvolStore, StoreKey};
use spindle_rpc::{Errno, RpcError};

use crate::control::Control;
use crate::values::parse_uuid;

/// The volume of that name, alias or UUID.
pub(super) fn lvol(control: &Control, name: &str) -> Result<Lvol, RpcError> {
    control.lvols().lvol(name).map_err(|error| at_once(&error))
}

/// As [`lvol`], for methods that look for its bdev: a volume without its external snapshot has none.
pub(super) fn lvol_on_bdev(control: &Control, name: &str) -> Result<Lvol, RpcError> {
    let lvol = lvol(control, name)?;
    match lvol.without_bdev() {
        None => Ok(lvol),
        Some(error) => Err(at_once(&error)),
    }
}

/// An error found before the operation began: the errno is the code.
pub(super) fn at_once(error: &LvolError) -> RpcError {
    RpcError::errno(Errno::from_raw(error.errno()), error)
}

/// An error during the operation: SPDK's code is -32602 with the name of the errno. A volume without its external
/// snapshot is no bdev: SPDK does not find it.
pub(super) fn under_way(error: &LvolError) -> RpcError {
    if matches!(error, LvolError::Degraded { .. } | LvolError::NameTaken { .. }) {
        return at_once(error);
    }
    RpcError::named(RpcError::INVALID_PARAMS, Errno::from_raw(error.errno()), error)
}

/// The store that one of two parameters names.
pub(super) fn selected(
    control: &Control,
    (uuid_parameter, uuid): (&str, Option<&str>),
    name: Option<&str>,
) -> Result<LvolStore, RpcError> {
    let key = match (uuid, name) {
        (None, Some(name)) => StoreKey::Name(name.to_owned()),
        (Some(uuid), None) => match parse_uuid(uuid) {
            Some(uuid) => StoreKey::Uuid(uuid),
            None => {
                return Err(RpcError::errno(
                    Errno::NODEV,
                    format!(
                        "there is no lvolstore of the UUID '{uuid}'; bdev_lvol_get_lvstores lists those there are"
                    ),
                ));
            }
        },
        _ => {
            let what = format!("give one of '{uuid_parameter}' and 'lvs_name'");
            return Err(RpcError::errno(Errno::INVAL, what));
        }
    };
    control.lvols().store(&key).map_err(|error| at_once(&error))
}

/// An error of the bdev layer, answered as by methods that SPDK begins before it looks for the bdev.
pub(super) fn refused_by_bdev(error: BdevError) -> RpcError {
    RpcError::named(RpcError::INVALID_PARAMS, Errno::from_raw(error.errno()), error)
}
