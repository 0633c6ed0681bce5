//! A store that a command changes: locked, loaded, changed, and unloaded cleanly even if the work fails.
//!
//! Lives on the Spindle thread of [`foreground`]. The lock excludes other commands and programs on this
//! engine. Not promised: that it excludes programs that take no lock, such as SPDK's.

use super::describe::Live;
use super::external::{ExternalArgument, devices};
use super::foreground::{self, Stop};
use super::image::ImageFile;
use super::naming;
use super::select::{Entry, choose};
use super::served::open_for_writing;
use super::source::{Source, not_loaded};
use crate::cli::failure::{Failure, shown};
use crate::cli::output::note;
use crate::cli::progress::Progress;
use crate::cli::text::count;
use spindle_blob::{
    BlobError, BlobId, Blobstore, LoadOptions, LoadProgress, LoadStep, StoreInfo, StoreOptions,
};
use spindle_format::metadata::importing;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A loaded store.
pub(super) struct Session {
    pub(super) store: Blobstore,
    pub(super) stop: Stop,
    image: PathBuf,
}

/// Loads the store, does the work on it and unloads it, also when the work has failed.
pub(super) fn change<F, T>(source: &Source, work: F) -> Result<T, Failure>
where
    F: AsyncFnOnce(&Session) -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    change_with(source, LoadOptions::default(), work)
}

/// As [`change`], with options of the load.
pub(super) fn change_with<F, T>(source: &Source, options: LoadOptions, work: F) -> Result<T, Failure>
where
    F: AsyncFnOnce(&Session) -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    let (image, externals) = source.parts();
    foreground::run(async move |stop| {
        let session = Session::load(image, externals, options, stop).await?;
        let done = work(&session).await;
        let unloaded = session.store.unload().await;
        // The work's own error is more useful than that of the unload.
        let done = done?;
        unloaded?;
        Ok(done)
    })
}

impl Session {
    async fn load(
        image: PathBuf,
        externals: Vec<ExternalArgument>,
        options: LoadOptions,
        stop: Stop,
    ) -> Result<Session, Failure> {
        // The same checks and errors as in the commands that read.
        let file = ImageFile::open(&image)?;
        let device = open_for_writing(&image).await?;
        let store = StoreOptions { external: Some(devices(externals).await?), ..options.store };
        let options = LoadOptions { store, progress: Some(progress()), ..options };
        let store = Blobstore::load(device, options).await.map_err(|error| match error {
            BlobError::Load { source, .. } => not_loaded(&file, source),
            error => error.into(),
        })?;
        let session = Session { store, stop, image };
        session.say_what_was_found(&session.info().await?);
        Ok(session)
    }

    fn say_what_was_found(&self, info: &StoreInfo) {
        let image = shown(&self.image);
        if info.recovered {
            note(&format!("{image} was not unloaded cleanly: recovered"));
        }
        if !info.damaged.is_empty() {
            let damaged = count(info.damaged.len() as u64, "damaged blob");
            note(&format!("{image} has {damaged}: spindle blob info says what is wrong"));
        }
    }

    pub(super) async fn info(&self) -> Result<StoreInfo, Failure> {
        Ok(self.store.info().await?)
    }

    /// The image's name in errors.
    pub(super) fn image(&self) -> String {
        shown(&self.image)
    }

    /// The selected blob.
    pub(super) async fn find(&self, asked: &OsStr) -> Result<BlobId, Failure> {
        choose(&self.entries().await?, &self.image, asked)
    }

    /// The names and ids of the store's blobs.
    pub(super) async fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        for id in self.store.blobs().await? {
            let xattrs = self.store.blob_xattrs(id).await?;
            let importing = importing(&xattrs).map(<[u8]>::to_vec);
            entries.push(Entry { id, name: naming::name_of(&xattrs), importing, damage: None });
        }
        for id in self.info().await?.damaged {
            let why = self.store.open_blob(id).await.err();
            let damage = why.map(|why| why.to_string());
            entries.push(Entry { id, name: None, importing: None, damage });
        }
        Ok(entries)
    }

    /// A blob as it is now.
    pub(super) async fn live(&self, id: BlobId) -> Result<Live, Failure> {
        let info = self.store.blob_info(id).await?;
        let xattrs = self.store.blob_xattrs(id).await?;
        Ok(Live { info, xattrs, cluster_size: self.store.cluster_size() })
    }

    /// Clusters for `bytes` bytes, rounded up.
    pub(super) fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.store.cluster_size()))
    }
}

/// Shows the progress of the load.
fn progress() -> LoadProgress {
    let bar = Mutex::new(Progress::new("reading metadata", 0));
    Arc::new(move |step: LoadStep| {
        // Nothing panics while holding the lock.
        if let Ok(mut bar) = bar.lock() {
            bar.at(step.bytes_read, step.bytes_total);
        }
    })
}
