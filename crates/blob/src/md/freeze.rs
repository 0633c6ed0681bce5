//! Exclusive access to a blob's map: writes to that blob are kept out, other blobs go on.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::blob_state::BlobState;
use super::metadata::Md;
use super::turns::Turns;
use crate::shared::{BlobShared, quiesce};

/// Blobs checked in one step.
const AT_ONCE: u32 = 256;

/// Keeps writes to a blob out until dropped.
pub(crate) struct Frozen {
    pub(crate) shared: Arc<BlobShared>,
}

impl Md {
    /// Keeps writes to a blob out and waits until none is under way, so that its map does not change. Must
    /// not be called under [`Md::lock`], which an allocation under way may need.
    pub(crate) async fn freeze(&self, blob: &Rc<BlobState>) -> Frozen {
        let shared = self.shared_of(blob).await;
        shared.freeze();
        let frozen = Frozen { shared };
        frozen.shared.claims.settled().await;
        quiesce(vec![frozen.shared.clone()]).await;
        frozen
    }

    /// The same for a blob that may have no view for other threads, and then has no writers.
    pub(crate) async fn freeze_if_seen(&self, blob: &Rc<BlobState>) -> Option<Frozen> {
        if blob.shared().is_some() { Some(self.freeze(blob).await) } else { None }
    }

    /// The same for every blob with a view for other threads.
    pub(crate) async fn freeze_all(&self) -> Vec<Frozen> {
        let (mut frozen, mut turns) = (Vec::new(), Turns::default());
        let mut next = self.blobs.borrow().first_key_value().map(|(&id, _)| id);
        while let Some(id) = next {
            {
                let blobs = self.blobs.borrow();
                let mut behind = blobs.range(id..);
                let some = behind.by_ref().take(AT_ONCE as usize);
                for shared in some.filter_map(|(_, blob)| blob.shared()) {
                    shared.freeze();
                    frozen.push(Frozen { shared });
                }
                next = behind.next().map(|(&id, _)| id);
            }
            turns.spend(AT_ONCE).await;
        }
        for one in &frozen {
            one.shared.claims.settled().await;
        }
        quiesce(frozen.iter().map(|one| one.shared.clone()).collect()).await;
        frozen
    }

    /// Waits until every request has ended that any thread had sent to a cluster by the map of this blob, or
    /// of a blob that reads through it. Requests of other blobs are not waited for, however slow.
    pub(crate) async fn quiesce_below(&self, blob: &Rc<BlobState>) {
        let (mut seen, mut turns) = (Vec::new(), Turns::default());
        let (mut below, mut ids) = (vec![blob.clone()], BTreeSet::from([blob.id]));
        while let Some(blob) = below.pop() {
            seen.extend(blob.shared());
            turns.spend(1).await;
            let clones = blob.clones.borrow();
            // Parents in a hostile store may form a circle.
            let clones = clones.iter().filter(|&&clone| ids.insert(clone));
            below.extend(clones.filter_map(|&clone| self.blob(clone).ok()));
        }
        quiesce(seen).await;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.shared.thaw();
    }
}
