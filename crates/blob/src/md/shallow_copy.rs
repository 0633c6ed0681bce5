//! Copies the clusters that a blob owns to a device.

use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{Channel, Device};
use spindle_format::BlobId;
use spindle_mem::{Buffers, IoBuf};

use super::blob_state::BlobState;
use super::metadata::Md;
use crate::error::BlobError;

/// Called after every cluster with the number done and the total.
pub(crate) type Progress = Box<dyn FnMut(u64, u64) + Send>;

impl Md {
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
