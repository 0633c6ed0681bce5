//! The state of a volume: an open blob with a name and a UUID, and its bdev.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use spindle_bdev::{Bdev, Uuid, WeakBdev};
use spindle_blob::{Blob, BlobId, BlobInfo};
use spindle_block::Device;

use super::lacks::Lacks;
use super::locked::locked;
use super::store::StoreInner;
use crate::LvolError;
use crate::name::Name;

/// A volume. A handle: clones are the same volume, for any thread.
#[derive(Clone)]
pub struct Lvol(pub(crate) Arc<LvolInner>);

pub(crate) struct LvolInner {
    pub(crate) store: Weak<StoreInner>,
    pub(crate) id: BlobId,
    pub(crate) uuid: Option<Uuid>,
    /// Its UUID as text, or SPDK's id of a volume without one.
    pub(crate) unique_id: String,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) state: Mutex<State>,
    /// Set while an operation works on it.
    busy: AtomicBool,
    /// Set if a clone reads through it, or has since it was loaded.
    pub(crate) snapshot: AtomicBool,
}

pub(crate) struct State {
    pub(crate) name: Name,
    /// `None` once closed.
    pub(crate) blob: Option<Blob>,
    /// `None` while it has no bdev: an external snapshot is missing, or it is being removed.
    pub(crate) bdev: Option<WeakBdev>,
    /// Why it has no bdev, if it was to get one.
    pub(crate) lacks: Option<Lacks>,
}

/// Marks a volume as busy until this is dropped.
pub(crate) struct Busy(Arc<LvolInner>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl LvolInner {
    pub(crate) fn new(
        store: &Arc<StoreInner>,
        blob: Blob,
        name: Name,
        uuid: Option<Uuid>,
        snapshot: bool,
    ) -> Arc<LvolInner> {
        let id = blob.id();
        let unique_id = match uuid {
            Some(uuid) => uuid.to_string(),
            None => format!("{}_{}", store.uuid, id.raw()),
        };
        Arc::new(LvolInner {
            store: Arc::downgrade(store),
            id,
            uuid,
            unique_id,
            device: blob.device(),
            state: Mutex::new(State { name, blob: Some(blob), bdev: None, lacks: None }),
            busy: AtomicBool::new(false),
            snapshot: AtomicBool::new(snapshot),
        })
    }

    pub(crate) fn name(&self) -> Name {
        locked(&self.state).name.clone()
    }

    pub(crate) fn set_name(&self, name: Name) {
        locked(&self.state).name = name;
    }

    pub(crate) fn blob(&self) -> Option<Blob> {
        locked(&self.state).blob.clone()
    }

    pub(crate) fn bdev(&self) -> Option<Bdev> {
        locked(&self.state).bdev.as_ref().and_then(WeakBdev::upgrade)
    }

    pub(crate) fn lacks(&self) -> Option<Lacks> {
        locked(&self.state).lacks.clone()
    }

    pub(crate) fn set_lacks(&self, lacks: Option<Lacks>) {
        locked(&self.state).lacks = lacks;
    }

    /// The open blob.
    pub(crate) fn opened(&self) -> Result<Blob, LvolError> {
        self.blob().ok_or_else(|| LvolError::NoLvol { name: self.name().to_string() })
    }

    /// Its name for messages.
    pub(crate) fn shown(&self) -> String {
        match self.store.upgrade() {
            Some(store) => store.alias(&self.name()),
            None => self.name().to_string(),
        }
    }

    /// Its store.
    pub(crate) fn loaded(&self) -> Result<Arc<StoreInner>, LvolError> {
        self.store.upgrade().ok_or_else(|| LvolError::NoLvol { name: self.name().to_string() })
    }

    /// Begins an exclusive operation.
    pub(crate) fn begin(self: &Arc<LvolInner>) -> Result<Busy, LvolError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            let why = "another operation works on it; ask again when that has ended".to_owned();
            return Err(LvolError::Busy { lvol: self.shown(), why });
        }
        Ok(Busy(self.clone()))
    }

    pub(crate) async fn blob_info(&self, store: &StoreInner) -> Result<BlobInfo, LvolError> {
        store.blobstore.blob_info(self.id).await.map_err(LvolError::blob(self.shown()))
    }
}

/// The volume of a bdev, if it is one.
pub(crate) fn lvol_of(bdev: &Bdev) -> Option<Arc<LvolInner>> {
    let disk: Arc<dyn Any + Send + Sync> = bdev.disk().clone();
    disk.downcast().ok()
}
