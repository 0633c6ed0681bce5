//! `spindle blob rm`: removes a blob from a store.

use super::lvol::keep_super_blob;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, tell};
use crate::cli::text::{json_text, size};
use std::ffi::OsString;
use std::io::Write;

/// Arguments of `rm`.
#[derive(clap::Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    /// Remove it even if it is the super blob of an lvolstore, which SPDK does not open without
    #[arg(long)]
    force: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// As JSON. Scripts rely on these names.
#[derive(serde::Serialize)]
struct Removed {
    id: u64,
    id_text: String,
    name: Option<String>,
    /// Bytes freed by this, without what a clone took over.
    freed: u64,
}

impl Rm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Rm { source, blob: asked, force, json } = self;
        let (blob, freed) = change(&source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            keep_super_blob(session, id, "removed", force).await?;
            let blob = session.live(id).await?;
            let before = session.info().await?.free_clusters;
            session.store.delete_blob(id).await?;
            let freed = session.info().await?.free_clusters.saturating_sub(before);
            Ok((blob, u64::from(freed) * u64::from(session.store.cluster_size())))
        })?;
        let (id, name) = (blob.id(), blob.name().map(json_text));
        let removed = Removed { id: id.raw(), id_text: id.to_string(), name, freed };
        let print = |out: &mut Output| match json {
            true => out.json(&removed),
            false => Ok(writeln!(out, "removed {}: {} freed", blob.label(), size(freed))?),
        };
        tell(|| format!("removed blob {}", blob.label()), print)
    }
}
