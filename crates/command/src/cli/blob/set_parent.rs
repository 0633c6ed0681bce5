//! `spindle blob set-parent`: gives a thin blob another snapshot as its parent.

use super::external::SnapshotId;
use super::lvol;
use super::parents::not_given;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use spindle_blob::{BlobError, Parent};
use std::ffi::OsString;

/// Arguments of `set-parent`.
#[derive(clap::Args)]
pub(crate) struct SetParent {
    #[command(flatten)]
    source: Source,
    /// The thin blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    /// The snapshot that becomes the parent: its id or its name
    #[arg(value_name = "SNAPSHOT", required_unless_present = "external")]
    snapshot: Option<OsString>,
    /// Make the external snapshot with this id the parent instead: a UUID, or 0x and hexadecimal
    #[arg(long, value_name = "ID", conflicts_with = "snapshot")]
    external: Option<SnapshotId>,
    /// Print the blob as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl SetParent {
    pub(super) fn run(self) -> Result<(), Failure> {
        let SetParent { source, blob: asked, snapshot, external, json } = self;
        let blob = change(&source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            lvol::refuse_super_blob(session, id, "given a parent").await?;
            let parent = match (external, snapshot) {
                (Some(external), _) => Parent::External(lvol::external_id(session, external.0).await?),
                (None, snapshot) => Parent::Snapshot(session.find(&snapshot.unwrap_or_default()).await?),
            };
            session.store.set_parent(id, parent.clone()).await.map_err(|error| match (error, &parent) {
                (BlobError::MissingParent { .. }, Parent::External(external)) => not_given(external),
                (error, _) => error.into(),
            })?;
            session.live(id).await
        })?;
        blob.print("set the parent of", json, |blob| format!("{} has {}", blob.label(), blob.parent()))
    }
}
