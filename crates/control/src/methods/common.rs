//! What the files of methods share.

use serde::Deserialize;
use spindle_bdev::BdevError;
use spindle_rpc::{Errno, NameTaken, RpcError};

use crate::control::Control;
use crate::values::{Uuid, refused};

/// What `add` of a group returns.
pub(super) type Added = Result<(), NameTaken>;

/// Parameters that are a name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
}

/// Bytes of which every block size is a multiple.
const SECTOR: u32 = 512;

/// An error if SPDK makes no disk of such blocks.
pub(super) fn check_blocks(count: u64, size: u32, physical: Option<u32>) -> Result<(), RpcError> {
    let refused = |what: String| Err(RpcError::errno(Errno::INVAL, what));
    if count == 0 {
        return refused("'num_blocks' is 0; give one or more".to_owned());
    }
    let sizes = [("block_size", size), ("physical_block_size", physical.unwrap_or(0))];
    match sizes.into_iter().find(|(_, size)| !size.is_multiple_of(SECTOR)) {
        Some((which, size)) => {
            refused(format!("'{which}' {size} is no multiple of {SECTOR}; give one, such as 4096"))
        }
        None => Ok(()),
    }
}

/// An error if a bdev cannot have that name or UUID. For parameters that are not implemented: they are refused after
/// what SPDK refuses.
pub(super) fn check_names(control: &Control, name: Option<&str>, uuid: Option<Uuid>) -> Result<(), RpcError> {
    if name == Some("") {
        return Err(RpcError::errno(Errno::INVAL, "'name' is empty; give at least one character"));
    }
    let uuid = uuid.map(|Uuid(uuid)| uuid).filter(|uuid| !uuid.is_nil()).map(|uuid| uuid.to_string());
    for wanted in name.map(str::to_owned).into_iter().chain(uuid) {
        if let Ok(by) = control.registry().get(&wanted) {
            return Err(refused(BdevError::Exists { name: wanted, by: by.name().to_owned() }));
        }
    }
    Ok(())
}
