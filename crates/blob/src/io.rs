//! Checks a request for a blob's data and finds its place, without a lock, on any thread.

use std::sync::atomic::Ordering;

use spindle_block::Operation;

use crate::blob::Blob;
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::shared::BlobShared;

impl Blob {
    /// An error if the range must not be read or written.
    pub(crate) fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), BlobError> {
        let shared = &self.opened.shared;
        self.check_open()?;
        if operation.changes_data() {
            if shared.store.read_only {
                return Err(BlobError::StoreReadOnly { store: shared.store.name.clone() });
            }
            shared.check_data()?;
        }
        let unit = shared.store.io_unit;
        if (offset | len) & u64::from(unit - 1) != 0 {
            return Err(BlobError::Unaligned { blob: shared.id, offset, len, unit });
        }
        let size = shared.bytes();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(BlobError::OutOfRange { blob: shared.id, offset, len, size });
        }
        if shared.store.is_unloaded() {
            return Err(shared.store.gone());
        }
        Ok(())
    }
}

impl BlobShared {
    /// The byte of the device for a read, if the range lies in one known cluster. Look up and send in one
    /// call.
    #[inline]
    pub(crate) fn place_of_read(&self, offset: u64, len: u64) -> Option<u64> {
        let (index, within) = self.in_one_cluster(offset, len)?;
        match self.leaves.get(index) {
            Entry::Own(cluster) | Entry::Inherited(Some(cluster)) => Some(self.start_of(cluster) + within),
            _ => None,
        }
    }

    /// The same for a write that is let in.
    #[inline]
    pub(crate) fn place_of_write(&self, offset: u64, len: u64) -> Option<u64> {
        let (index, within) = self.in_one_cluster(offset, len)?;
        match self.leaves.get(index) {
            Entry::Own(cluster) if !self.keeps_writes_out() => Some(self.start_of(cluster) + within),
            _ => None,
        }
    }

    /// The cluster that holds all of a range, if one does, and the range's place in it.
    #[inline]
    fn in_one_cluster(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let inside = offset.checked_add(len)? <= self.bytes();
        let (index, within) = self.cluster_size.split(offset);
        let in_one = len > 0 && within + len <= self.cluster_size.bytes();
        (inside && in_one).then_some((index, within))
    }

    /// True if a write has to wait or to fail.
    #[inline]
    fn keeps_writes_out(&self) -> bool {
        self.is_frozen() || self.read_only.load(Ordering::Acquire) || self.store.read_only
    }
}
