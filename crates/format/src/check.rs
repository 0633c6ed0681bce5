//! Everything that is wrong with a loaded store, as a typed list.

use crate::error::FormatError;
use crate::ids::BlobId;
use crate::store::Store;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A blob cannot be read.
    DamagedBlob {
        /// The blob.
        blob: BlobId,
        /// What is wrong.
        errors: Vec<FormatError>,
    },
}

/// Looks for everything that is wrong with a store. Nothing is found on a healthy one.
pub fn check(_store: &Store) -> Vec<Finding> {
    todo!()
}
