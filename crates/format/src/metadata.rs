//! A blob's metadata: flags, xattrs, internal xattrs, the map of its clusters.
//!
//! Plain values. [`crate::chain`] converts them to pages and back.

use crate::cluster_map::ClusterMap;
use crate::ids::BlobId;

/// The xattr of a new blob that an import is filling: its value is the name that the blob gets when all of it
/// is durable, or empty. Specific to this project; to SPDK it is an ordinary xattr.
pub const IMPORTING: &[u8] = b"spindle.importing";

/// The beginning of the names of xattrs that are this project's own. Commands set none of them for their users.
pub const RESERVED: &[u8] = b"spindle.";

/// The beginning of the name that a blob of an lvolstore, where every blob needs one, has until it is imported.
pub const IMPORT_NAME: &[u8] = b"importing-";

/// The name that the blob with these xattrs gets when its import is complete, which may be empty; `None` if it is not
/// being imported. A blob that has a name of its own is not, whatever marks it.
pub fn importing(xattrs: &[Xattr]) -> Option<&[u8]> {
    let value = |key: &[u8]| xattrs.iter().find(|xattr| xattr.name == key).map(|xattr| &xattr.value[..]);
    value(IMPORTING).filter(|_| value(b"name").is_none_or(|name| name.starts_with(IMPORT_NAME)))
}

/// The parent of a blob, from which it reads the clusters that it does not own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parent {
    /// A snapshot in the same store.
    Snapshot(BlobId),
    /// A snapshot elsewhere, by an id of opaque bytes (lvolstores: a UUID as text with its NUL).
    External(Vec<u8>),
}

/// The three words of flags of a blob. An unknown bit makes the blob unusable, read-only, or its metadata
/// read-only, depending on its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// A program that does not know one of these bits must not open the blob.
    pub invalid: u64,
    /// A program that does not know one of these bits must not write the blob's data or metadata.
    pub data_read_only: u64,
    /// A program that does not know one of these bits must not write the blob's metadata.
    pub metadata_read_only: u64,
}

impl Flags {
    /// In `invalid`: clusters are allocated when first written.
    pub const THIN: u64 = 1;
    /// In `invalid`: there are internal xattrs (SPDK may leave it out by mistake).
    pub const INTERNAL_XATTR: u64 = 1 << 1;
    /// In `invalid`: the cluster map is an extent table, not a run-length list.
    pub const EXTENT_TABLE: u64 = 1 << 2;
    /// In `invalid`: a clone of an external snapshot.
    pub const EXTERNAL_SNAPSHOT: u64 = 1 << 3;
    /// In `data_read_only`: read-only, as snapshots are.
    pub const READ_ONLY: u64 = 1;

    /// True if clusters are allocated when first written.
    pub fn thin(&self) -> bool {
        self.invalid & Flags::THIN != 0
    }

    /// True if the blob is marked read-only.
    pub fn read_only(&self) -> bool {
        self.data_read_only & Flags::READ_ONLY != 0
    }

    /// True if the blob's data must not be written: it is marked read-only, or has a bit of a newer version.
    pub fn data_locked(&self) -> bool {
        self.data_read_only != 0
    }

    /// True if the blob's metadata must not be written: its data must not, or it has a bit of a newer
    /// version.
    pub fn metadata_locked(&self) -> bool {
        self.data_locked() || self.metadata_read_only & !3 != 0
    }

    /// True if the blob is a clone of an external snapshot.
    pub fn external_snapshot(&self) -> bool {
        self.invalid & Flags::EXTERNAL_SNAPSHOT != 0
    }

    /// How clusters are cleared when they are given back.
    pub fn clear_method(&self) -> ClearMethod {
        match self.metadata_read_only & 3 {
            0 => ClearMethod::Default,
            1 => ClearMethod::None,
            2 => ClearMethod::Unmap,
            _ => ClearMethod::WriteZeroes,
        }
    }

    /// Sets how clusters are cleared when they are given back.
    pub fn set_clear_method(&mut self, method: ClearMethod) {
        self.metadata_read_only = self.metadata_read_only & !3 | method as u64;
    }
}

/// How a cluster is cleared when a blob gives it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClearMethod {
    /// The store's default: unmapped.
    #[default]
    Default = 0,
    /// Not at all.
    None = 1,
    /// Unmapped.
    Unmap = 2,
    /// Zeroed.
    WriteZeroes = 3,
}

/// A name and a value. Neither must be text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xattr {
    /// The name, without a NUL.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Xattrs in the order in which they were first set, which is their order on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Xattrs(Vec<Xattr>);

/// The names of internal xattrs.
pub mod internal {
    /// The parent snapshot of a clone: a blob id.
    pub const SNAPSHOT: &[u8] = b"SNAP";
    /// On an unfinished snapshot: id of the original blob.
    pub const SNAPSHOT_IN_PROGRESS: &[u8] = b"SNAPTMP";
    /// On a snapshot that is being deleted: id of its only clone.
    pub const SNAPSHOT_PENDING_REMOVAL: &[u8] = b"SNAPRM";
    /// On a clone of an external snapshot: the snapshot's id, opaque bytes.
    pub const EXTERNAL_SNAPSHOT_ID: &[u8] = b"EXTSNAP";
}

impl Xattrs {
    /// None.
    pub const fn new() -> Xattrs {
        Xattrs(Vec::new())
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Xattr> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|xattr| xattr.name == name).map(|xattr| xattr.value.as_slice())
    }

    /// Sets a value; an existing name keeps its place, a new one goes to the end.
    ///
    /// # Errors
    /// The name is empty or holds a NUL, or both together do not fit in one metadata page.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), XattrError> {
        let room = crate::page_layout::DESCRIPTORS_SIZE - 9;
        if name.is_empty() || name.contains(&0) {
            return Err(XattrError::Name { name: name.escape_ascii().to_string() });
        }
        if name.len() + value.len() > room {
            return Err(XattrError::TooLarge { size: name.len() + value.len(), room });
        }
        match self.0.iter_mut().find(|xattr| xattr.name == name) {
            Some(xattr) => xattr.value = value.to_vec(),
            None => self.0.push(Xattr { name: name.to_vec(), value: value.to_vec() }),
        }
        Ok(())
    }

    /// Removes a name; returns its value, if any.
    pub fn remove(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|xattr| xattr.name == name)?;
        Some(self.0.remove(at).value)
    }

    /// Adds an xattr from a page, including duplicates and odd names, so that a rewrite loses nothing.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        self.0.push(Xattr { name: name.to_vec(), value: value.to_vec() });
    }
}

/// Why an xattr cannot be set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum XattrError {
    /// The name is invalid.
    #[error("xattr name {name:?} is empty or holds a NUL byte: choose another")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// Name and value together are too long.
    #[error("xattr name and value take {size} bytes, one metadata page holds {room}: shorten them")]
    TooLarge {
        /// Bytes of both.
        size: usize,
        /// Bytes that fit.
        room: usize,
    },
}

/// A blob's metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobMetadata {
    /// Its flags.
    pub flags: Flags,
    /// The user's xattrs.
    pub xattrs: Xattrs,
    /// The store's own xattrs.
    pub internal: Xattrs,
    /// Where its clusters lie.
    pub map: ClusterMap,
}

impl BlobMetadata {
    /// A blob of size 0 with an extent table, SPDK's default.
    pub fn new_thick() -> BlobMetadata {
        let flags = Flags { invalid: Flags::EXTENT_TABLE, ..Flags::default() };
        BlobMetadata { flags, xattrs: Xattrs::new(), internal: Xattrs::new(), map: ClusterMap::new_table() }
    }

    /// A thin blob of size 0 with an extent table.
    pub fn new_thin() -> BlobMetadata {
        let mut blob = BlobMetadata::new_thick();
        blob.flags.invalid |= Flags::THIN;
        blob
    }

    /// The `name` xattr as text, without its trailing NULs, if it is there and is UTF-8.
    pub fn name(&self) -> Option<&str> {
        name_of(&self.xattrs)
    }

    /// What the blob reads where it has no cluster, if not zeroes. The flags decide, as in SPDK, which leaves
    /// `SNAP` in a clone of an external snapshot when it deletes the snapshot between them, and `EXTSNAP` in
    /// a read-only clone that it inflates.
    pub fn parent(&self) -> Option<Parent> {
        if self.flags.external_snapshot() {
            let id = self.internal.get(internal::EXTERNAL_SNAPSHOT_ID)?;
            return Some(Parent::External(id.to_vec()));
        }
        let snapshot = self.internal_id(internal::SNAPSHOT).filter(|_| self.flags.thin());
        snapshot.map(Parent::Snapshot)
    }

    /// The blob id in an internal xattr, if it is there and is eight bytes long.
    pub fn internal_id(&self, name: &[u8]) -> Option<BlobId> {
        let value: [u8; 8] = self.internal.get(name)?.try_into().ok()?;
        Some(BlobId::from_raw(u64::from_le_bytes(value)))
    }

    /// Sets an internal xattr and the flag for them.
    ///
    /// # Errors
    /// As [`Xattrs::set`].
    pub fn set_internal(&mut self, name: &[u8], value: &[u8]) -> Result<(), XattrError> {
        self.internal.set(name, value)?;
        self.flags.invalid |= Flags::INTERNAL_XATTR;
        Ok(())
    }

    /// Removes an internal xattr, and with the last one the flag.
    pub fn remove_internal(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let removed = self.internal.remove(name);
        if self.internal.is_empty() {
            self.flags.invalid &= !Flags::INTERNAL_XATTR;
        }
        removed
    }
}

/// The `name` xattr as text: up to its first NUL, if it is UTF-8 and not empty.
pub(crate) fn name_of(xattrs: &Xattrs) -> Option<&str> {
    let value = xattrs.get(b"name")?;
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok().filter(|name| !name.is_empty())
}
