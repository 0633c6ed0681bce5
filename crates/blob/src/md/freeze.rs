//! Having a blob's map to oneself: writes to that blob are kept out, all else goes on.

use std::rc::Rc;
use std::sync::Arc;

use super::turns::Turns;
use super::{BlobState, Md};
use crate::shared::BlobShared;

/// Blobs that are looked at in one go.
const AT_ONCE: u32 = 256;

/// Keeps writes to a blob out until dropped.
pub(crate) struct Frozen {
    shared: Arc<BlobShared>,
}

impl Md {
    /// Keeps writes to a blob out and waits until none is under way, so that its map holds still. Never
    /// called under [`Md::lock`]: an allocation under way may need that to end.
    pub(crate) async fn freeze(&self, blob: &Rc<BlobState>) -> Frozen {
        let shared = self.shared_of(blob).await;
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
