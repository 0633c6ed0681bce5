//! Why a volume has no bdev.

use spindle_bdev::Uuid;

/// Why a volume has no bdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// The bdev of that UUID.
    ExternalSnapshot(Uuid),
    /// Its name, which `by` has.
    Name { name: String, by: String },
}
