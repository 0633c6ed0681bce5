//! `spindle blob super`: the blob that programs look for first.

use super::lvol::check_new_super_blob;
use super::reading::attended;
use super::session::{Session, change};
use super::source::{Source, load};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, tell};
use spindle_blob::BlobId;
use std::ffi::OsString;
use std::io::Write;

/// Arguments of `super`.
#[derive(clap::Args)]
pub(crate) struct SuperBlob {
    #[command(flatten)]
    source: Source,
    /// The new super blob: its id or its name, or none. Without it, the present one is shown
    #[arg(value_name = "BLOB")]
    blob: Option<OsString>,
    /// Set it even if SPDK cannot open the lvolstore then
    #[arg(long)]
    force: bool,
    /// Print its id, or null, as JSON
    #[arg(long)]
    json: bool,
}

impl SuperBlob {
    pub(super) fn run(self) -> Result<(), Failure> {
        let SuperBlob { source, blob, force, json } = self;
        let sets = blob.is_some();
        let now = match blob {
            None => attended("super", || load(&source.open()?.0))?.super_block.super_blob,
            Some(asked) => change(&source, async move |session: &Session| {
                let blob = match asked == "none" {
                    true => None,
                    false => Some(session.find(&asked).await?),
                };
                check_new_super_blob(session, blob, force).await?;
                session.store.set_super_blob(blob).await?;
                Ok(blob)
            })?,
        };
        let text = now.map_or("none".into(), |id| id.to_string());
        let print = |out: &mut Output| match json {
            true => out.json(&now.map(BlobId::raw)),
            false => Ok(writeln!(out, "{text}")?),
        };
        if sets {
            return tell(|| format!("set the super blob to {text}"), print);
        }
        let mut out = Output::stdout();
        print(&mut out)?;
        out.finish()
    }
}
