//! What the workload does to a store, and the history of it.

use std::collections::BTreeSet;

use spindle_blob::{BlobId, BsType};

use crate::units::Value;

/// A blob's number in the model; the blob carries it as an xattr, by which it is known again after a crash.
pub type Tag = u32;

/// What a blob reads where it has nothing itself.
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
    /// Makes a store with so many clusters for data where none is.
    Init { clusters: u64 },
    /// Takes the store off the device.
    Destroy,
    /// Loads the store, with everything that has to be put right first, onto a device that may have grown.
    Load { grow: bool },
    /// Makes a blob; `waived` if its clusters may show what they held before.
    Create { tag: Tag, clusters: u64, thin: bool, table: bool, waived: bool, xattrs: Xattrs },
    /// Writes consecutive values, one a unit.
    Write { tag: Tag, unit: u64, count: u64, value: Value },
    /// Writes zeroes.
    Zeroes { tag: Tag, unit: u64, count: u64 },
    /// Says that units hold nothing of use.
    Unmap { tag: Tag, unit: u64, count: u64 },
    /// Makes durable what was written.
    Flush { tag: Tag },
    /// Reads, and compares with the model.
    Read { tag: Tag, unit: u64, count: u64 },
    /// Changes a blob's size.
    Resize { tag: Tag, clusters: u64 },
    /// Replaces all that a blob holds by these consecutive values, one a unit, and zeroes.
    Replace { tag: Tag, unit: u64, count: u64, value: Value },
    /// Sets an xattr, not durably.
    SetXattr { tag: Tag, name: u8, value: Vec<u8> },
    /// Removes an xattr, not durably.
    RemoveXattr { tag: Tag, name: u8 },
    /// Makes xattrs durable.
    Sync { tag: Tag },
    /// Opens a blob once more.
    Open { tag: Tag },
    /// Closes a blob, which makes xattrs durable, and opens it again.
    Reopen { tag: Tag },
    /// Makes a blob read-only.
    ReadOnly { tag: Tag },
    /// Takes a snapshot.
    Snapshot { tag: Tag, new: Tag },
    /// Makes a clone of a snapshot.
    Clone { tag: Tag, new: Tag },
    /// Makes a clone of an external snapshot.
    CloneExternal { tag: Tag, source: u8, clusters: u64 },
    /// Copies what a read-only blob has itself to another device.
    ShallowCopy { tag: Tag },
    /// Gives a blob everything it reads.
    Inflate { tag: Tag },
    /// Frees a blob from its parent.
    Decouple { tag: Tag },
    /// Puts a blob under another parent.
    SetParent { tag: Tag, parent: Above },
    /// Deletes a blob.
    Delete { tag: Tag },
    /// Says which blob programs look for first.
    SetSuper { tag: Option<Tag> },
    /// Says whose store it is.
    SetType { bs_type: BsType },
    /// Leaves the store in order and loads it again, onto a device that may have grown.
    Reload { grow: bool },
    /// Takes over the space that the device has gained.
    Grow,
}

/// The xattrs of a blob that the model cares for, by a byte that stands for the name.
pub type Xattrs = std::collections::BTreeMap<u8, Vec<u8>>;

impl Op {
    /// What the report calls it.
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

    /// The blob whose data or xattrs it is about.
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

    /// The blob that it makes.
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

    /// Whether it is about the whole store, so that every operation meets it.
    pub fn is_about_all(&self) -> bool {
        matches!(self, Op::Init { .. } | Op::Destroy)
    }

    /// Whether it changes metadata on the disk, all or nothing.
    pub fn is_change(&self) -> bool {
        let passes = matches!(
            self,
            Op::SetXattr { .. } | Op::RemoveXattr { .. } | Op::Open { .. } | Op::ShallowCopy { .. }
        );
        !self.is_data() && !passes
    }

    /// Whether it is about data; the others are about metadata.
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
    /// With success; a new blob has this id.
    Done(Option<BlobId>),
    /// With an error that was to be expected: nothing has happened, or to data anything in part.
    Refused,
}

/// Something that happened, by the number of the event at which its operation began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation begins.
    Begin(Op),
    /// The operation that began at this event has ended.
    End(u32, Outcome),
    /// Everything is known again: the store was loaded and read, or there is none.
    Found(Option<Box<crate::seen::Seen>>),
}
