//! A new blob that an import is filling: under a mark, and without its name until all of it is durable.
//!
//! The mark is the xattr [`IMPORTING`], whose value is the name that the blob gets in the end; one write of its
//! metadata then sets the one and removes the other. A program that is killed before leaves the blob with its
//! mark, which `ls` and `check` tell of, and the next import of that name removes it.

use super::lvol::{is_lvolstore, new_uuid};
use super::naming::Pair;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::text::{before_nul, printable};
use spindle_blob::{Blob, BlobError, BlobId, Xattr};
use spindle_format::metadata::IMPORTING;

/// What a marked blob gets when it is finished.
pub(super) struct Unfinished {
    name: Option<Vec<u8>>,
}

impl Unfinished {
    /// Takes the name out of a new blob's xattrs and puts the mark in. An lvolstore needs some name of every
    /// blob, so there it gets one that nobody else has.
    pub(super) async fn mark(session: &Session, xattrs: &mut Vec<Pair>) -> Result<Unfinished, Failure> {
        let at = xattrs.iter().position(|(key, _)| key == b"name");
        let name = at.map(|at| xattrs.remove(at).1);
        if is_lvolstore(session).await? {
            xattrs.push((b"name".to_vec(), [&b"importing-"[..], &new_uuid()?].concat()));
        }
        xattrs.push((IMPORTING.to_vec(), before_nul(name.as_deref().unwrap_or_default()).to_vec()));
        Ok(Unfinished { name })
    }

    /// Removes what imports left that were to get this name: the image is locked, so none of them goes on.
    pub(super) async fn remove_left(&self, session: &Session) -> Result<(), Failure> {
        let Some(name) = self.name.as_deref().map(before_nul) else { return Ok(()) };
        for id in session.store.blobs().await? {
            if name_of(&session.store.blob_xattrs(id).await?) == Some(name) {
                session.store.delete_blob(id).await?;
                note(&format!(
                    "removed blob {id}, left by an import of {} that was cut off",
                    printable(name)
                ));
            }
        }
        Ok(())
    }

    /// All of the blob is durable: it gets its name, durably.
    pub(super) async fn finish(self, blob: &Blob) -> Result<(), BlobError> {
        if let Some(name) = self.name {
            blob.set_xattr("name", name).await?;
        }
        blob.remove_xattr(IMPORTING).await?;
        blob.sync().await
    }
}

/// The name that an import is to give the blob with these xattrs, which may be empty; `None` if it is finished.
pub(super) fn name_of(xattrs: &[Xattr]) -> Option<&[u8]> {
    xattrs.iter().find(|xattr| xattr.name == IMPORTING).map(|xattr| &xattr.value[..])
}

/// What a blob is that is to get this name, or none, and how to remove it.
pub(super) fn explained(image: &str, id: BlobId, name: &[u8]) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" as {}", printable(name)) };
    format!("blob {id} is being imported{name}, or that was cut off: spindle blob rm {image} {id} removes it")
}
