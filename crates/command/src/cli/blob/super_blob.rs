//! `spindle blob super`: the blob that programs look for first.

use super::lvol::check_new_super_blob;
use super::reading::attended;
use super::select::Entry;
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
    /// The new super blob: its id or its name; none for no super blob. Without it, the present one is shown
    #[arg(value_name = "BLOB")]
    blob: Option<OsString>,
    /// Set no super blob, also where a blob is called none
    #[arg(long, conflicts_with = "blob")]
    none: bool,
    /// Set it even if SPDK cannot open the lvolstore then
    #[arg(long)]
    force: bool,
    /// Print its id, or null, as JSON
    #[arg(long)]
    json: bool,
}

/// An error if a blob is called as the word for no super blob.
async fn no_blob_called_none(session: &Session) -> Result<(), Failure> {
    let entries = session.entries().await?;
    match entries.iter().find(|entry| entry.name.as_deref() == Some(b"none")) {
        None => Ok(()),
        Some(Entry { id, .. }) => Err(Failure::Refused(format!(
            "none is the name of blob {id} of {}: give this id for that blob, or --none for no super blob",
            session.image()
        ))),
    }
}

impl SuperBlob {
    pub(super) fn run(self) -> Result<(), Failure> {
        let SuperBlob { source, blob, none, force, json } = self;
        let sets = none || blob.is_some();
        let now = match sets {
            false => attended("super", || load(&source.open()?.0))?.super_block.super_blob,
            true => change(&source, async move |session: &Session| {
                let blob = match &blob {
                    None => None,
                    Some(asked) if asked == "none" => no_blob_called_none(session).await.map(|()| None)?,
                    Some(asked) => Some(session.find(asked).await?),
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
