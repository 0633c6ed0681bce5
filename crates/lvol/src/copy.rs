//! Copies the clusters that a volume owns to another bdev, with progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spindle_bdev::{Bdev, ClaimKind, OpenOptions};

use crate::lvol::LvolInner;
use crate::store::{StoreInner, locked};
use crate::{LvolError, MODULE};

/// A copy under way, or finished. A handle: dropping it does not stop the copy.
#[derive(Clone)]
pub struct ShallowCopy(Arc<Progress>);

struct Progress {
    copied: AtomicU64,
    total: AtomicU64,
    ended: Mutex<Option<Result<(), LvolError>>>,
}

impl ShallowCopy {
    /// Number of clusters copied.
    pub fn copied(&self) -> u64 {
        self.0.copied.load(Ordering::Acquire)
    }

    /// Number of clusters to copy.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Acquire)
    }

    /// Its result; `None` while it is under way.
    pub fn ended(&self) -> Option<Result<(), LvolError>> {
        locked(&self.0.ended).clone()
    }
}

impl LvolInner {
    /// Opens and claims the target, and starts the copy in its own task. Errors about the volume are the
    /// copy's result, as in SPDK.
    pub(crate) async fn shallow_copy(
        self: &Arc<LvolInner>,
        store: &Arc<StoreInner>,
        target: &Bdev,
    ) -> Result<ShallowCopy, LvolError> {
        let counted = store.begin()?;
        self.check_bdev()?;
        let desc = target.descriptor(OpenOptions::new())?;
        desc.claim(ClaimKind::Exclusive, "a shallow copy", MODULE)?;
        let total = self.blob_info(store).await?.allocated;
        let (copied, ended) = (AtomicU64::new(0), Mutex::default());
        let progress = Arc::new(Progress { copied, total: AtomicU64::new(total), ended });
        let (lvol, store, copy) = (self.clone(), store.clone(), progress.clone());
        drop(spindle_reactor::spawn_local(async move {
            let told = copy.clone();
            let tell = move |copied, total| {
                told.copied.store(copied, Ordering::Release);
                told.total.store(total, Ordering::Release);
            };
            let begun = lvol.begin_on_bdev();
            let writable = lvol.blob_info(&store).await.is_ok_and(|info| !info.read_only);
            let ended = match begun {
                _ if writable => Err(LvolError::CopyOfWritable { lvol: lvol.shown() }),
                Ok(_busy) => {
                    let copied = store.blobstore.shallow_copy(lvol.id, desc.device(), tell).await;
                    copied.map_err(LvolError::blob(lvol.shown()))
                }
                Err(busy) => Err(busy),
            };
            drop(desc);
            *locked(&copy.ended) = Some(ended);
            drop(counted);
        }));
        Ok(ShallowCopy(progress))
    }
}

impl std::fmt::Debug for ShallowCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShallowCopy({} of {}, ended: {:?})", self.copied(), self.total(), self.ended())
    }
}
