//! Parents of volumes: clones of bdevs outside of their store, and changes of parents.

use std::sync::Arc;

use spindle_bdev::Bdev;
use spindle_blob::{BlobOptions, ClearMethod, Parent};

use crate::create::check_clusters;
use crate::identity::uuid_bytes;
use crate::lvol::LvolInner;
use crate::module::lvol_of;
use crate::name::Name;
use crate::store::StoreInner;
use crate::{Lvol, LvolError};

impl StoreInner {
    /// Makes a volume that reads a bdev outside of the store until it is written.
    pub(crate) async fn clone_bdev(
        self: &Arc<StoreInner>,
        bdev: &Bdev,
        name: Name,
    ) -> Result<Lvol, LvolError> {
        let what = format!("clone of bdev {:?}", bdev.name());
        let refused = |why: String| LvolError::Argument { what: what.clone(), why };
        if lvol_of(bdev).and_then(|lvol| lvol.store.upgrade()).is_some_and(|store| Arc::ptr_eq(&store, self))
        {
            return Err(refused("it is a volume of the same store; clone it there".to_owned()));
        }
        let (bytes, cluster) = (bdev.num_blocks() << bdev.geometry().block_shift(), self.cluster_size());
        if !bytes.is_multiple_of(cluster) {
            return Err(refused(format!("its {bytes} bytes are not whole clusters of {cluster}")));
        }
        check_clusters(&what, bytes / cluster, true)?;
        let external_snapshot = Some(uuid_bytes(bdev.uuid()));
        self.make(name, false, async move |store, xattrs| {
            let (clusters, clear_method) = (bytes / cluster, ClearMethod::Default);
            let options =
                BlobOptions { clusters, clear_method, xattrs, external_snapshot, ..BlobOptions::default() };
            store.blobstore.create_blob(options).await.map_err(LvolError::blob(what))
        })
        .await
    }
}

impl LvolInner {
    /// Makes another volume of its store its parent.
    pub(crate) async fn set_parent(
        self: &Arc<LvolInner>,
        store: &Arc<StoreInner>,
        parent: &Arc<LvolInner>,
    ) -> Result<(), LvolError> {
        if !parent.store.upgrade().is_some_and(|other| Arc::ptr_eq(&other, store)) {
            let why =
                format!("{:?} is a volume of another store; take its bdev as the parent", parent.shown());
            return Err(LvolError::Argument { what: format!("parent of volume {:?}", self.shown()), why });
        }
        if Arc::ptr_eq(self, parent) {
            let why = "a volume is not its own parent".to_owned();
            return Err(LvolError::Argument { what: format!("parent of volume {:?}", self.shown()), why });
        }
        let _both = parent.begin()?;
        self.put_under(store, Parent::Snapshot(parent.id), &parent.shown()).await?;
        parent.snapshot.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Makes a bdev outside of its store its parent.
    pub(crate) async fn set_parent_bdev(
        self: &Arc<LvolInner>,
        store: &Arc<StoreInner>,
        parent: &Bdev,
    ) -> Result<(), LvolError> {
        let what = format!("parent of volume {:?}", self.shown());
        if *parent == store.base {
            let why = format!("its store is on bdev {:?}", parent.name());
            return Err(LvolError::Argument { what, why });
        }
        if let Some(lvol) = lvol_of(parent)
            && lvol.store.upgrade().is_some_and(|other| Arc::ptr_eq(&other, store))
        {
            let why = format!("{:?} is a volume of the same store; set that as the parent", parent.name());
            return Err(LvolError::Argument { what, why });
        }
        self.put_under(store, Parent::External(uuid_bytes(parent.uuid())), parent.name()).await?;
        store.volumes.reads_outside(parent.uuid(), self.id);
        Ok(())
    }

    async fn put_under(
        self: &Arc<LvolInner>,
        store: &StoreInner,
        parent: Parent,
        shown: &str,
    ) -> Result<(), LvolError> {
        let _busy = self.begin_on_bdev()?;
        if self.blob_info(store).await?.parent.as_ref() == Some(&parent) {
            return Err(LvolError::ParentAlready { lvol: self.shown(), parent: shown.to_owned() });
        }
        store.blobstore.set_parent(self.id, parent).await.map_err(LvolError::blob(self.shown()))
    }
}
