//! SPDK's requirements for an lvolstore, beyond those for any store.
//!
//! A store may carry the type without having been one: there are no findings if no blob has a UUID and the
//! super blob is not empty as that of an lvolstore.

use super::Finding;
use crate::ids::BlobId;
use crate::metadata::BlobMetadata;
use crate::store::{Blob, Store};
use crate::super_block::BsType;
use std::collections::BTreeMap;

/// Bytes of a UUID as SPDK stores it: 36 characters and a NUL.
const UUID_BYTES: usize = 37;
/// Most bytes of the name of an lvolstore or a volume.
const NAME_BYTES: usize = 64;

/// A fault of an lvolstore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LvolFault {
    /// The super block names no super blob.
    NoSuperBlob,
    /// The super blob has clusters: it is a volume.
    SuperBlobIsVolume(BlobId),
    /// The super blob's `uuid` is missing or not one.
    StoreUuid(BlobId),
    /// The super blob's `name` is missing or too long.
    StoreName(BlobId),
    /// A volume's `name` is missing or too long.
    VolumeName(BlobId),
    /// The super blob's `name` is not text that ends in a NUL.
    StoreNameText(BlobId),
    /// A volume's `name` is not text that ends in a NUL.
    VolumeNameText(BlobId),
    /// A volume's `uuid` is missing or not one.
    VolumeUuid(BlobId),
    /// Two volumes have one name.
    SameName(BlobId, BlobId),
    /// Two volumes have one UUID.
    SameUuid(BlobId, BlobId),
}

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    if store.super_block.bs_type != BsType::LVOLSTORE || !is_lvolstore(store) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    match store.super_block.super_blob {
        None => faults.push(LvolFault::NoSuperBlob),
        Some(id) => faults.extend(store.blob(id).into_iter().flat_map(of_super_blob)),
    }
    let (mut names, mut uuids) = (BTreeMap::new(), BTreeMap::new());
    let volumes = store.blobs.values().filter(|blob| Some(blob.id) != store.super_block.super_blob);
    for Blob { id, metadata, .. } in volumes {
        match name(metadata) {
            None => faults.push(LvolFault::VolumeName(*id)),
            Some(name) => {
                faults.extend((!is_text(metadata)).then_some(LvolFault::VolumeNameText(*id)));
                faults.extend(names.insert(name, *id).map(|other| LvolFault::SameName(other, *id)));
            }
        }
        match uuid(metadata) {
            None => faults.push(LvolFault::VolumeUuid(*id)),
            Some(uuid) => faults.extend(uuids.insert(uuid, *id).map(|other| LvolFault::SameUuid(other, *id))),
        }
    }
    faults.into_iter().map(Finding::Lvolstore).collect()
}

fn is_lvolstore(store: &Store) -> bool {
    let empty_super_blob = store.super_block.super_blob.and_then(|id| store.blob(id));
    let empty_super_blob = empty_super_blob.is_some_and(|blob| blob.metadata.map.num_clusters() == 0);
    empty_super_blob || store.blobs.values().any(|blob| blob.metadata.xattrs.get(b"uuid").is_some())
}

fn of_super_blob(blob: &Blob) -> Vec<LvolFault> {
    let is_volume = blob.metadata.map.num_clusters() > 0;
    let faults = [
        is_volume.then_some(LvolFault::SuperBlobIsVolume(blob.id)),
        uuid(&blob.metadata).is_none().then_some(LvolFault::StoreUuid(blob.id)),
        match name(&blob.metadata) {
            None => Some(LvolFault::StoreName(blob.id)),
            Some(_) => (!is_text(&blob.metadata)).then_some(LvolFault::StoreNameText(blob.id)),
        },
    ];
    faults.into_iter().flatten().collect()
}

/// The name as SPDK reads it: up to the first NUL.
fn name(metadata: &BlobMetadata) -> Option<&[u8]> {
    let value = metadata.xattrs.get(b"name").filter(|value| value.len() <= NAME_BYTES)?;
    Some(value.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// Whether the name can be shown in JSON, as a daemon does: UTF-8 that is not empty and ends in a NUL.
fn is_text(metadata: &BlobMetadata) -> bool {
    let value = metadata.xattrs.get(b"name").filter(|value| value.contains(&0));
    value.is_some()
        && name(metadata).is_some_and(|name| !name.is_empty() && std::str::from_utf8(name).is_ok())
}

/// The UUID in lower case, if SPDK accepts it.
fn uuid(metadata: &BlobMetadata) -> Option<Vec<u8>> {
    let (nul, text) = metadata.xattrs.get(b"uuid").filter(|value| value.len() == UUID_BYTES)?.split_last()?;
    let fits = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (*nul == 0 && text.iter().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

impl LvolFault {
    pub(super) fn code(self) -> &'static str {
        match self {
            LvolFault::NoSuperBlob | LvolFault::SuperBlobIsVolume(_) => "lvolstore-super-blob",
            LvolFault::StoreUuid(_) => "lvolstore-uuid",
            LvolFault::StoreName(_) | LvolFault::StoreNameText(_) => "lvolstore-name",
            LvolFault::VolumeName(_) | LvolFault::VolumeNameText(_) => "lvol-name",
            LvolFault::VolumeUuid(_) => "lvol-uuid",
            LvolFault::SameName(..) => "lvol-same-name",
            LvolFault::SameUuid(..) => "lvol-same-uuid",
        }
    }

    /// True if SPDK does not open the store.
    pub(super) fn is_refused(self) -> bool {
        matches!(
            self,
            LvolFault::NoSuperBlob
                | LvolFault::StoreUuid(_)
                | LvolFault::StoreName(_)
                | LvolFault::VolumeName(_)
        )
    }

    pub(super) fn meaning(self) -> &'static str {
        match self {
            LvolFault::SuperBlobIsVolume(_) => {
                "SPDK takes the volume's name and UUID for those of the store, and does not offer the volume"
            }
            LvolFault::StoreNameText(_) => {
                "spindle serve does not open the lvolstore: names in JSON are UTF-8"
            }
            LvolFault::VolumeNameText(_) => {
                "spindle serve does not offer the volume: names in JSON are UTF-8"
            }
            LvolFault::VolumeUuid(_) => "SPDK gives the volume another name, made of its blob's id",
            LvolFault::SameName(..) | LvolFault::SameUuid(..) => "SPDK offers one of the two volumes only",
            _ => "SPDK does not open the lvolstore, none of its volumes",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            LvolFault::NoSuperBlob | LvolFault::SuperBlobIsVolume(_) => {
                "not repaired: name the blob with the store's name and UUID with spindle blob super"
            }
            LvolFault::StoreUuid(_) | LvolFault::VolumeUuid(_) | LvolFault::SameUuid(..) => {
                "not repaired: set a UUID with spindle blob xattr IMAGE BLOB set uuid UUID"
            }
            LvolFault::StoreName(_)
            | LvolFault::StoreNameText(_)
            | LvolFault::VolumeName(_)
            | LvolFault::VolumeNameText(_)
            | LvolFault::SameName(..) => {
                "not repaired: set a name with spindle blob xattr IMAGE BLOB set name NAME"
            }
        }
    }
}

impl std::fmt::Display for LvolFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uuid = "that is 36 characters and a NUL";
        match self {
            LvolFault::NoSuperBlob => write!(f, "super block at byte 0: an lvolstore without super blob"),
            LvolFault::SuperBlobIsVolume(blob) => {
                write!(f, "the super blob {blob} holds data: it is a volume")
            }
            LvolFault::StoreUuid(blob) => write!(f, "super blob {blob}: the store has no uuid {uuid}"),
            LvolFault::StoreName(blob) => {
                write!(f, "super blob {blob}: the store has no name of up to 64 bytes")
            }
            LvolFault::VolumeName(blob) => write!(f, "volume {blob} has no name of up to 64 bytes"),
            LvolFault::StoreNameText(blob) => {
                write!(f, "super blob {blob}: the store's name is not UTF-8 that ends in a NUL")
            }
            LvolFault::VolumeNameText(blob) => {
                write!(f, "volume {blob} has a name that is not UTF-8 that ends in a NUL")
            }
            LvolFault::VolumeUuid(blob) => write!(f, "volume {blob} has no uuid {uuid}"),
            LvolFault::SameName(a, b) => write!(f, "volumes {a} and {b} have the same name"),
            LvolFault::SameUuid(a, b) => write!(f, "volumes {a} and {b} have the same uuid"),
        }
    }
}
