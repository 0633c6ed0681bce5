//! `spindle blob snapshot`: keeps a blob's present contents as a read-only blob through which it reads.

use super::create::print_new;
use super::lvol::refuse_super_blob;
use super::naming::Naming;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use std::ffi::OsString;

/// Arguments of `snapshot`.
#[derive(clap::Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    #[command(flatten)]
    naming: Naming,
    /// Print the snapshot as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl Snapshot {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Snapshot { source, blob: asked, naming, json } = self;
        let snapshot = change(&source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            refuse_super_blob(session, id, "snapshotted").await?;
            let xattrs = naming.xattrs(session).await?;
            session.live(session.store.snapshot(id, xattrs).await?).await
        })?;
        print_new(&snapshot, json)
    }
}
