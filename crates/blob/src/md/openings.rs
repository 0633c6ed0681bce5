//! The openings of blobs.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spindle_format::BlobId;

use super::blob_state::BlobState;
use super::metadata::Md;
use super::store_ref::StoreRef;
use crate::error::BlobError;
use crate::options::BlobOpenOptions;
use crate::shared::BlobShared;

/// One opening of a blob; ends when dropped.
pub(crate) struct Opened {
    pub(crate) shared: Arc<BlobShared>,
    closed: AtomicBool,
    /// Keeps the store loaded.
    pub(crate) store: Arc<StoreRef>,
}

impl Md {
    /// Opens a blob.
    pub(crate) async fn open(
        self: &Rc<Md>,
        id: BlobId,
        options: BlobOpenOptions,
        store: Arc<StoreRef>,
    ) -> Result<Opened, BlobError> {
        let blob = self.blob(id)?;
        blob.check_stays()?;
        let shared = self.shared_of(&blob).await;
        // While this waited the blob may have been deleted, or the store unloaded.
        if self.shared.is_unloaded() {
            return Err(self.shared.gone());
        }
        if !self.is_there(&blob) {
            return Err(BlobError::NoSuchBlob { blob: id });
        }
        blob.check_stays()?;
        if options.clear_method.is_some() {
            blob.cleared_by.set(options.clear_method);
        }
        blob.opened.set(blob.opened.get() + 1);
        blob.openings.set(blob.openings.get() + 1);
        self.open.set(self.open.get() + 1);
        Ok(Opened { shared, closed: AtomicBool::new(false), store })
    }

    pub(crate) fn close(self: &Rc<Md>, blob: &BlobState) {
        blob.opened.set(blob.opened.get() - 1);
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 && self.holds_written_ahead() {
            let md = self.clone();
            drop(spindle_reactor::spawn_local(async move { md.forget_ready().await }));
        }
        if blob.opened.get() == 0 {
            blob.cleared_by.set(None);
            blob.shared().iter().for_each(BlobShared::close_channels);
        }
    }
}

impl Opened {
    /// The blob on the metadata thread, while it is open.
    pub(crate) fn state(&self, md: &Md) -> Result<Rc<BlobState>, BlobError> {
        // An open blob is not deleted; once it is closed, its id may have a new owner.
        match self.is_closed() {
            true => Err(BlobError::Closed { blob: self.shared.id }),
            false => md.blob(self.shared.id),
        }
    }

    /// Marks it as closed; false if it was.
    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// True if [`Blob::close`](crate::Blob::close) was called.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_closed() {
            return;
        }
        let shared = self.shared.clone();
        // If the metadata thread is gone, so is the store.
        let _ = self.shared.store.md.send_msg(move || {
            if let Ok(md) = Md::of(&shared.store)
                && let Ok(blob) = md.blob(shared.id)
            {
                drop(shared);
                md.close(&blob);
            }
        });
    }
}
