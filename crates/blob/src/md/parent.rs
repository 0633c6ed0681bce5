//! Gives a thin blob another parent, and copies the clusters that a blob owns to a device.

use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{Channel, Device};
use spindle_format::metadata::internal;
use spindle_format::{BlobId, Parent};
use spindle_mem::{Buffers, IoBuf};

use super::create::{busy, set_parent};
use super::persist::Persist;
use super::{BlobState, Md};
use crate::error::BlobError;
use crate::outside::Outside;
use crate::shared::Back;

/// Called after every cluster with the number done and the total.
pub(crate) type Progress = Box<dyn FnMut(u64, u64) + Send>;

impl Md {
    /// Gives a thin blob another parent: clusters that it does not own read as there from now on.
    pub(crate) async fn set_parent(self: &Rc<Md>, id: BlobId, parent: Parent) -> Result<(), BlobError> {
        let blob = self.blob(id)?;
        let _frozen = self.freeze(&blob).await;
        let _guard = self.exclusive_on(&blob).await?;
        blob.check_known()?;
        if blob.held.get() {
            return Err(busy(id));
        }
        self.check_parent(&blob, &parent)?;
        let old = blob.parent();
        let mut meta = blob.meta.borrow().clone();
        set_parent(&mut meta, Some(&parent));
        self.persist(&blob, meta, Persist::default()).await?;
        self.replace_clone(old.as_ref(), id, None);
        self.replace_clone(Some(&parent), id, Some(id));
        self.rechain(&blob).await;
        Ok(())
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
                let missing = || name.escape_ascii().to_string().into();
                let device =
                    found.ok_or_else(|| BlobError::MissingParent { blob: blob.id, parent: missing() })?;
                if !device.geometry().bytes().is_multiple_of(self.shared.cluster_size.into()) {
                    return refused("the external snapshot is no whole number of clusters");
                }
                Ok(())
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
            return Err(BlobError::Refused { blob: blob.id, why: "it is no clone of an external snapshot" });
        }
        self.rechain_to(blob, Back::External(Outside::new(device))).await;
        Ok(())
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

    /// Copies the clusters that a read-only blob owns to the same offsets of another device.
    pub(crate) async fn shallow_copy(
        self: &Rc<Md>,
        id: BlobId,
        target: Arc<dyn Device>,
        progress: Progress,
    ) -> Result<(), BlobError> {
        let blob = self.blob(id)?;
        blob.check_stays()?;
        let refused = |why| Err(BlobError::Refused { blob: id, why });
        if !blob.flags().data_locked() {
            return refused("only a read-only blob is copied: take a snapshot");
        }
        let size = u64::from(self.shared.cluster_size);
        if target.geometry().bytes() < blob.meta.borrow().map.num_clusters() * size {
            return refused("the target is smaller than the blob");
        }
        if !self.shared.io_unit.is_multiple_of(target.geometry().block_size()) {
            return refused("the target has larger blocks than the store");
        }
        // Held open meanwhile, so that it cannot be deleted.
        blob.opened.set(blob.opened.get() + 1);
        let result = self.copy_clusters(&blob, target, progress).await;
        blob.opened.set(blob.opened.get() - 1);
        result
    }

    async fn copy_clusters(
        &self,
        blob: &BlobState,
        target: Arc<dyn Device>,
        mut progress: Progress,
    ) -> Result<(), BlobError> {
        let size = u64::from(self.shared.cluster_size);
        let target = Channel::open(target).map_err(|source| self.shared.open_error(source))?;
        let runs: Vec<_> = blob.meta.borrow().map.runs().collect();
        let total = runs.iter().map(|run| u64::from(run.length)).sum();
        let mut done = 0;
        let mut buffers = Buffers::from(IoBuf::try_zeroed(size as usize)?);
        for run in runs {
            for at in 0..u64::from(run.length) {
                let from = (u64::from(run.cluster.0) + at) * size;
                let (read, data) = self.local.channel().read(from, buffers).await;
                read?;
                let (written, data) = target.write((run.start + at) * size, data).await;
                written?;
                buffers = data;
                done += 1;
                progress(done, total);
            }
        }
        Ok(target.flush().await?)
    }
}
