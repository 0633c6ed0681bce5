//! Copies the clusters that a volume owns to another bdev, with progress.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_bdev::{Bdev, ClaimType, Desc, DescOptions, Disk};
use spindle_blob::BlobError;
use spindle_block::IoErrorKind;
use spindle_reactor::timeout;

use crate::copying::Copying;
use crate::state::{LvolInner, StoreInner, locked};
use crate::target::Target;
use crate::{LvolError, MODULE};

/// How often a copy looks whether it waits for a write that the bdev keeps although it has to end.
const LOOK: Duration = Duration::from_secs(5);

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
        let what = format!("shallow copy of volume {:?} to bdev {:?}", self.shown(), target.name());
        if self.bdev().as_ref() == Some(target) {
            let why = "a volume is not copied onto itself; name another bdev".to_owned();
            return Err(LvolError::Argument { what, why });
        }
        let desc = target.descriptor(DescOptions::new())?;
        desc.claim(ClaimType::Exclusive, &format!("a shallow copy of volume {:?}", self.shown()), MODULE)?;
        let total = self.blob_info(store).await?.allocated;
        let (copied, ended) = (AtomicU64::new(0), Mutex::default());
        let progress = Arc::new(Progress { copied, total: AtomicU64::new(total), ended });
        let copying = store.begin_copying(what);
        let (lvol, store, copy) = (self.clone(), store.clone(), progress.clone());
        drop(spindle_reactor::spawn_local(async move {
            let told = copy.clone();
            let tell = move |copied, total| {
                told.copied.store(copied, Ordering::Release);
                told.total.store(total, Ordering::Release);
            };
            let ended = lvol.copy_to(&store, &desc, &copying, tell).await;
            drop(desc);
            *locked(&copy.ended) = Some(ended);
            drop((copying, counted));
        }));
        Ok(ShallowCopy(progress))
    }

    /// The copy itself, to a claimed target.
    async fn copy_to(
        self: &Arc<LvolInner>,
        store: &StoreInner,
        target: &Desc,
        copying: &Copying,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<(), LvolError> {
        let begun = self.begin_on_bdev();
        let info = self.blob_info(store).await?;
        if !info.read_only {
            return Err(LvolError::CopyOfWritable { lvol: self.shown() });
        }
        let _busy = begun?;
        let what = copying.what().to_owned();
        let (has, needs) = (target.geometry().bytes(), info.clusters * store.cluster_size());
        if has < needs {
            let why = format!("the bdev has {has} bytes, and the volume {needs}; name a larger bdev");
            return Err(LvolError::TooSmall { what, why });
        }
        let (theirs, ours) = (target.geometry().block_size(), self.device().geometry().block_size());
        if !ours.is_multiple_of(theirs) {
            let why = format!("the bdev has blocks of {theirs} bytes; name one whose blocks divide {ours}");
            return Err(LvolError::Argument { what, why });
        }
        let goes_on: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(copying.goes_on());
        let device = Target::new(target.device(), goes_on.clone());
        let mut copied = pin!(store.blobstore.shallow_copy(self.id, device.clone(), progress));
        let copied = loop {
            match timeout(LOOK, copied.as_mut()).await {
                Ok(copied) => break copied,
                Err(_) if !goes_on() => device.give_up(),
                Err(_) => {}
            }
        };
        let ended_early = |kind| matches!(kind, IoErrorKind::Aborted | IoErrorKind::Removed) && !goes_on();
        copied.map_err(|error| match &error {
            BlobError::Io(refused) if ended_early(refused.kind) => {
                copying.stopped("the bdev has a part of it; start it again, from the beginning")
            }
            _ => LvolError::blob(what)(error),
        })
    }
}

impl std::fmt::Debug for ShallowCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShallowCopy({} of {}, ended: {:?})", self.copied(), self.total(), self.ended())
    }
}
