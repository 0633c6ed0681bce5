//! The metadata of one store.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use spindle_format::{Bitmap, BlobId, Geometry, SuperBlock};
use spindle_reactor::WaitList;

use super::behind::Behind;
use super::blob_state::BlobState;
use super::copies::Copies;
use super::flushes::Flushes;
use super::found::Found;
use super::zeroing::ZeroAhead;
use crate::error::BlobError;
use crate::options::StoreOptions;
use crate::shared::{StoreLocal, StoreShared};
use crate::space::{Space, Watches};
use crate::waiting::{TaskGuard, TaskLock};

/// The metadata of one store.
pub(crate) struct Md {
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) options: StoreOptions,
    /// This thread's access to the device.
    pub(crate) local: Rc<StoreLocal>,
    pub(crate) geometry: RefCell<Geometry>,
    pub(crate) super_block: RefCell<SuperBlock>,
    /// Free clusters and pages.
    pub(crate) space: RefCell<Space>,
    pub(crate) used_blob_ids: RefCell<Bitmap>,
    pub(crate) blobs: RefCell<BTreeMap<BlobId, Rc<BlobState>>>,
    /// What the load found.
    pub(crate) found: Found,
    /// True if the super block on disk says that the masks can be trusted.
    pub(super) clean_on_disk: Cell<bool>,
    /// Held while the super block is changed and written.
    pub(super) marking: TaskLock,
    /// Held while a chain is written.
    pub(crate) lock: TaskLock,
    /// Copies of pages that were rewritten in place, on devices that can tear a page.
    pub(super) copies: RefCell<Copies>,
    /// Held while copies are cleared.
    pub(super) clearing_copies: TaskLock,
    /// Tasks that wait for the end of a rewrite, which gives back the pages of its copy.
    pub(super) rewriting: WaitList,
    pub(super) flushes: Flushes,
    /// Held while a blob's view for other threads is made.
    pub(super) showing: TaskLock,
    /// The state of zeroing ahead.
    pub(super) ahead: ZeroAhead,
    /// What deletions left to be cleared.
    pub(super) behind: Behind,
    /// Number of openings of blobs.
    pub(crate) open: Cell<usize>,
    /// Tasks that wait until the store has released its device.
    pub(super) left: WaitList,
    /// Callers that want to know when space runs low.
    pub(crate) watches: Watches,
}

impl Md {
    /// Waits for [`Md::lock`]. An error if metadata must not be changed by then: the store may have been left
    /// meanwhile.
    pub(crate) async fn exclusive(&self) -> Result<TaskGuard<'_>, BlobError> {
        let guard = self.lock.lock().await;
        self.check_writable()?;
        Ok(guard)
    }

    /// The same for an operation on a blob: an error also if the blob was deleted meanwhile.
    pub(crate) async fn exclusive_on(&self, blob: &Rc<BlobState>) -> Result<TaskGuard<'_>, BlobError> {
        let guard = self.exclusive().await?;
        match self.is_there(blob) {
            true => Ok(guard),
            false => Err(BlobError::NoSuchBlob { blob: blob.id }),
        }
    }

    /// True if a blob is still in the store; its id may have a new owner.
    pub(crate) fn is_there(&self, blob: &Rc<BlobState>) -> bool {
        self.blobs.borrow().get(&blob.id).is_some_and(|now| Rc::ptr_eq(now, blob))
    }

    /// An error if metadata must not be changed.
    pub(crate) fn check_writable(&self) -> Result<(), BlobError> {
        // Also for operations that began before: nothing may change after the masks were written.
        if self.shared.is_unloaded() {
            return Err(self.shared.gone());
        }
        if self.shared.read_only {
            return Err(BlobError::StoreReadOnly { store: self.shared.name.clone() });
        }
        self.shared.check_poison()
    }

    /// An error if nothing may be allocated or freed.
    pub(crate) fn check_allocation(&self) -> Result<(), BlobError> {
        self.check_writable()?;
        match &self.found.blocked {
            Some(why) => {
                Err(BlobError::AllocationBlocked { store: self.shared.name.clone(), why: why.clone() })
            }
            None => Ok(()),
        }
    }

    /// Why changes are refused, if they are.
    pub(crate) fn refuses_changes(&self) -> Option<String> {
        if self.shared.read_only {
            return None;
        }
        self.check_allocation().err().map(|error| error.to_string())
    }

    /// Refuses all changes from now on: the contents of the disk are unknown.
    pub(crate) fn poison(&self, cause: &BlobError) {
        self.shared.poison(cause);
    }
}
