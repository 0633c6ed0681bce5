//! What the files of methods share.

use serde::Deserialize;
use spindle_rpc::NameTaken;

/// What `add` of a group returns.
pub(super) type Added = Result<(), NameTaken>;

/// Parameters that are a name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
}
