//! A store as callers hold it.

use std::sync::Arc;

use spindle_block::Device;
use spindle_format::super_block::BsType;
use spindle_format::{BlobId, Parent, Xattr};

use crate::blob::Blob;
use crate::error::BlobError;
use crate::md::{self, Loaded, StoreRef, Wanted, on_md};
use crate::options::{BlobInfo, BlobOpenOptions, BlobOptions, InitOptions, LoadOptions, StoreInfo};
use crate::shared::StoreShared;
use crate::space::LowSpace;

/// A loaded store. A handle: clones are the same store, and any Spindle thread may use it.
///
/// Operations on metadata run on the thread that called [`init`](Self::init) or [`load`](Self::load), one
/// after the other; calls are sent there. Dropping the future of such an operation does not stop it: it runs
/// to its end and only its result is lost. An operation that has returned success is durable. When the last
/// handle and the last open blob are dropped without an [`unload`](Self::unload), the store releases its
/// device, without a write, when work under way has ended: the next load waits for that, on any thread, and
/// recovers the store.
///
/// A call finds the blob that has the id when its turn comes, and the id of a deleted blob is given to a
/// later one: users that share a store must not use the id of a blob that another one deletes.
#[derive(Clone)]
pub struct Blobstore {
    pub(crate) shared: Arc<StoreShared>,
    /// Shared by all handles and openings; dropping the last one leaves the store.
    store: Arc<StoreRef>,
}

impl Blobstore {
    /// Creates a store on a device and loads it; this thread becomes its metadata thread. If the future is
    /// dropped the store is still created, and released without an unload.
    ///
    /// # Errors
    /// The device holds known contents and `force` is not set, or another store has it; the options do not
    /// fit the device; the device fails.
    pub async fn init(device: Arc<dyn Device>, options: InitOptions) -> Result<Blobstore, BlobError> {
        Blobstore::opened(async move |wanted| md::init(device, options, &wanted).await).await
    }

    /// Loads the store on a device; this thread becomes its metadata thread. A store that was not unloaded
    /// cleanly is recovered. If the future is dropped the load runs to its end, and the store is released
    /// then.
    ///
    /// # Errors
    /// There is no store, it is of another type, a store that may write has the device already (a read-only
    /// load is allowed), or the device fails.
    pub async fn load(device: Arc<dyn Device>, options: LoadOptions) -> Result<Blobstore, BlobError> {
        Blobstore::opened(async move |wanted| md::load(device, options, &wanted).await).await
    }

    /// Runs `task`, which creates or loads a store, as a task of this thread, and takes the store from it.
    async fn opened(
        task: impl AsyncFnOnce(Wanted) -> Result<Loaded, BlobError> + 'static,
    ) -> Result<Blobstore, BlobError> {
        let wanted = Wanted::default();
        let asked = wanted.asked();
        let opening = spindle_reactor::spawn_local(async move { task(wanted).await });
        let store = Blobstore::new(finished(opening.await)?.keep());
        asked.met();
        Ok(store)
    }

    fn new(shared: Arc<StoreShared>) -> Blobstore {
        Blobstore { store: StoreRef::new(shared.clone()), shared }
    }

    /// The store's name, that of its device.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u32 {
        self.shared.cluster_size
    }

    /// The number of clusters that hold `bytes` bytes, for [`BlobOptions`].
    pub fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.shared.cluster_size))
    }

    /// Bytes of the smallest I/O: offsets and lengths are multiples of it.
    pub fn io_unit_size(&self) -> u32 {
        self.shared.io_unit
    }

    /// The store's properties.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn info(&self) -> Result<StoreInfo, BlobError> {
        on_md(&self.shared, async |md| Ok(md.info())).await
    }

    /// The readable blobs, in the order of their ids.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn blobs(&self) -> Result<Vec<BlobId>, BlobError> {
        on_md(&self.shared, async |md| Ok(md.list())).await
    }

    /// The first blob after `after` in the order of their ids, or the first of all; `None` after the last.
    /// Blobs may come and go between calls.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn next_blob(&self, after: Option<BlobId>) -> Result<Option<BlobId>, BlobError> {
        on_md(&self.shared, async move |md| Ok(md.next(after))).await
    }

    /// The properties of a blob, open or not.
    ///
    /// # Errors
    /// There is no such blob, or it is damaged.
    pub async fn blob_info(&self, id: BlobId) -> Result<BlobInfo, BlobError> {
        on_md(&self.shared, async move |md| md.blob_info(id)).await
    }

    /// The xattrs of a blob, open or not.
    ///
    /// # Errors
    /// There is no such blob, or it is damaged.
    pub async fn blob_xattrs(&self, id: BlobId) -> Result<Vec<Xattr>, BlobError> {
        on_md(&self.shared, async move |md| Ok(md.blob(id)?.meta.borrow().xattrs.iter().cloned().collect()))
            .await
    }

    /// Makes a blob.
    ///
    /// # Errors
    /// Out of clusters or of metadata pages, an invalid option, or a failed write.
    pub async fn create_blob(&self, options: BlobOptions) -> Result<BlobId, BlobError> {
        on_md(&self.shared, async move |md| md.create(&options).await).await
    }

    /// Opens a blob. It stays open until every handle was closed or dropped.
    ///
    /// # Errors
    /// There is no such blob, it is just being deleted, or it is damaged.
    pub async fn open_blob(&self, id: BlobId) -> Result<Blob, BlobError> {
        self.open_blob_with(id, BlobOpenOptions::default()).await
    }

    /// Opens a blob with options.
    ///
    /// # Errors
    /// As [`open_blob`](Self::open_blob).
    pub async fn open_blob_with(&self, id: BlobId, options: BlobOpenOptions) -> Result<Blob, BlobError> {
        let store = self.store.clone();
        let opened = on_md(&self.shared, async move |md| md.open(id, options, store).await).await?;
        Ok(Blob::new(opened))
    }

    /// Deletes a blob that is not open. A snapshot with one clone gives it what the clone reads.
    ///
    /// # Errors
    /// It is open, more than one clone reads through it, or another operation works on it or on its clone.
    pub async fn delete_blob(&self, id: BlobId) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.remove(id).await).await
    }

    /// Takes a snapshot: a new read-only blob with these xattrs and the blob's present contents; the blob
    /// then reads through it. Writes under way end first, later ones wait.
    ///
    /// # Errors
    /// The blob is read-only, or another such operation works on it.
    pub async fn snapshot(&self, id: BlobId, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<BlobId, BlobError> {
        on_md(&self.shared, async move |md| md.snapshot(id, &xattrs).await).await
    }

    /// Makes a thin blob with these xattrs that reads what the snapshot holds until it is written.
    ///
    /// # Errors
    /// The blob is no snapshot.
    pub async fn clone_blob(
        &self,
        snapshot: BlobId,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<BlobId, BlobError> {
        on_md(&self.shared, async move |md| md.clone_of(snapshot, &xattrs).await).await
    }

    /// Allocates and fills every cluster of a blob, so that it has no parent and is no longer thin.
    ///
    /// # Errors
    /// Not enough clusters are free (nothing was copied then), or another operation works on the blob.
    pub async fn inflate(&self, id: BlobId) -> Result<(), BlobError> {
        self.inflate_while(id, || true).await
    }

    /// As [`inflate`](Self::inflate), as long as `goes_on` says so, which is asked every few clusters. Once it does
    /// not, what was copied stays with the blob, which reads as before, and another call goes on from there.
    ///
    /// # Errors
    /// As `inflate`, and [`BlobError::Stopped`].
    pub async fn inflate_while(
        &self,
        id: BlobId,
        goes_on: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.detach(&md.blob(id)?, true, &goes_on).await).await
    }

    /// Allocates and fills the clusters that a blob reads in its parent, so that its grandparent, or none, becomes
    /// its parent.
    ///
    /// # Errors
    /// It has no parent, or not enough clusters are free.
    pub async fn decouple_parent(&self, id: BlobId) -> Result<(), BlobError> {
        self.decouple_parent_while(id, || true).await
    }

    /// As [`decouple_parent`](Self::decouple_parent), as long as `goes_on` says so: see
    /// [`inflate_while`](Self::inflate_while).
    ///
    /// # Errors
    /// As `decouple_parent`, and [`BlobError::Stopped`].
    pub async fn decouple_parent_while(
        &self,
        id: BlobId,
        goes_on: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.detach(&md.blob(id)?, false, &goes_on).await).await
    }

    /// Gives a thin blob another snapshot of the same size, in this store or outside, as its parent: clusters that
    /// it does not own read as in the new parent from now on.
    ///
    /// # Errors
    /// The blob is not thin, or the parent is missing, has another size, or is below the blob.
    pub async fn set_parent(&self, id: BlobId, parent: Parent) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.set_parent(id, parent).await).await
    }

    /// Copies the clusters that a read-only blob owns, not those of its parents, to the same offsets of
    /// another device, and flushes that. `progress` is called on the metadata thread after every cluster with
    /// the number done and the total.
    ///
    /// # Errors
    /// The blob can be written, the target is too small or has larger blocks, or a device fails.
    pub async fn shallow_copy(
        &self,
        id: BlobId,
        target: Arc<dyn Device>,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.shallow_copy(id, target, Box::new(progress)).await).await
    }

    /// The blob that programs look for first.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn super_blob(&self) -> Result<Option<BlobId>, BlobError> {
        on_md(&self.shared, async |md| Ok(md.super_block.borrow().super_blob)).await
    }

    /// Sets the blob that programs look for first.
    ///
    /// # Errors
    /// There is no such blob, or the write fails.
    pub async fn set_super_blob(&self, blob: Option<BlobId>) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.set_super_blob(blob).await).await
    }

    /// Sets the store's type, which a load may ask for.
    ///
    /// # Errors
    /// The write fails.
    pub async fn set_bs_type(&self, bs_type: BsType) -> Result<(), BlobError> {
        on_md(&self.shared, async move |md| md.set_bs_type(bs_type).await).await
    }

    /// Takes over the space that the device has gained since the store was made, while it is in use: the
    /// device's [`geometry`](Device::geometry) is its present size.
    ///
    /// # Errors
    /// The masks have no room for more clusters, or the device has shrunk.
    pub async fn grow(&self) -> Result<(), BlobError> {
        on_md(&self.shared, async |md| md.grow_live().await).await
    }

    /// Watches for the moment when at most `threshold` clusters are free; threads' reserves count as free.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn low_space(&self, threshold: u64) -> Result<LowSpace, BlobError> {
        let (events, watch) = LowSpace::new(threshold);
        on_md(&self.shared, async move |md| {
            md.watches.add(watch);
            md.space_changed();
            Ok(())
        })
        .await?;
        Ok(events)
    }

    /// Unloads the store cleanly, so that the next load need not recover it, and writes the xattrs that were set
    /// through handles which were dropped. Every thread releases the device. After an error of the device the
    /// store is unloaded even then, and will be recovered.
    ///
    /// # Errors
    /// Blobs are open (nothing has changed then), or a write fails. If there is no metadata page for an xattr that
    /// was set, that is lost, but the store is unloaded cleanly.
    pub async fn unload(&self) -> Result<(), BlobError> {
        on_md(&self.shared, async |md| md.unload().await).await
    }
}

impl Blobstore {
    /// Clears the super block, so that the device no longer holds a store, and releases the device. Other
    /// data of the store stays on the device.
    ///
    /// # Errors
    /// Blobs are open (nothing has changed then), the store was loaded read-only, or a write fails.
    pub async fn destroy(&self) -> Result<(), BlobError> {
        on_md(&self.shared, async |md| md.destroy().await).await
    }
}

impl std::fmt::Debug for Blobstore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blobstore({})", self.shared.name)
    }
}

/// The result of a task of this thread. A task that panicked has no result; the panic is not swallowed.
fn finished<R, E: std::fmt::Display>(joined: Result<Result<R, BlobError>, E>) -> Result<R, BlobError> {
    match joined {
        Ok(result) => result,
        Err(error) => panic!("an operation on a store ended without a result: {error}"),
    }
}
