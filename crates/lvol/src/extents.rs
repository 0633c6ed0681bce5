//! Where a volume has data, and in which parent: for NBD's block status and for copies.
//!
//! Read from the maps of open blobs, in clusters, without a lock and without the disk. The contents of
//! clusters are not examined: one that was zeroed in place is data.

use spindle_bdev::{Content, Extent, Extents, LocalFuture};
use spindle_blob::{Blob, Parent};
use spindle_block::IoErrorKind;

use crate::LvolError;
use crate::state::{LvolInner, StoreInner};

/// A volume and all its parents: the blobs of the store, and whether they read through an external snapshot.
struct Chain {
    blobs: Vec<Blob>,
    external: bool,
}

impl Chain {
    /// The kind and depth at byte `at`, and the length of that run, up to `end`.
    fn look(&self, at: u64, end: u64) -> Extent {
        let mut end = end;
        for (above, blob) in self.blobs.iter().enumerate() {
            match blob.next_allocated(at) {
                Some(next) if next <= at => {
                    end = end.min(blob.next_unallocated(at).unwrap_or(u64::MAX)).min(blob.size().max(at + 1));
                    return Extent { len: end - at, content: Content::Data, depth: above as u32 + 1 };
                }
                Some(next) => end = end.min(next),
                None => {}
            }
        }
        match self.external {
            true => Extent { len: end - at, content: Content::Data, depth: self.blobs.len() as u32 + 1 },
            false => Extent { len: end - at, content: Content::Hole, depth: 0 },
        }
    }
}

impl LvolInner {
    /// The extents of a range; at most `max`, which may end before the range does.
    pub(crate) async fn look(&self, offset: u64, length: u64, max: usize) -> Result<Vec<Extent>, LvolError> {
        let store = self.loaded()?;
        let size = self.opened()?.size();
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let end = end.ok_or_else(|| LvolError::Argument {
            what: format!("extents of volume {:?}", self.shown()),
            why: format!("{length} bytes at offset {offset} are not inside its {size} bytes"),
        })?;
        let chain = self.chain(&store).await?;
        let (mut extents, mut at) = (Vec::<Extent>::new(), offset);
        while at < end {
            let next = chain.look(at, end);
            at += next.len;
            let same = |last: &&mut Extent| (last.content, last.depth) == (next.content, next.depth);
            if let Some(last) = extents.last_mut().filter(same) {
                last.len += next.len;
            } else if extents.len() < max {
                extents.push(next);
            } else {
                break;
            }
        }
        Ok(extents)
    }

    async fn chain(&self, store: &StoreInner) -> Result<Chain, LvolError> {
        let mut blobs = vec![self.opened()?];
        let mut parent = self.blob_info(store).await?.parent;
        loop {
            match parent {
                Some(Parent::Snapshot(id)) => {
                    let info = store.blobstore.blob_info(id).await;
                    parent = info.map_err(LvolError::blob(self.shown()))?.parent;
                    let open = store.volumes.get(id).and_then(|lvol| lvol.blob());
                    blobs.push(match open {
                        Some(blob) => blob,
                        // A parent that is not a volume is opened for this.
                        None => {
                            let opened = store.blobstore.open_blob(id).await;
                            opened.map_err(LvolError::blob(self.shown()))?
                        }
                    });
                }
                Some(Parent::External(_)) => return Ok(Chain { blobs, external: true }),
                None => return Ok(Chain { blobs, external: false }),
            }
        }
    }
}

impl Extents for LvolInner {
    fn extents(
        &self,
        offset: u64,
        len: u64,
        most: usize,
    ) -> LocalFuture<'_, Result<Vec<Extent>, IoErrorKind>> {
        Box::pin(async move {
            self.look(offset, len, most).await.map_err(|error| match error {
                LvolError::Argument { .. } => IoErrorKind::OutOfRange,
                LvolError::NoLvol { .. } => IoErrorKind::Removed,
                other => IoErrorKind::Device { errno: other.errno() },
            })
        })
    }
}
