//! Writing changes of a blob's map to the page that holds them, many at a time.
//!
//! At most one write of an extent page is under way. Changes that come meanwhile wait and share the next write
//! (group commit), after one flush that makes the contents of their clusters durable. If there is no page yet, and
//! for run-length lists, the whole chain is written, under the store's lock.

use std::rc::Rc;

use spindle_format::cluster_map::CLUSTERS_PER_EXTENT_PAGE;
use spindle_format::{ClusterIdx, PageIdx, chain};

use super::blob_state::BlobState;
use super::changes::Change;
use super::metadata::Md;
use super::persist::Persist;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::space::Fill;
use crate::waiting::promise;

impl Md {
    /// Writes to disk that a place of a blob's map has this cluster, or none, and then shows it to readers.
    /// An error reaches every caller whose change was in the same write.
    pub(crate) async fn commit(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        index: u64,
        cluster: Option<(u32, Fill)>,
    ) -> Result<(), BlobError> {
        let (done, promise) = promise();
        let slot = (index / u64::from(CLUSTERS_PER_EXTENT_PAGE)) as u32;
        let change = Change { index, cluster, done };
        let first = {
            let mut slots = blob.changes.by_slot.borrow_mut();
            let first = !slots.contains_key(&slot);
            slots.entry(slot).or_default().push(change);
            first
        };
        if first {
            let (md, blob) = (self.clone(), blob.clone());
            drop(spindle_reactor::spawn_local(async move { md.run_commits(blob, slot).await }));
        }
        promise.await.unwrap_or_else(|| Err(self.shared.gone()))
    }

    /// Writes the waiting changes of a slot until there are none.
    async fn run_commits(self: Rc<Md>, blob: Rc<BlobState>, slot: u32) {
        loop {
            let group = {
                let mut slots = blob.changes.by_slot.borrow_mut();
                match slots.get_mut(&slot) {
                    Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
                    _ => {
                        slots.remove(&slot);
                        return;
                    }
                }
            };
            let result = self.write_group(&blob, slot, &group).await;
            for change in group {
                change.done.resolve(result.clone());
            }
        }
    }

    async fn write_group(&self, blob: &Rc<BlobState>, slot: u32, group: &[Change]) -> Result<(), BlobError> {
        self.mark_dirty().await?;
        match page_of(blob, slot) {
            Some(page) => self.write_in_place(blob, slot, page, group).await,
            None => Box::pin(self.write_chain(blob, slot, group)).await,
        }
    }

    /// Rewrites an extent page of unchanged length in place.
    async fn write_in_place(
        &self,
        blob: &Rc<BlobState>,
        slot: u32,
        at: PageIdx,
        group: &[Change],
    ) -> Result<(), BlobError> {
        let page = {
            let meta = blob.meta.borrow();
            let first = u64::from(slot) * u64::from(CLUSTERS_PER_EXTENT_PAGE);
            let mut entries = meta.map.leaf(slot).map_or_else(Vec::new, |leaf| leaf.clusters.to_vec());
            for change in group {
                entries[(change.index - first) as usize] = change.number().unwrap_or(0);
            }
            // Boxed, so that the future is not moved with a page in it.
            Box::new(chain::extent_page(blob.id, first as u32, &entries))
        };
        let prepared = async {
            let copied = self.write_copy(at, &page).await?;
            let copy = copied.then_some(Point::CopyBeforePlace);
            let fill = self.needs_flush(group).then_some(Point::FillBeforeMap);
            self.flush_for(&[fill.as_slice(), copy.as_slice()].concat()).await
        };
        prepared.await.inspect_err(|_| self.forget_rewrite(at))?;
        self.rewrite(at, &page).await?;
        blob.remap(group.iter().map(|change| (change.index, change.number())));
        Ok(())
    }

    /// True if a new cluster of the group might not have its required contents after a crash.
    fn needs_flush(&self, group: &[Change]) -> bool {
        group.iter().filter_map(|change| change.cluster).any(|(_, fill)| match fill {
            Fill::New => true,
            Fill::Zero(since) => !self.flushes.covers(since),
        })
    }

    async fn write_chain(&self, blob: &Rc<BlobState>, slot: u32, group: &[Change]) -> Result<(), BlobError> {
        let _guard = self.exclusive_on(blob).await?;
        if let Some(page) = page_of(blob, slot) {
            return self.write_in_place(blob, slot, page, group).await;
        }
        let mut meta = blob.meta.borrow().clone();
        let changes: Vec<_> = group.iter().map(|one| (one.index, one.number())).collect();
        for &(index, cluster) in &changes {
            meta.map.set(index, cluster.map(ClusterIdx));
        }
        let (slots, changes) = ([slot].into(), Some(changes));
        // A caller that wants the payload durable flushes, as after any write.
        let fills = self.needs_flush(group);
        let how = Persist { slots, changes, fills, after: Vec::new(), ..Persist::default() };
        self.persist(blob, meta, how).await
    }
}

/// The page of a slot, if it exists and has an entry for every cluster of its part of the blob.
fn page_of(blob: &BlobState, slot: u32) -> Option<PageIdx> {
    let meta = blob.meta.borrow();
    let leaf = meta.map.leaf(slot)?;
    let left = meta.map.num_clusters().saturating_sub(leaf.first_cluster());
    let whole = leaf.clusters.len() as u64 == left.min(u64::from(CLUSTERS_PER_EXTENT_PAGE));
    leaf.page.filter(|_| whole)
}
