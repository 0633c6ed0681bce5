//! Gives a thin blob another parent.

use std::rc::Rc;
use std::sync::Arc;

use spindle_block::Device;
use spindle_format::metadata::internal;
use spindle_format::{BlobId, Parent};

use super::blob_state::BlobState;
use super::links::set_parent;
use super::metadata::Md;
use super::persist::Persist;
use crate::error::BlobError;
use crate::shared::{Backing, ExternalSnapshot};

impl Md {
    /// Gives a thin blob another parent: clusters that it does not own read as in that parent from now on.
    pub(crate) async fn set_parent(self: &Rc<Md>, id: BlobId, parent: Parent) -> Result<(), BlobError> {
        let blob = self.blob(id)?;
        let _frozen = self.freeze(&blob).await;
        let _guard = self.exclusive_on(&blob).await?;
        blob.check_known()?;
        if blob.held.get() {
            return Err(BlobError::busy(id));
        }
        self.check_parent(&blob, &parent)?;
        self.check_leaves_parent(&blob)?;
        let old = blob.parent();
        let mut meta = blob.meta.borrow().clone();
        set_parent(&mut meta, Some(&parent));
        self.persist(&blob, meta, Persist::default()).await?;
        self.replace_clone(old.as_ref(), id, None);
        self.replace_clone(Some(&parent), id, Some(id));
        self.rechain(&blob).await;
        Ok(())
    }

    /// An error if the blob's snapshot has the marker of an operation that was cut off: without a clone it would look
    /// unfinished to the next load, which removes such a snapshot.
    pub(crate) fn check_leaves_parent(&self, blob: &BlobState) -> Result<(), BlobError> {
        match blob.parent() {
            Some(Parent::Snapshot(parent)) if self.found.half_done.contains(&parent) => {
                let why = "its snapshot has the marker of an operation that was cut off, and would be removed by the \
                           next load once it has no clone: repair it first, with spindle blob check --repair";
                Err(BlobError::Refused { blob: blob.id, why })
            }
            _ => Ok(()),
        }
    }

    fn check_parent(&self, blob: &Rc<BlobState>, parent: &Parent) -> Result<(), BlobError> {
        let refused = |why| Err(BlobError::Refused { blob: blob.id, why });
        if !blob.flags().thin() {
            return refused("only a thin blob can have a parent");
        }
        if blob.parent().as_ref() == Some(parent) {
            return refused("that is its parent already");
        }
        match parent {
            Parent::Snapshot(snapshot) => {
                let above = self.blob(*snapshot)?;
                if self.stands_above(blob.id, *snapshot) {
                    return refused("a blob cannot stand above itself");
                }
                if !above.flags().read_only() {
                    return refused("only a snapshot can be a parent: take one first");
                }
                if above.meta.borrow().map.num_clusters() != blob.meta.borrow().map.num_clusters() {
                    return refused("the snapshot has another size: resize the blob first");
                }
                Ok(())
            }
            Parent::External(name) => {
                if name.is_empty() || name[..] == blob.id.raw().to_le_bytes() {
                    return refused("an external snapshot's id is not empty and not the blob's own");
                }
                let mut tried = blob.meta.borrow().clone();
                if tried.set_internal(internal::EXTERNAL_SNAPSHOT_ID, name).is_err() {
                    return refused("the id of the external snapshot does not fit a metadata page");
                }
                let found = self.find_external(name);
                let missing = || external_name(name).into();
                let device =
                    found.ok_or_else(|| BlobError::MissingParent { blob: blob.id, parent: missing() })?;
                if !device.geometry().bytes().is_multiple_of(self.shared.cluster_size.into()) {
                    return refused("the size of the external snapshot is not a whole number of clusters");
                }
                self.claim_external(device).map(drop)
            }
        }
    }

    /// Makes an open clone of an external snapshot read that on another device.
    pub(crate) async fn set_external_device(
        &self,
        blob: &Rc<BlobState>,
        device: Arc<dyn Device>,
    ) -> Result<(), BlobError> {
        // Allowed on a read-only store too: nothing is written.
        let _guard = self.lock.lock().await;
        if self.shared.is_unloaded() {
            return Err(self.shared.gone());
        }
        if !matches!(blob.parent(), Some(Parent::External(_))) {
            return Err(BlobError::Refused {
                blob: blob.id,
                why: "it is not a clone of an external snapshot",
            });
        }
        let snapshot = self.claim_external(device)?;
        self.rechain_to(blob, Backing::External(snapshot)).await;
        Ok(())
    }

    fn claim_external(&self, device: Arc<dyn Device>) -> Result<Arc<ExternalSnapshot>, BlobError> {
        let claimed = ExternalSnapshot::claim(device, &self.shared.name);
        claimed.map_err(|source| self.shared.open_error(source))
    }

    /// True if `id` is `other` or above it.
    fn stands_above(&self, id: BlobId, other: BlobId) -> bool {
        let mut at = Some(Parent::Snapshot(other));
        // No chain is longer than there are blobs, but a hostile one may be a circle.
        for _ in 0..=self.blobs.borrow().len() {
            let Some(Parent::Snapshot(current)) = at else { return false };
            if current == id {
                return true;
            }
            at = self.blob(current).ok().and_then(|blob| blob.parent());
        }
        true
    }
}

/// The id of an external snapshot for messages: without the NUL that ends it.
pub(crate) fn external_name(id: &[u8]) -> String {
    id.strip_suffix(b"\0").unwrap_or(id).escape_ascii().to_string()
}
