//! A new blob that an import is filling: marked, and without its name until all of it is durable.
//!
//! The mark is the xattr [`IMPORTING`], whose value is the final name of the blob; one write of its metadata
//! then sets the name and removes the mark. A program that is killed before leaves the blob with its mark,
//! which `ls` and `check` report, and the next import of that name removes it. A blob that has a name, or on which
//! another depends, is never taken for one of these.

use super::lvol::{is_lvolstore, new_uuid};
use super::naming::Pair;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::shell;
use crate::cli::text::{before_nul, printable};
use spindle_blob::{Blob, BlobError, BlobId};
use spindle_format::metadata::{IMPORT_NAME, IMPORTING, importing};
use std::path::Path;

/// What a marked blob gets at the end.
pub(super) struct Unfinished {
    name: Option<Vec<u8>>,
}

impl Unfinished {
    /// Removes the name from a new blob's xattrs and adds the mark. An lvolstore requires a name for every
    /// blob, so there it gets a unique one.
    pub(super) async fn mark(session: &Session, xattrs: &mut Vec<Pair>) -> Result<Unfinished, Failure> {
        let at = xattrs.iter().position(|(key, _)| key == b"name");
        let name = at.map(|at| xattrs.remove(at).1);
        if is_lvolstore(session).await? {
            xattrs.push((b"name".to_vec(), [IMPORT_NAME, &new_uuid()?].concat()));
        }
        xattrs.push((IMPORTING.to_vec(), before_nul(name.as_deref().unwrap_or_default()).to_vec()));
        Ok(Unfinished { name })
    }

    /// Removes blobs left by imports of this name: the image is locked, so none of those is still running.
    pub(super) async fn remove_left(&self, session: &Session) -> Result<(), Failure> {
        let Some(name) = self.name.as_deref().map(before_nul) else { return Ok(()) };
        for id in session.store.blobs().await? {
            if importing(&session.store.blob_xattrs(id).await?) == Some(name) && is_alone(session, id).await?
            {
                session.store.delete_blob(id).await?;
                note(&format!(
                    "removed blob {id}, left by an import of {} that was cut off",
                    printable(name)
                ));
            }
        }
        Ok(())
    }

    /// Gives the blob, whose data is durable, its name, durably.
    pub(super) async fn finish(self, blob: &Blob) -> Result<(), BlobError> {
        if let Some(name) = self.name {
            blob.set_xattr("name", name).await?;
        }
        blob.remove_xattr(IMPORTING).await?;
        blob.sync().await
    }
}

/// Whether nothing depends on a blob, as on none that an import has left.
async fn is_alone(session: &Session, id: BlobId) -> Result<bool, Failure> {
    let info = session.store.blob_info(id).await?;
    let alone = info.parent.is_none() && info.clones.is_empty() && !info.read_only;
    Ok(alone && session.store.super_blob().await? != Some(id))
}

/// Describes a blob with this final name, or none, and how to remove it.
pub(super) fn explained(image: &Path, id: BlobId, name: &[u8]) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" as {}", printable(name)) };
    let image = shell::typed(image);
    format!("blob {id} is being imported{name}, or that was cut off: spindle blob rm {image} {id} removes it")
}
