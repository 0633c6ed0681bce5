//! `spindle blob inflate` and `spindle blob decouple`: make a blob independent of parents.

use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use crate::cli::text::size;
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
            match wholly {
                true => session.store.inflate(id).await?,
                false => session.store.decouple_parent(id).await?,
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
