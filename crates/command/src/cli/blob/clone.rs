//! `spindle blob clone`: a thin blob that initially has a snapshot's contents.

use super::create::print_new;
use super::naming::Naming;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use std::ffi::OsString;

/// Arguments of `clone`.
#[derive(clap::Args)]
pub(crate) struct Clone {
    #[command(flatten)]
    source: Source,
    /// The snapshot: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "SNAPSHOT")]
    snapshot: OsString,
    #[command(flatten)]
    naming: Naming,
    /// Print the clone as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl Clone {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Clone { source, snapshot: asked, naming, json } = self;
        let clone = change(&source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            let xattrs = naming.xattrs(session).await?;
            session.live(session.store.clone_blob(id, xattrs).await?).await
        })?;
        print_new(&clone, json)
    }
}
