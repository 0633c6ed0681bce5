//! Having a blob's map to oneself: writes to that blob are kept out, all else goes on.

use std::rc::Rc;
use std::sync::Arc;

use super::{BlobState, Md};
use crate::shared::BlobShared;

/// Keeps writes to a blob out until dropped.
pub(crate) struct Frozen {
    shared: Arc<BlobShared>,
}

impl Md {
    /// Keeps writes to a blob out and waits until none is under way, so that its map holds still. Never
    /// called under [`Md::lock`]: an allocation under way may need that to end.
    pub(crate) async fn freeze(&self, blob: &Rc<BlobState>) -> Frozen {
        let shared = self.shared_of(blob);
        shared.freeze();
        let frozen = Frozen { shared };
        frozen.shared.settled().await;
        self.quiesce().await;
        frozen
    }

    /// The same for a blob that nobody may have seen, and then nobody can write to.
    pub(crate) async fn freeze_if_seen(&self, blob: &Rc<BlobState>) -> Option<Frozen> {
        if blob.shared().is_some() { Some(self.freeze(blob).await) } else { None }
    }

    /// The same for every blob that threads can see.
    pub(crate) async fn freeze_all(&self) -> Vec<Frozen> {
        let blobs: Vec<Rc<BlobState>> = self.blobs.borrow().values().cloned().collect();
        let shared = blobs.iter().filter_map(|blob| blob.shared());
        let frozen: Vec<Frozen> = shared.map(|shared| Frozen { shared }).collect();
        frozen.iter().for_each(|one| one.shared.freeze());
        for one in &frozen {
            one.shared.settled().await;
        }
        frozen
    }

    /// Waits until every request that any thread had under way has ended.
    pub(crate) async fn quiesce(&self) {
        self.shared.quiesce().await;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.shared.thaw();
    }
}
