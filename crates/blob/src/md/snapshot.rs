//! Takes snapshots.

use std::rc::Rc;
use std::sync::Arc;

use spindle_format::metadata::internal;
use spindle_format::{BlobId, Flags, Parent, Xattrs};

use super::blob_state::BlobState;
use super::links::{set_id, set_parent};
use super::metadata::Md;
use super::persist::Persist;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::shared::{Backing, BlobShared};
use crate::waiting::locked;

impl Md {
    /// Takes a snapshot: a new read-only blob gets everything that the blob has; the blob then reads through
    /// it.
    pub(crate) async fn snapshot(
        self: &Rc<Md>,
        id: BlobId,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<BlobId, BlobError> {
        self.check_allocation()?;
        let original = self.blob(id)?;
        let mut named = Xattrs::new();
        for (name, value) in xattrs {
            named.set(name, value).map_err(|source| BlobError::Xattr { blob: id, source })?;
        }
        let _frozen = self.freeze(&original).await;
        let _guard = self.exclusive_on(&original).await?;
        original.check_metadata()?;
        if original.held.get() {
            return Err(BlobError::busy(id));
        }
        let snapshot = self.snapshot_marked(&original, named).await?;
        // Once the original reads through the snapshot there is no way back, so the pages of the last step
        // are reserved first.
        let pages = snapshot.chain.borrow().len();
        let aside = self.set_aside(pages).await;
        let done = match &aside {
            Ok(_) => self.read_through(&original, &snapshot).await,
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = done {
            self.give_back(aside.unwrap_or_default());
            if self.check_writable().is_ok() {
                self.erase_unfinished(&snapshot).await?;
            }
            return Err(error);
        }
        self.give_back(aside.unwrap_or_default());
        snapshot.passing.set(false);
        let mut done = snapshot.meta.borrow().clone();
        done.remove_internal(internal::SNAPSHOT_IN_PROGRESS);
        let last = || Persist { urgent: true, ..Persist::default() };
        let unmark = self.once_pages_are_back(async || self.persist(&snapshot, done.clone(), last()).await);
        // The state on disk is unknown: only a load can tell now.
        unmark.await.inspect_err(|error| self.poison(error))?;
        Ok(snapshot.id)
    }

    /// Writes the snapshot with everything the original has and the mark that it is unfinished.
    async fn snapshot_marked(
        &self,
        original: &Rc<BlobState>,
        named: Xattrs,
    ) -> Result<Rc<BlobState>, BlobError> {
        let mut meta = original.meta.borrow().clone();
        meta.xattrs = named;
        meta.flags.data_read_only |= Flags::READ_ONLY;
        set_id(&mut meta, internal::SNAPSHOT_IN_PROGRESS, original.id);
        let snapshot = self.write_new(meta, Point::MarkBeforeClone).await?;
        snapshot.passing.set(true);
        Ok(snapshot)
    }

    /// Writes the original without clusters, with the snapshot as its parent.
    async fn read_through(
        &self,
        original: &Rc<BlobState>,
        snapshot: &Rc<BlobState>,
    ) -> Result<(), BlobError> {
        let before = original.meta.borrow().clone();
        let parent = original.parent();
        let mut meta = before.clone();
        meta.map.clear();
        meta.flags.invalid |= Flags::THIN;
        set_parent(&mut meta, Some(&Parent::Snapshot(snapshot.id)));
        let moved = before.map.extent_pages().map(|(_, page)| page).collect();
        let how = Persist { keep: moved, after: vec![Point::CloneBeforeUnmark], ..Persist::default() };
        self.persist(original, meta, how).await?;
        self.replace_clone(parent.as_ref(), original.id, Some(snapshot.id));
        snapshot.clones.borrow_mut().push(original.id);
        self.publish_snapshot(original, snapshot).await;
        Ok(())
    }

    /// Shows the snapshot to readers of the original as its parent. They find the same clusters at any moment.
    async fn publish_snapshot(&self, original: &Rc<BlobState>, snapshot: &Rc<BlobState>) {
        let shared = self.shared_of(original).await;
        match snapshot.shared() {
            None => {
                let backing = locked(&shared.backing).clone();
                let below = Arc::new(BlobShared::new(snapshot.id, self.shared.clone(), backing));
                below.leaves.adopt(&shared.leaves);
                snapshot.show(&below, true);
                // No circle: nothing else reads through it yet.
                *locked(&shared.backing) = Backing::Blob(below);
                shared.leaves.share_all();
            }
            // It was opened meanwhile: it has leaves already.
            Some(below) => {
                shared.read_through(Backing::Blob(below));
                shared.leaves.forget_own();
            }
        }
        original.publish_flags();
        snapshot.publish_map().await;
    }
}
