//! `spindle blob resize`: makes a blob larger or smaller.

use super::create::rounded;
use super::lvol::refuse_super_blob;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use crate::cli::size;
use crate::cli::text;
use spindle_blob::BlobError;
use std::ffi::OsString;

/// Arguments of `resize`.
#[derive(clap::Args)]
pub(crate) struct Resize {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    /// Its new size, rounded up to whole clusters: bytes, or a number of K, M, G, T or P
    #[arg(value_name = "SIZE", value_parser = size::parse)]
    size: u64,
    /// Allow a smaller size; the data past the new end is lost
    #[arg(long)]
    shrink: bool,
    /// Print the blob as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl Resize {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Resize { source, blob: asked, size, shrink, json } = self;
        let blob = change(&source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            let old = session.live(id).await?;
            let clusters = rounded(session, size);
            if clusters < old.info.clusters && !shrink {
                return Err(Failure::Refused(format!(
                    "blob {} has {}, {} would cut off its end: add --shrink if that may be lost",
                    old.label(),
                    text::size(old.size()),
                    text::size(size)
                )));
            }
            if clusters > old.info.clusters {
                refuse_super_blob(session, id, "made larger").await?;
            }
            if old.info.read_only {
                return Err(BlobError::ReadOnly { blob: id }.into());
            }
            let blob = session.store.open_blob(id).await?;
            let resized = blob.resize(clusters).await;
            blob.close().await?;
            resized.map_err(|error| Failure::of_size("SIZE", error))?;
            session.live(id).await
        })?;
        blob.print("resized", json, |blob| format!("{} has {} now", blob.label(), text::size(blob.size())))
    }
}
