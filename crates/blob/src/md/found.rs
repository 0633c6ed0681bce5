//! What a load found in a store. Does not change while the store is open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spindle_format::{BlobId, PageIdx};

/// What the load found; nothing for a new store.
#[derive(Default)]
pub(crate) struct Found {
    /// Pages of blobs that something on disk named at the load and that were missing, or may be freed while
    /// their names stay. None becomes the root of a new blob, which would be mistaken for the named one.
    pub(crate) reserved_roots: BTreeSet<PageIdx>,
    /// Blobs named by damaged ones, which may read through them.
    pub(crate) named_by_damaged: BTreeSet<BlobId>,
    /// Snapshots that keep the marker of an operation that was cut off: it is unknown whether they are needed, or the marker
    /// could not be removed.
    pub(crate) half_done: BTreeSet<BlobId>,
    /// Unreadable blobs, and why.
    pub(crate) damaged: BTreeMap<BlobId, Arc<str>>,
    /// Metadata pages that the device could not read: their owners are unknown.
    pub(crate) unreadable: BTreeSet<PageIdx>,
    /// True if the masks were not used: what is in use was determined from the metadata.
    pub(crate) recovered: bool,
    /// True if a resize stays half done because no metadata page is free: the store is not marked as left in order then.
    pub(crate) leaves_resize: bool,
    /// Why nothing may be allocated or freed.
    pub(crate) blocked: Option<Arc<str>>,
}
