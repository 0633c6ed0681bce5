//! Loads stores from bdevs.

use std::sync::Arc;

use spindle_bdev::{Bdev, ClaimType, Counted, Counter, Desc, DescOptions, Event, Uuid};
use spindle_blob::{BlobId, Blobstore, BsType, LoadOptions, Parent, StoreOptions};
use spindle_mem::IoBuf;
use spindle_reactor::{ReportLevel, report, tell};

use crate::identity::{Identity, uuid_of};
use crate::name::Name;
use crate::state::{LvolInner, StoreInner};
use crate::{LvolError, Lvols, MODULE, StoreKey};

/// Bytes of a super block.
const SUPER_BLOCK: usize = 4096;

impl Lvols {
    /// Loads the store on a bdev with all its volumes, if there is one.
    pub(crate) async fn load(&self, bdev: &Bdev) -> Result<Option<Arc<StoreInner>>, LvolError> {
        if !holds_store(bdev).await? {
            return Ok(None);
        }
        tell("vbdev_lvol", || format!("an lvolstore is on bdev {:?}", bdev.name()));
        let (desc, _loading) = self.claim_base(bdev)?;
        let options = LoadOptions {
            bs_type: Some(BsType::LVOLSTORE),
            read_only: !bdev.geometry().writable(),
            store: self.store_options(),
            ..LoadOptions::default()
        };
        let loaded = Blobstore::load(desc.device(), options).await;
        let blobstore = loaded.map_err(LvolError::blob(format!("lvolstore on bdev {:?}", bdev.name())))?;
        tell("blob", || format!("the store on bdev {:?} is loaded", bdev.name()));
        let store = match self.identify(&blobstore, desc).await {
            Ok(store) => store,
            Err(error) => {
                // No blob is open; errors here do not change the reported reason.
                let _ = blobstore.unload().await;
                return Err(error);
            }
        };
        self.add_store(store.clone());
        store.open_all().await;
        store.ready.set();
        tell("vbdev_lvol", || format!("lvolstore {:?} is open", store.name().as_str()));
        Ok(Some(store))
    }

    /// Opens and claims the bdev of a store. Its removal waits until the store was left, and until the guard
    /// is dropped, by which time the maker or loader of the store has added it, or failed.
    pub(crate) fn claim_base(&self, bdev: &Bdev) -> Result<(Desc, Counted), LvolError> {
        let opening = Counter::default();
        let guard = opening.begin();
        let (lvols, base) = (Arc::downgrade(&self.0), bdev.clone());
        let on_event = move |event| {
            let Event::Remove(grace) = event else { return };
            let (lvols, base, opening) = (lvols.clone(), base.clone(), opening.clone());
            // Called on the app thread, where the descriptor was opened.
            drop(spindle_reactor::spawn_local(async move {
                opening.none().await;
                if let Some(lvols) = lvols.upgrade().map(Lvols)
                    && let Some(store) = lvols.store_on(&base)
                {
                    store.warn_of_removal();
                    if let Err(error) = store.unload_for_removal(grace).await {
                        lvols.report(&base, &error);
                    }
                }
            }));
        };
        let desc = bdev.descriptor(DescOptions::new().on_event(on_event))?;
        desc.claim(ClaimType::ReadManyWriteOne, "an lvolstore", MODULE)?;
        Ok((desc, guard))
    }

    pub(crate) fn store_options(&self) -> StoreOptions {
        StoreOptions { external: Some(self.external_source()), ..StoreOptions::default() }
    }

    /// Reads the identity of a loaded store from the xattrs of its super blob.
    async fn identify(&self, blobstore: &Blobstore, desc: Desc) -> Result<Arc<StoreInner>, LvolError> {
        let base = desc.bdev().name().to_owned();
        let blob_error = || LvolError::blob(format!("lvolstore on bdev {base:?}"));
        let refused = |why: &str| LvolError::NotLoadable { base: base.clone(), why: why.to_owned() };
        let super_blob = blobstore.super_blob().await.map_err(blob_error())?;
        let super_blob =
            super_blob.ok_or_else(|| refused("it has no super blob; set it with `spindle blob super`"))?;
        let xattrs = blobstore.blob_xattrs(super_blob).await.map_err(blob_error())?;
        let Identity { name, uuid } = Identity::of(&xattrs);
        let name = name.ok_or_else(|| refused("its super blob has no valid xattr `name`"))?;
        let uuid = uuid.ok_or_else(|| refused("its super blob has no valid xattr `uuid`"))?;
        if let Err(LvolError::StoreExists { name, base: other }) = self.check_name(name.as_str(), None) {
            return Err(LvolError::NameClash { name, base, other });
        }
        self.warn_of_copy(&name, uuid, &base);
        desc.claimed_by(&format!("lvolstore {:?}", name.as_str()));
        Ok(StoreInner::new(&self.0, (name, uuid), (blobstore.clone(), super_blob), desc))
    }
}

impl Lvols {
    /// Warns if another store has the UUID of one that is loaded, as a copy of its bdev has.
    fn warn_of_copy(&self, name: &Name, uuid: Uuid, base: &str) {
        if let Ok(other) = self.store(&StoreKey::Uuid(uuid)) {
            report(ReportLevel::Warning, "vbdev_lvol", || {
                format!(
                    "lvolstore {:?} on bdev {base:?} has the UUID of lvolstore {:?} on bdev {:?}, and is found by its name \
                     only: one is a copy of the other; delete the bdev of the one that is not needed",
                    name.as_str(),
                    other.name(),
                    other.base().name()
                )
            });
        }
    }
}

/// True if a bdev seems to hold an lvolstore, so that it is worth claiming.
async fn holds_store(bdev: &Bdev) -> Result<bool, LvolError> {
    let desc = bdev.descriptor(DescOptions::new())?;
    let geometry = desc.geometry();
    let block = geometry.block_size() as usize;
    let length = SUPER_BLOCK.next_multiple_of(block);
    if geometry.bytes() < length as u64 || bdev.num_blocks() == 0 {
        return Ok(false);
    }
    let channel = desc.channel()?;
    let (read, buffers) = channel.read(0, IoBuf::zeroed(length)).await;
    // A bdev that cannot be read holds no store; its users get the error themselves.
    if read.is_err() {
        return Ok(false);
    }
    let bytes = buffers.to_vec();
    Ok(bytes.starts_with(b"SPDKBLOB") && bytes[56..72] == BsType::LVOLSTORE.0)
}

impl StoreInner {
    /// Opens all volumes and registers their bdevs. A blob that cannot be a volume is left out and noted.
    pub(crate) async fn open_all(self: &Arc<StoreInner>) {
        let blobs = match self.blobstore.blobs().await {
            Ok(blobs) => blobs,
            Err(error) => return self.note(format!("its blobs cannot be listed: {error}")),
        };
        for id in blobs.into_iter().filter(|id| *id != self.super_blob) {
            if let Err(error) = self.open(id).await {
                self.note(format!("blob {id}: {error}"));
            }
        }
        if let Ok(info) = self.blobstore.info().await {
            info.damaged
                .iter()
                .for_each(|id| self.note(format!("blob {id} is damaged; run `spindle blob check`")));
            info.refuses_changes.into_iter().for_each(|why| self.note(why));
        }
    }

    /// Opens a blob as the volume identified by its xattrs.
    async fn open(self: &Arc<StoreInner>, id: BlobId) -> Result<(), LvolError> {
        let what = || format!("blob {id}");
        let xattrs = self.blobstore.blob_xattrs(id).await.map_err(LvolError::blob(what()))?;
        let Identity { name, uuid } = Identity::of(&xattrs);
        let base = self.base.name().to_owned();
        let refused = |why: String| LvolError::NotLoadable { base: base.clone(), why };
        let name = name.ok_or_else(|| refused(format!("blob {id} has no valid xattr `name`")))?;
        if !self.volumes.take(&name) {
            return Err(refused(format!("blob {id} has the name {:?} of another volume", name.as_str())));
        }
        let opened = self.open_as(id, &name, uuid, false).await;
        match opened {
            Ok(lvol) => self.offer_or_wait(&lvol).await,
            Err(error) => {
                self.volumes.free(&name);
                Err(error)
            }
        }
    }

    /// Opens a blob as the volume of that name, which was reserved for it.
    pub(crate) async fn open_as(
        self: &Arc<StoreInner>,
        id: BlobId,
        name: &Name,
        uuid: Option<Uuid>,
        snapshot: bool,
    ) -> Result<Arc<LvolInner>, LvolError> {
        let what = self.alias(name);
        let blob = self.blobstore.open_blob(id).await.map_err(LvolError::blob(what.clone()))?;
        let info = blob.info().await.map_err(LvolError::blob(what))?;
        let snapshot = snapshot || !info.clones.is_empty();
        if let Some(Parent::External(id)) = &info.parent
            && let Some(external) = uuid_of(id)
        {
            self.volumes.reads_external(external, blob.id());
        }
        let lvol = LvolInner::new(self, blob, name.clone(), uuid, snapshot);
        self.volumes.insert(&lvol);
        tell("lvol", || format!("volume {:?} (blob {id}) is open", self.alias(name)));
        Ok(lvol)
    }
}
