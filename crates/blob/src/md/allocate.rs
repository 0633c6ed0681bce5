//! Giving a blob a cluster of its own: claimed, filled, made durable, mapped, shown to readers.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use spindle_format::ClearMethod;
use spindle_mem::{Buffers, IoBuf};

use super::{BlobState, Md};
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::ordering::Point;
use crate::shared::Source;

/// What is written into a new cluster by whoever asked for it.
pub(crate) enum Payload {
    /// Nothing: it is to read as before.
    Nothing,
    /// These bytes, from this byte of the cluster on.
    Data(u64, Buffers),
    /// Zeroes: first byte and length.
    Zeroes(u64, u64),
}

/// What came of asking for a cluster.
pub(crate) enum Allocated {
    /// It is there and holds the payload.
    Done,
    /// Somebody else was faster, or keeps writes out: look again.
    Retry,
}

impl Payload {
    fn range(&self) -> (u64, u64) {
        match self {
            Payload::Nothing => (0, 0),
            Payload::Data(within, buffers) => (*within, buffers.len() as u64),
            Payload::Zeroes(within, len) => (*within, *len),
        }
    }

    /// The memory in it.
    pub(crate) fn into_buffers(self) -> Buffers {
        match self {
            Payload::Data(_, buffers) => buffers,
            Payload::Nothing | Payload::Zeroes(..) => Buffers::None,
        }
    }
}

impl Md {
    /// Gives an open blob a cluster of its own that reads as before but for the payload. When this is over
    /// the map on disk has been written.
    pub(crate) async fn allocate(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        index: u64,
        payload: &mut Payload,
    ) -> Result<Allocated, BlobError> {
        self.check_allocation()?;
        let shared = self.shared_of(blob);
        if shared.is_frozen() {
            return Ok(Allocated::Retry);
        }
        self.allocate_frozen(blob, index, payload).await
    }

    /// The same for whoever has the blob to itself.
    pub(crate) async fn allocate_frozen(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        index: u64,
        payload: &mut Payload,
    ) -> Result<Allocated, BlobError> {
        let shared = self.shared_of(blob);
        if blob.wait_unless_free(index).await
            || matches!(shared.leaves.get(index), Entry::Own(_))
            || index >= shared.clusters.load(Ordering::Acquire)
        {
            return Ok(Allocated::Retry);
        }
        blob.changing.borrow_mut().insert(index, Vec::new());
        let result = self.allocate_claimed(blob, index, payload).await;
        blob.end_change(index);
        result.map(|()| Allocated::Done)
    }

    async fn allocate_claimed(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        index: u64,
        payload: &mut Payload,
    ) -> Result<(), BlobError> {
        let taken = self.space.borrow_mut().take_cluster();
        let (cluster, zero) = taken.ok_or_else(|| self.no_space(1))?;
        let done = match self.fill(blob, index, cluster, zero, payload).await {
            Ok(()) => self.commit(blob, index, Some(cluster)).await,
            Err(error) => Err(error),
        };
        // After a failed write of metadata nobody knows who has the cluster; the store is poisoned then.
        if done.is_err() && self.check_writable().is_ok() {
            self.space.borrow_mut().free_cluster(cluster, false);
        }
        done
    }

    /// Fills a new cluster with what the parents have there, or zeroes, and the payload on top.
    async fn fill(
        &self,
        blob: &Rc<BlobState>,
        index: u64,
        cluster: u32,
        zero: bool,
        payload: &mut Payload,
    ) -> Result<(), BlobError> {
        let size = u64::from(self.shared.cluster_size);
        let start = u64::from(cluster) * size;
        let (within, len) = payload.range();
        if len < size
            && let Some(mut whole) = self.read_above(blob, index).await?
        {
            match payload {
                Payload::Data(_, buffers) => {
                    buffers.copy_to(0, &mut whole[within as usize..(within + len) as usize]);
                }
                Payload::Zeroes(..) => whole[within as usize..(within + len) as usize].fill(0),
                Payload::Nothing => {}
            }
            return Ok(self.local.channel.write(start, whole).await.0?);
        }
        let zero = zero || !self.options.order.keeps(Point::ZeroNewCluster);
        if !zero {
            self.zero_around(start, within, len).await?;
        }
        match payload {
            Payload::Data(_, buffers) => {
                let (result, back) = self.local.channel.write(start + within, std::mem::take(buffers)).await;
                *buffers = back;
                Ok(result?)
            }
            Payload::Zeroes(..) if !zero && len > 0 => {
                Ok(self.local.channel.write_zeroes(start + within, len).await?)
            }
            Payload::Zeroes(..) | Payload::Nothing => Ok(()),
        }
    }

    async fn zero_around(&self, start: u64, within: u64, len: u64) -> Result<(), BlobError> {
        let size = u64::from(self.shared.cluster_size);
        if within > 0 {
            self.local.channel.write_zeroes(start, within).await?;
        }
        if within + len < size {
            self.local.channel.write_zeroes(start + within + len, size - within - len).await?;
        }
        Ok(())
    }

    /// The cluster as the parents have it; `None` if that is zeroes.
    async fn read_above(&self, blob: &Rc<BlobState>, index: u64) -> Result<Option<IoBuf>, BlobError> {
        let size = u64::from(self.shared.cluster_size);
        match self.shared_of(blob).source_above(index) {
            Source::Zeroes => Ok(None),
            Source::Missing(parent) => Err(BlobError::MissingParent { blob: blob.id, parent }),
            Source::Cluster { cluster, .. } => {
                let buffer = IoBuf::zeroed(size as usize);
                let (result, buffers) = self.local.channel.read(u64::from(cluster) * size, buffer).await;
                result?;
                Ok(buffers.into_one().ok())
            }
            Source::External(device) => {
                let left = device.geometry().bytes().saturating_sub(index * size).min(size);
                if left == 0 {
                    return Ok(None);
                }
                let channel =
                    self.local.external(&device).map_err(|source| self.shared.open_error(source))?;
                let (result, buffers) = channel.read(index * size, IoBuf::zeroed(left as usize)).await;
                result?;
                let mut whole = IoBuf::zeroed(size as usize);
                buffers.copy_to(0, &mut whole);
                Ok(Some(whole))
            }
        }
    }

    /// Takes clusters for a thick blob and zeroes those that may hold something, unless the blob's clear
    /// method waives it. What was taken is in `taken`, also after an error.
    pub(crate) async fn take_clusters(
        &self,
        count: u64,
        method: ClearMethod,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        if u64::from(self.space.borrow().free_clusters()) < count {
            return Err(self.no_space(count));
        }
        let mut dirty = Vec::new();
        for _ in 0..count {
            let next = self.space.borrow_mut().take_cluster();
            let (cluster, zero) = next.ok_or_else(|| self.no_space(count))?;
            taken.push(cluster);
            if !zero && method != ClearMethod::None {
                dirty.push(cluster);
            }
        }
        for (offset, len) in self.byte_ranges(dirty) {
            self.local.channel.write_zeroes(offset, len).await?;
        }
        Ok(())
    }

    /// Gives clusters back that nobody names, cleared as the blob that had them wanted it.
    pub(crate) async fn release_clusters(&self, mut clusters: Vec<u32>, method: ClearMethod) {
        clusters.sort_unstable();
        let mut zero = true;
        for (offset, len) in self.byte_ranges(clusters.iter().copied()) {
            let cleared = match method {
                ClearMethod::None => false,
                ClearMethod::WriteZeroes => self.local.channel.write_zeroes(offset, len).await.is_ok(),
                ClearMethod::Default | ClearMethod::Unmap => {
                    let done = self.local.channel.unmap(offset, len).await.is_ok();
                    done && self.local.channel.geometry().unmap_reads_zero()
                }
            };
            // Clearing is a courtesy: the next owner zeroes what is not known to be zero.
            zero &= cleared;
        }
        let mut space = self.space.borrow_mut();
        clusters.into_iter().for_each(|cluster| space.free_cluster(cluster, zero));
    }

    /// Bytes of clusters, neighbours joined.
    fn byte_ranges(&self, clusters: impl IntoIterator<Item = u32>) -> Vec<(u64, u64)> {
        let size = u64::from(self.shared.cluster_size);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for cluster in clusters {
            let offset = u64::from(cluster) * size;
            match ranges.last_mut() {
                Some((start, len)) if *start + *len == offset => *len += size,
                _ => ranges.push((offset, size)),
            }
        }
        ranges
    }

    /// Keeps writes to a blob out and waits until none is under way, so that its map holds still.
    pub(crate) async fn freeze(&self, blob: &Rc<BlobState>) -> Frozen {
        let shared = self.shared_of(blob);
        shared.freeze();
        let frozen = Frozen { shared };
        self.quiesce().await;
        blob.settled().await;
        frozen
    }

    pub(crate) async fn quiesce(&self) {
        self.shared.quiesce().await;
    }
}

/// Keeps writes to a blob out until dropped.
pub(crate) struct Frozen {
    shared: std::sync::Arc<crate::shared::BlobShared>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.shared.thaw();
    }
}

impl BlobState {
    /// Waits for the end of the change of a cluster; false if there is none under way.
    pub(crate) async fn wait_unless_free(&self, index: u64) -> bool {
        let mut waited = false;
        poll_fn(|cx| match self.changing.borrow_mut().get_mut(&index) {
            Some(waiting) => {
                waited = true;
                waiting.push(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
        waited
    }

    pub(crate) fn end_change(&self, index: u64) {
        let waiting = self.changing.borrow_mut().remove(&index).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
        if self.changing.borrow().is_empty() {
            self.settling.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until no cluster is being allocated or unmapped.
    async fn settled(&self) {
        poll_fn(|cx| {
            if self.changing.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.settling.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
