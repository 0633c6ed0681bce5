//! The operations of the workload, and the events of its history.

use std::collections::BTreeSet;

use spindle_blob::{BlobId, BsType};

use crate::units::Value;

/// A blob's number in the model. The blob carries it as an xattr, which identifies it after a crash.
pub type Tag = u32;

/// The place a blob reads from where it has no data of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// A snapshot.
    Blob(Tag),
    /// An external snapshot.
    External(u8),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what they are called; units and counts are in io units")]
pub enum Op {
    /// Makes a store with this many clusters for data on a device without one.
    Init { clusters: u64 },
    /// Takes the store off the device.
    Destroy,
    /// Loads and repairs the store, on a device that may have grown.
    Load { grow: bool },
    /// Creates a blob; if `waived`, its clusters may show what they held before.
    Create { tag: Tag, clusters: u64, thin: bool, table: bool, waived: bool, xattrs: Xattrs },
    /// Writes consecutive values, one a unit.
    Write { tag: Tag, unit: u64, count: u64, value: Value },
    /// Writes zeroes.
    Zeroes { tag: Tag, unit: u64, count: u64 },
    /// Discards the contents of units.
    Unmap { tag: Tag, unit: u64, count: u64 },
    /// Makes earlier writes durable.
    Flush { tag: Tag },
    /// Reads, and compares with the model.
    Read { tag: Tag, unit: u64, count: u64 },
    /// Changes a blob's size.
    Resize { tag: Tag, clusters: u64 },
    /// Replaces the whole content of a blob by consecutive values, one a unit, and zeroes elsewhere.
    Replace { tag: Tag, unit: u64, count: u64, value: Value },
    /// Sets an xattr; not durable yet.
    SetXattr { tag: Tag, name: u8, value: Vec<u8> },
    /// Removes an xattr; not durable yet.
    RemoveXattr { tag: Tag, name: u8 },
    /// Makes xattrs durable.
    Sync { tag: Tag },
    /// Opens a blob a second time.
    Open { tag: Tag },
    /// Closes a blob, which makes its xattrs durable, and opens it again.
    Reopen { tag: Tag },
    /// Makes a blob read-only.
    ReadOnly { tag: Tag },
    /// Takes a snapshot.
    Snapshot { tag: Tag, new: Tag },
    /// Makes a clone of a snapshot.
    Clone { tag: Tag, new: Tag },
    /// Makes a clone of an external snapshot.
    CloneExternal { tag: Tag, source: u8, clusters: u64 },
    /// Copies a read-only blob's own clusters to another device.
    ShallowCopy { tag: Tag },
    /// Copies everything that a blob reads into its own clusters.
    Inflate { tag: Tag },
    /// Detaches a blob from its parent.
    Decouple { tag: Tag },
    /// Puts a blob under another parent.
    SetParent { tag: Tag, parent: Above },
    /// Deletes a blob.
    Delete { tag: Tag },
    /// Sets the super blob, which programs look for first.
    SetSuper { tag: Option<Tag> },
    /// Sets the type of the store, which names its owner.
    SetType { bs_type: BsType },
    /// Unloads the store and loads it again, on a device that may have grown.
    Reload { grow: bool },
    /// Extends the store to the size of its device.
    Grow,
}

/// The xattrs of a blob that the model tracks, by a byte that stands for the name.
pub type Xattrs = std::collections::BTreeMap<u8, Vec<u8>>;

impl Op {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Init { .. } => "init",
            Op::Destroy => "destroy",
            Op::Load { .. } => "load",
            Op::Create { thin: true, .. } => "create thin",
            Op::Create { .. } => "create thick",
            Op::Write { .. } => "write",
            Op::Zeroes { .. } => "write zeroes",
            Op::Unmap { .. } => "unmap",
            Op::Flush { .. } => "flush",
            Op::Read { .. } => "read",
            Op::Resize { .. } => "resize",
            Op::Replace { .. } => "replace",
            Op::SetXattr { .. } => "set xattr",
            Op::RemoveXattr { .. } => "remove xattr",
            Op::Sync { .. } => "sync",
            Op::Open { .. } => "open",
            Op::Reopen { .. } => "close and open",
            Op::ReadOnly { .. } => "set read-only",
            Op::Snapshot { .. } => "snapshot",
            Op::Clone { .. } => "clone",
            Op::CloneExternal { .. } => "clone external",
            Op::ShallowCopy { .. } => "shallow copy",
            Op::Inflate { .. } => "inflate",
            Op::Decouple { .. } => "decouple",
            Op::SetParent { parent: Above::Blob(_), .. } => "set parent",
            Op::SetParent { .. } => "set external parent",
            Op::Delete { .. } => "delete",
            Op::SetSuper { .. } => "set super blob",
            Op::SetType { .. } => "set type",
            Op::Reload { .. } => "unload and load",
            Op::Grow => "grow",
        }
    }

    /// The blob whose data or xattrs it concerns.
    pub fn blob(&self) -> Option<Tag> {
        match self {
            Op::Write { tag, .. }
            | Op::Zeroes { tag, .. }
            | Op::Unmap { tag, .. }
            | Op::Flush { tag }
            | Op::Read { tag, .. }
            | Op::SetXattr { tag, .. }
            | Op::RemoveXattr { tag, .. } => Some(*tag),
            _ => None,
        }
    }

    /// The blob that it creates.
    pub fn new_blob(&self) -> Option<Tag> {
        match self {
            Op::Create { tag, .. } | Op::CloneExternal { tag, .. } => Some(*tag),
            Op::Snapshot { new, .. } | Op::Clone { new, .. } => Some(*new),
            _ => None,
        }
    }

    /// The blobs that it names.
    pub fn tags(&self) -> BTreeSet<Tag> {
        let mut tags: BTreeSet<Tag> = self.new_blob().into_iter().collect();
        match self {
            Op::Snapshot { tag, .. }
            | Op::Clone { tag, .. }
            | Op::Resize { tag, .. }
            | Op::Replace { tag, .. }
            | Op::Sync { tag }
            | Op::Open { tag }
            | Op::Reopen { tag }
            | Op::ReadOnly { tag }
            | Op::ShallowCopy { tag }
            | Op::Inflate { tag }
            | Op::Decouple { tag }
            | Op::Delete { tag }
            | Op::SetSuper { tag: Some(tag) } => tags.extend([*tag]),
            Op::SetParent { tag, parent: Above::Blob(parent) } => tags.extend([*tag, *parent]),
            Op::SetParent { tag, .. } => tags.extend([*tag]),
            _ => {}
        }
        tags
    }

    /// True if it concerns the whole store, so that it conflicts with every other operation.
    pub fn is_about_all(&self) -> bool {
        matches!(self, Op::Init { .. } | Op::Destroy)
    }

    /// True if it changes metadata on the disk, atomically.
    pub fn is_change(&self) -> bool {
        let passes = matches!(
            self,
            Op::SetXattr { .. } | Op::RemoveXattr { .. } | Op::Open { .. } | Op::ShallowCopy { .. }
        );
        !self.is_data() && !passes
    }

    /// True if it concerns data; all others concern metadata.
    pub fn is_data(&self) -> bool {
        matches!(
            self,
            Op::Write { .. } | Op::Zeroes { .. } | Op::Unmap { .. } | Op::Flush { .. } | Op::Read { .. }
        )
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With success, and the id of a new blob.
    Done(Option<BlobId>),
    /// With an expected error: metadata is unchanged, data may be changed in part.
    Refused,
}

/// An event of the history. Operations are named by the number of the event at which they began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation begins.
    Begin(Op),
    /// The operation that began at this event has ended.
    End(u32, Outcome),
    /// Everything is known again: the store was loaded and read, or there is none.
    Found(Option<Box<crate::seen::Seen>>),
}
