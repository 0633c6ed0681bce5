//! Unloads a store.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use spindle_format::Change;
use spindle_format::unload::{InUse, clean};

use super::metadata::Md;
use super::turns::Turns;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::waiting::locked;

impl Md {
    /// Clears what deletions left, writes the masks, marks them as valid, and releases the device on every thread. After an error of the
    /// device the store is not clean, but unloaded.
    pub(crate) async fn unload(self: &Rc<Md>) -> Result<(), BlobError> {
        // Xattrs that were set through handles which were dropped.
        let first = async |md: &Rc<Md>| md.write_all_edits().await;
        let last = async |md: &Rc<Md>| {
            md.recall().await;
            md.forget_ready().await;
            md.clear_rest().await;
            md.write_clean().await
        };
        self.leave(true, first, last).await
    }

    /// Releases the device on every thread, without a write: no handle of the store is left.
    pub(crate) async fn abandon(self: &Rc<Md>) {
        // If this fails, the store was unloaded meanwhile.
        let _ = self.leave(false, async |_| Ok(()), async |_| Ok(())).await;
    }

    /// Clears the super block, and releases the device on every thread.
    pub(crate) async fn destroy(self: &Rc<Md>) -> Result<(), BlobError> {
        self.check_writable()?;
        let last = async |md: &Rc<Md>| {
            let change = Change::Zero { offset: 0, len: md.geometry.borrow().md_page_size().into() };
            md.apply(&change).await.inspect_err(|error| md.poison(error))?;
            md.flush_for(&[Point::DurableBeforeAck]).await
        };
        self.leave(true, async |_| Ok(()), last).await
    }

    /// Lets go of the device on every thread, after a `first` step while metadata may still be changed, and a
    /// `last` one when nothing else changes it any more. An error of either holds nothing up.
    async fn leave(
        self: &Rc<Md>,
        unless_open: bool,
        first: impl AsyncFnOnce(&Rc<Md>) -> Result<(), BlobError>,
        last: impl AsyncFnOnce(&Rc<Md>) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        // Requests that outlive their blobs' handles end first: no map may change after the masks were
        // written.
        let frozen = self.freeze_all().await;
        let guard = self.lock.lock().await;
        self.check_closed(unless_open)?;
        let begun = first(self).await;
        // One may have been opened meanwhile.
        self.check_closed(unless_open)?;
        if self.shared.unloaded.swap(true, Ordering::AcqRel) {
            return Err(self.shared.gone());
        }
        self.shared.device.leave();
        // Tasks that wait for the lock are refused from here on. Operations on blobs without a view also end
        // first, and give back what they took.
        drop(guard);
        let late = self.freeze_all().await;
        self.clearing_stopped().await;
        let written = last(self).await;
        drop(self.ahead.idle.take());
        self.forget();
        self.watches.end();
        let seen: Vec<_> = frozen.iter().chain(&late).map(|one| one.shared.clone()).collect();
        // Writes that waited to be let in find that the store is gone.
        drop((frozen, late));
        for blob in seen {
            // Channels of closed blobs may still exist.
            blob.lanes.remove().await;
            blob.close_channels();
        }
        let members = std::mem::take(&mut *locked(&self.shared.members));
        for member in members {
            let device = self.shared.device.clone();
            // A thread that has exited has closed its channels.
            let _ = member.thread.run(async move || device.close_local().await).await;
        }
        let mut turns = Turns::default();
        while self.blobs.borrow_mut().pop_first().is_some() {
            turns.spend(1).await;
        }
        self.shared.device.let_go();
        self.has_left();
        begun.and(written)
    }

    /// An error if blobs are open, and that matters.
    fn check_closed(&self, unless_open: bool) -> Result<(), BlobError> {
        let open = self.blobs.borrow().values().filter(|blob| blob.opened.get() > 0).count();
        match open > 0 && unless_open {
            true => Err(BlobError::BlobsOpen { store: self.shared.name.clone(), open }),
            false => Ok(()),
        }
    }

    async fn write_clean(&self) -> Result<(), BlobError> {
        // If the masks on disk were used, blocked clusters are marked in them.
        let unknown = self.found.blocked.is_some() && self.found.recovered;
        let nothing_to_say = self.clean_on_disk.get() || unknown || self.found.leaves_resize;
        if self.shared.read_only || self.shared.check_poison().is_err() || nothing_to_say {
            return Ok(());
        }
        self.drop_copies().await?;
        let mut turns = Turns::default();
        for number in 0.. {
            let Some(change) = self.mask_write(number) else { break };
            self.apply(&change).await.inspect_err(|error| self.poison(error))?;
            turns.end().await;
        }
        let clean = clean(&self.super_block.borrow(), &self.geometry.borrow());
        self.apply_all(&clean, Point::MasksBeforeClean, Point::DurableBeforeAck).await
    }

    fn mask_write(&self, number: u64) -> Option<Change> {
        let (space, ids) = (self.space.borrow(), self.used_blob_ids.borrow());
        let in_use = InUse { pages: &space.pages, blob_ids: &ids, clusters: &space.clusters };
        in_use.write(number, &self.geometry.borrow())
    }
}
