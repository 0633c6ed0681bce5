//! Taking whole clusters away from a thin blob.

use std::rc::Rc;

use super::{BlobState, Md};
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::ordering::Point;
use crate::sync::join_all;

impl Md {
    /// Takes these clusters away from an open thin blob without parent; they read zero from now on and are
    /// free when this is over. False if writes are kept out: to be tried again.
    pub(crate) async fn unmap(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        first: u64,
        count: u64,
    ) -> Result<bool, BlobError> {
        self.check_allocation()?;
        let shared = self.shared_of(blob);
        if shared.is_frozen() {
            return Ok(false);
        }
        let done = join_all((first..first + count).map(|index| self.unmap_one(blob, index))).await;
        let mut freed = Vec::new();
        let mut failed = None;
        for one in done {
            match one {
                Ok(cluster) => freed.extend(cluster),
                Err(error) => failed = Some(error),
            }
        }
        if freed.is_empty() {
            return failed.map_or(Ok(true), Err);
        }
        self.flush_for(&[Point::UnmapBeforeFree]).await?;
        if self.options.order.keeps(Point::ReadersBeforeFree) {
            self.quiesce().await;
        }
        self.release_clusters(freed, blob.flags().clear_method()).await;
        failed.map_or(Ok(true), Err)
    }

    async fn unmap_one(self: &Rc<Md>, blob: &Rc<BlobState>, index: u64) -> Result<Option<u32>, BlobError> {
        while blob.wait_unless_free(index).await {}
        let Entry::Own(cluster) = self.shared_of(blob).leaves.get(index) else { return Ok(None) };
        blob.changing.borrow_mut().insert(index, Vec::new());
        let done = self.commit(blob, index, None).await;
        blob.end_change(index);
        done.map(|()| Some(cluster))
    }
}
