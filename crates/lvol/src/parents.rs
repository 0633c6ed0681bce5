//! Parents of volumes: clones of bdevs outside of their store, and changes of parents.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_bdev::{Bdev, ClaimType};
use spindle_blob::{BlobError, BlobOptions, ClearMethod, Parent};

use crate::create::check_clusters;
use crate::identity::uuid_bytes;
use crate::name::Name;
use crate::state::{LvolInner, StoreInner, lvol_of};
use crate::{Lvol, LvolError};

impl StoreInner {
    /// Makes a volume that reads a bdev outside of the store until it is written.
    pub(crate) async fn clone_bdev(
        self: &Arc<StoreInner>,
        bdev: &Bdev,
        name: &str,
    ) -> Result<Lvol, LvolError> {
        let what = format!("clone of bdev {:?}", bdev.name());
        if lvol_of(bdev).and_then(|lvol| lvol.store.upgrade()).is_some_and(|store| Arc::ptr_eq(&store, self))
        {
            let why = "it is a volume of the same store; clone it there".to_owned();
            return Err(LvolError::Argument { what, why });
        }
        let name = Name::new("volume name", name)?;
        let external_snapshot = Some(uuid_bytes(bdev.uuid()));
        self.make(name, false, async move |store, xattrs| {
            // With a writer the clone would be degraded from the start.
            bdev.check_claim(ClaimType::ReadManyWriteNone)?;
            let (clusters, clear_method) = (store.whole_clusters(bdev, &what)?, ClearMethod::Default);
            check_clusters(&what, clusters, true)?;
            let options =
                BlobOptions { clusters, clear_method, xattrs, external_snapshot, ..BlobOptions::default() };
            store.blobstore.create_blob(options).await.map_err(LvolError::blob(what))
        })
        .await
    }

    /// The clusters of a bdev that volumes read through; an error if its size is not a whole number of them.
    fn whole_clusters(&self, bdev: &Bdev, what: &str) -> Result<u64, LvolError> {
        let (bytes, cluster) = (bdev.num_blocks() << bdev.geometry().block_shift(), self.cluster_size());
        if bytes.is_multiple_of(cluster) {
            return Ok(bytes / cluster);
        }
        let why = format!("the {bytes} bytes of bdev {:?} are not whole clusters of {cluster}", bdev.name());
        Err(LvolError::Argument { what: what.to_owned(), why })
    }
}

impl LvolInner {
    /// Makes another volume of its store its parent.
    pub(crate) async fn set_parent(
        self: &Arc<LvolInner>,
        store: &Arc<StoreInner>,
        parent: &Arc<LvolInner>,
    ) -> Result<(), LvolError> {
        let refused =
            |why: String| LvolError::Argument { what: format!("parent of volume {:?}", self.shown()), why };
        let begun = (self.begin(), parent.begin());
        self.check_bdev()?;
        parent.check_bdev()?;
        if !parent.store.upgrade().is_some_and(|other| Arc::ptr_eq(&other, store)) {
            let other = parent.shown();
            return Err(refused(format!(
                "{other:?} is a volume of another store; take its bdev as the parent"
            )));
        }
        if Arc::ptr_eq(self, parent) {
            return Err(refused("a volume is not its own parent; name a snapshot".to_owned()));
        }
        let (above, shown) = (Parent::Snapshot(parent.id), parent.shown());
        self.check_new_parent(store, &above, &shown).await?;
        if !parent.snapshot.load(Ordering::Acquire) {
            return Err(refused(format!("{shown:?} is no snapshot; take one first")));
        }
        let _both = (begun.0?, begun.1?);
        store.blobstore.set_parent(self.id, above).await.map_err(LvolError::blob(self.shown()))
    }

    /// Makes a bdev outside of its store its parent.
    pub(crate) async fn set_parent_bdev(
        self: &Arc<LvolInner>,
        store: &Arc<StoreInner>,
        parent: &Bdev,
    ) -> Result<(), LvolError> {
        let begun = self.begin();
        self.check_bdev()?;
        let what = format!("parent of volume {:?}", self.shown());
        if *parent == store.base {
            let why = format!("its store is on bdev {:?}", parent.name());
            return Err(LvolError::Argument { what, why });
        }
        if self.bdev().as_ref() == Some(parent) {
            let why = "a volume is not its own parent; name another bdev".to_owned();
            return Err(LvolError::Argument { what, why });
        }
        if let Some(lvol) = lvol_of(parent)
            && lvol.store.upgrade().is_some_and(|other| Arc::ptr_eq(&other, store))
        {
            let why = format!("{:?} is a volume of the same store; use bdev_lvol_set_parent", parent.name());
            return Err(LvolError::Argument { what, why });
        }
        store.whole_clusters(parent, &what)?;
        let external = Parent::External(uuid_bytes(parent.uuid()));
        self.check_new_parent(store, &external, parent.name()).await?;
        let _busy = begun?;
        let put = store.blobstore.set_parent(self.id, external).await;
        put.map_err(|error| match (&error, parent.check_claim(ClaimType::ReadManyWriteNone)) {
            // EINVAL, as in SPDK, for every holder.
            (BlobError::MissingParent { .. }, Err(held)) => {
                LvolError::Argument { what, why: held.to_string() }
            }
            _ => LvolError::blob(self.shown())(error),
        })?;
        store.volumes.reads_external(parent.uuid(), self.id);
        Ok(())
    }

    /// An error if that is its parent already, or it cannot have one.
    async fn check_new_parent(
        &self,
        store: &StoreInner,
        parent: &Parent,
        shown: &str,
    ) -> Result<(), LvolError> {
        let info = self.blob_info(store).await?;
        if info.parent.as_ref() == Some(parent) {
            return Err(LvolError::ParentAlready { lvol: self.shown(), parent: shown.to_owned() });
        }
        if !info.thin {
            let why = "it is not thin, and needs no parent".to_owned();
            return Err(LvolError::Argument { what: format!("volume {:?}", self.shown()), why });
        }
        Ok(())
    }
}
