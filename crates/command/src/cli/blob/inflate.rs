//! `spindle blob inflate` and `spindle blob decouple`: make a blob independent of parents.

use super::parents::explained;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::text::size;
use spindle_blob::BlobError;
use std::ffi::OsString;

/// Arguments of `inflate` and of `decouple`.
#[derive(clap::Args)]
pub(crate) struct Inflate {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    /// Print the blob as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl Inflate {
    /// Copies everything that the blob reads from parents.
    pub(super) fn run(self) -> Result<(), Failure> {
        self.detach(true)
    }

    /// Copies the clusters of its parent.
    pub(super) fn run_decouple(self) -> Result<(), Failure> {
        self.detach(false)
    }

    fn detach(self, wholly: bool) -> Result<(), Failure> {
        let asked = self.blob;
        let blob = change(&self.source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            let stop = session.stop.clone();
            let goes_on = move || stop.check().is_ok();
            let detached = match wholly {
                true => session.store.inflate_while(id, goes_on).await,
                false => session.store.decouple_parent_while(id, goes_on).await,
            };
            if let Err(stopped @ BlobError::Stopped { .. }) = &detached {
                note(&stopped.to_string());
                session.stop.check()?;
            }
            if let Err(error) = detached {
                return Err(explained(session, id, error).await);
            }
            session.live(id).await
        })?;
        let cluster = u64::from(blob.cluster_size);
        blob.print(if wholly { "inflated" } else { "decoupled" }, self.json, |blob| {
            format!(
                "{} has {} itself and {}",
                blob.label(),
                size(blob.info.allocated * cluster),
                blob.parent()
            )
        })
    }
}
