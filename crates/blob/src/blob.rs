//! A blob as callers hold it: everything about it except its data path, which is in `data/`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::Device;
use spindle_format::{BlobId, Xattr};

use crate::error::BlobError;
use crate::md::{BlobState, Md, Opened, on_md};
use crate::options::BlobInfo;
use crate::shared::Backing;
use crate::waiting::locked;

/// An open blob. A handle: clones are the same opening, and any Spindle thread may use it; I/O runs on the
/// calling thread.
///
/// [`close`](Self::close) closes it and writes changed xattrs to disk; dropping the last clone closes it
/// without writing them: the next sync or close of the blob does that, or the
/// [`unload`](crate::Blobstore::unload) of the store.
#[derive(Clone)]
pub struct Blob {
    pub(crate) opened: Arc<Opened>,
}

impl Blob {
    pub(crate) fn new(opened: Opened) -> Blob {
        Blob { opened: Arc::new(opened) }
    }

    /// Its id.
    pub fn id(&self) -> BlobId {
        self.opened.shared.id
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.opened.shared.bytes()
    }

    /// Its size in clusters.
    pub fn clusters(&self) -> u64 {
        self.opened.shared.clusters.load(Ordering::Acquire)
    }

    /// Its properties.
    ///
    /// # Errors
    /// The blob was closed or the store unloaded.
    pub async fn info(&self) -> Result<BlobInfo, BlobError> {
        self.on_md(async |md, blob| md.blob_info(blob.id)).await
    }

    /// Changes its size in clusters, durably. Added clusters read zero (those of a thick blob are zeroed
    /// unless its clear method is `none`); removed ones are freed.
    ///
    /// # Errors
    /// Out of clusters or metadata pages, or the blob is read-only.
    pub async fn resize(&self, clusters: u64) -> Result<(), BlobError> {
        self.on_md(async move |md, blob| md.resize(&blob, clusters).await).await
    }

    /// As [`resize`](Self::resize), with a size in bytes, rounded up to whole clusters.
    ///
    /// # Errors
    /// As [`resize`](Self::resize).
    pub async fn resize_to(&self, bytes: u64) -> Result<(), BlobError> {
        self.resize(bytes.div_ceil(self.opened.shared.cluster_size.get())).await
    }

    /// The value of an xattr.
    ///
    /// # Errors
    /// There is no such xattr.
    pub async fn xattr(&self, name: impl Into<Vec<u8>>) -> Result<Vec<u8>, BlobError> {
        let name = name.into();
        self.on_md(async move |_, blob| match blob.meta.borrow().xattrs.get(&name) {
            Some(value) => Ok(value.to_vec()),
            None => Err(no_xattr(&blob, &name)),
        })
        .await
    }

    /// All xattrs, in their order on disk.
    ///
    /// # Errors
    /// The blob was closed or the store unloaded.
    pub async fn xattrs(&self) -> Result<Vec<Xattr>, BlobError> {
        self.on_md(async |_, blob| Ok(blob.meta.borrow().xattrs.iter().cloned().collect())).await
    }

    /// Sets an xattr, in memory until [`sync`](Self::sync) or [`close`](Self::close).
    ///
    /// # Errors
    /// It does not fit in a metadata page, or the blob's metadata is read-only.
    pub async fn set_xattr(
        &self,
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), BlobError> {
        let (name, value) = (name.into(), value.into());
        self.on_md(async move |md, blob| {
            let id = blob.id;
            md.edit(&blob, |meta| {
                meta.xattrs.set(&name, &value).map_err(|source| BlobError::Xattr { blob: id, source })
            })
        })
        .await
    }

    /// Removes an xattr, in memory until [`sync`](Self::sync) or [`close`](Self::close).
    ///
    /// # Errors
    /// There is no such xattr, or the blob's metadata is read-only.
    pub async fn remove_xattr(&self, name: impl Into<Vec<u8>>) -> Result<(), BlobError> {
        let name = name.into();
        self.on_md(async move |md, blob| {
            let missing = no_xattr(&blob, &name);
            md.edit(&blob, |meta| meta.xattrs.remove(&name).map(drop).ok_or(missing))
        })
        .await
    }

    /// Makes the blob read-only, durably, together with xattrs set before. Writes under way end first, later
    /// ones fail.
    ///
    /// # Errors
    /// Out of metadata pages, or a failed write.
    pub async fn set_read_only(&self) -> Result<(), BlobError> {
        self.on_md(async |md, blob| md.set_read_only(&blob).await).await
    }

    /// The blob as a block device, which keeps it open. Its lanes serve reads, writes, write zeroes, unmaps
    /// and flushes as [`BlobChannel`](crate::BlobChannel) does; after [`close`](Self::close) requests end as
    /// [`Removed`](spindle_block::IoErrorKind::Removed).
    ///
    /// Always the same device for one opening of the blob. It may be claimed; all openings share the claim.
    pub fn device(&self) -> Arc<dyn Device> {
        self.opened.clone()
    }

    /// The device of its external snapshot; `None` if it is no clone of one, or the device is missing.
    pub fn external_device(&self) -> Option<Arc<dyn Device>> {
        match &*locked(&self.opened.shared.backing) {
            Backing::External(snapshot) => Some(snapshot.device.clone()),
            _ => None,
        }
    }

    /// Changes the device of an external snapshot, which was missing or has moved, for this blob. Holds until
    /// the blob, and all blobs that read through it, are closed; the next opening asks the store's
    /// [`ExternalSource`](crate::ExternalSource) again. Reads under way end on the old device; later ones go
    /// to the new one.
    ///
    /// The device is claimed for reading only, as that of every open clone is.
    ///
    /// # Errors
    /// The blob is no clone of an external snapshot, or a user that may write has claimed the device.
    pub async fn set_external_device(&self, device: Arc<dyn Device>) -> Result<(), BlobError> {
        self.on_md(async move |md, blob| md.set_external_device(&blob, device).await).await
    }

    /// The ranges of clusters that it owns, first and number, in order.
    ///
    /// # Errors
    /// The blob was closed or the store unloaded.
    pub async fn allocated_ranges(&self) -> Result<Vec<(u64, u64)>, BlobError> {
        self.on_md(async |_, blob| Ok(blob.meta.borrow().map.allocated_ranges())).await
    }

    /// The first byte at or after `offset` in a cluster that the blob owns, if there is one.
    pub fn next_allocated(&self, offset: u64) -> Option<u64> {
        self.opened.shared.next(offset, true)
    }

    /// The first byte at or after `offset` in a cluster that the blob does not own, if there is one.
    pub fn next_unallocated(&self, offset: u64) -> Option<u64> {
        self.opened.shared.next(offset, false)
    }

    /// Writes changed xattrs to disk, durably.
    ///
    /// # Errors
    /// Out of metadata pages, or a failed write.
    pub async fn sync(&self) -> Result<(), BlobError> {
        self.on_md(async |md, blob| md.sync(&blob).await).await
    }

    /// Closes this opening for all its clones, after a [`sync`](Self::sync).
    ///
    /// # Errors
    /// As `sync`; the blob is closed even then.
    pub async fn close(self) -> Result<(), BlobError> {
        let opened = self.opened.clone();
        self.on_md(async move |md, blob| {
            let synced = match blob.is_unsynced() {
                true => md.sync(&blob).await,
                false => Ok(()),
            };
            if opened.mark_closed() {
                md.close(&blob);
            }
            synced
        })
        .await
    }

    /// An error if the blob was closed.
    pub(crate) fn check_open(&self) -> Result<(), BlobError> {
        if self.opened.is_closed() { Err(BlobError::Closed { blob: self.id() }) } else { Ok(()) }
    }

    /// Runs an operation on this blob on the store's metadata thread.
    pub(crate) async fn on_md<R, F>(&self, operation: F) -> Result<R, BlobError>
    where
        F: AsyncFnOnce(Rc<Md>, Rc<BlobState>) -> Result<R, BlobError> + Send + 'static,
        R: Send + 'static,
    {
        self.check_open()?;
        let opened = self.opened.clone();
        on_md(&self.opened.shared.store, async move |md| {
            let blob = opened.state(&md)?;
            drop(opened);
            operation(md, blob).await
        })
        .await
    }
}

fn no_xattr(blob: &BlobState, name: &[u8]) -> BlobError {
    BlobError::NoSuchXattr { blob: blob.id, name: name.escape_ascii().to_string() }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} of {})", self.id(), self.opened.shared.store.name)
    }
}
