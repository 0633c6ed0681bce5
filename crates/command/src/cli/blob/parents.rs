//! Names the parents that a blob needs, for the error when one is missing.

use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::text::external_id;
use spindle_blob::{BlobError, BlobId, Parent};
use std::collections::BTreeSet;

/// An error if a part of the blob cannot be read because something above it is not there.
pub(super) async fn refuse_unreadable(session: &Session, id: BlobId) -> Result<(), Failure> {
    let info = session.store.blob_info(id).await?;
    if !info.degraded || info.allocated >= info.clusters {
        return Ok(());
    }
    missing(session, id).await.map_or(Ok(()), Err)
}

/// The error of work on a blob, with the remedy if something above the blob was not there.
pub(super) async fn explained(session: &Session, id: BlobId, error: BlobError) -> Failure {
    let why = match error {
        BlobError::MissingParent { .. } => missing(session, id).await,
        _ => None,
    };
    why.unwrap_or_else(|| error.into())
}

/// The error for an external snapshot that has no `--esnap`.
pub(super) fn not_given(id: &[u8]) -> Failure {
    let id = external_id(id);
    Failure::Refused(format!("the external snapshot {id} was not given: add --esnap {id}=FILE"))
}

/// What is not there above a blob of which something is missing.
async fn missing(session: &Session, id: BlobId) -> Option<Failure> {
    let (mut at, mut seen) = (id, BTreeSet::new());
    loop {
        let parent = match session.store.blob_info(at).await.ok()?.parent? {
            Parent::External(external) => {
                return Some(Failure::MissingExternal { blob: id, id: external_id(&external) });
            }
            Parent::Snapshot(parent) => parent,
        };
        if !seen.insert(parent) || session.store.blob_info(parent).await.is_err() {
            return Some(Failure::Refused(format!(
                "blob {id} reads through blob {parent}, which is missing or damaged: run spindle blob check to see what \
                 is wrong, or give blob {id} another parent (spindle blob set-parent)"
            )));
        }
        at = parent;
    }
}
