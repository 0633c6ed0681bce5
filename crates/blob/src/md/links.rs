//! The internal xattrs by which blobs name each other: a parent, and the marks of unfinished operations.

use spindle_format::metadata::internal;
use spindle_format::{BlobId, BlobMetadata, Flags, Parent};

/// Sets the parent in a blob's metadata.
pub(crate) fn set_parent(meta: &mut BlobMetadata, parent: Option<&Parent>) {
    let fits = "ids of blobs are short, and this one's id fitted a page before";
    match parent {
        Some(Parent::Snapshot(id)) => {
            meta.flags.invalid &= !Flags::EXTERNAL_SNAPSHOT;
            meta.remove_internal(internal::EXTERNAL_SNAPSHOT_ID);
            meta.set_internal(internal::SNAPSHOT, &id.raw().to_le_bytes()).expect(fits);
        }
        Some(Parent::External(id)) => {
            meta.remove_internal(internal::SNAPSHOT);
            meta.set_internal(internal::EXTERNAL_SNAPSHOT_ID, id).expect(fits);
            meta.flags.invalid |= Flags::EXTERNAL_SNAPSHOT;
        }
        None => {
            meta.flags.invalid &= !Flags::EXTERNAL_SNAPSHOT;
            meta.remove_internal(internal::SNAPSHOT);
            meta.remove_internal(internal::EXTERNAL_SNAPSHOT_ID);
        }
    }
}

/// Sets an internal xattr that is a blob id.
pub(crate) fn set_id(meta: &mut BlobMetadata, name: &[u8], id: BlobId) {
    meta.set_internal(name, &id.raw().to_le_bytes())
        .expect("the name of an internal xattr and an id are short");
}
