//! Operations on metadata, carried out on the store and told to the model.

use std::sync::Arc;

use spindle_blob::{
    Blob, BlobError, BlobId, BlobOptions, Blobstore, ClearMethod, LoadOptions, Parent, StoreOptions,
};

use crate::context::Context;
use crate::op::{Op, Outcome, Tag};
use crate::seen::{TAG, xattr_name};

/// The xattrs that a new blob carries for the model.
fn tagged(tag: Tag) -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![(TAG.to_vec(), tag.to_le_bytes().to_vec())]
}

/// Carries out an operation on metadata.
pub async fn perform(run: &Arc<Context>, op: Op) {
    let Some(store) = run.store() else { return };
    let begun = run.begin(&op);
    let result = match &op {
        Op::Reload => reload(run, store).await,
        Op::Delete { tag } => delete(run, &store, *tag).await,
        _ => simple(run, &store, &op).await,
    };
    if let Some(id) = run.ended(begun, &op, result) {
        run.end(begun, Outcome::Done(id));
        let new = match op {
            Op::Create { tag, .. } => Some(tag),
            Op::Snapshot { new, .. } | Op::Clone { new, .. } => Some(new),
            _ => None,
        };
        if let (Some(tag), Some(store)) = (new, run.store()) {
            open(run, &store, tag).await;
        }
    }
}

/// What answers with an error if its blob is not open or not there, and with the id of a blob it has made.
async fn simple(run: &Context, store: &Blobstore, op: &Op) -> Result<Option<BlobId>, BlobError> {
    let handle = |tag: &Tag| run.handle(*tag).ok_or_else(|| none(*tag));
    let id = |tag: &Tag| {
        run.model(|model| model.blobs.get(tag).and_then(|blob| blob.id)).ok_or_else(|| none(*tag))
    };
    match op {
        Op::Create { tag, clusters, thin, table, waived, xattrs } => {
            let mut all = tagged(*tag);
            all.extend(xattrs.iter().map(|(name, value)| (xattr_name(*name), value.clone())));
            let clear_method = if *waived { ClearMethod::None } else { ClearMethod::Default };
            let options = BlobOptions {
                clusters: *clusters,
                thin: *thin,
                extent_table: *table,
                xattrs: all,
                clear_method,
                ..BlobOptions::default()
            };
            return store.create_blob(options).await.map(Some);
        }
        Op::Snapshot { tag, new } => return store.snapshot(id(tag)?, tagged(*new)).await.map(Some),
        Op::Clone { tag, new } => return store.clone_blob(id(tag)?, tagged(*new)).await.map(Some),
        Op::Resize { tag, clusters } => handle(tag)?.resize(*clusters).await?,
        Op::SetXattr { tag, name, value } => {
            handle(tag)?.set_xattr(xattr_name(*name), value.clone()).await?;
        }
        Op::RemoveXattr { tag, name } => handle(tag)?.remove_xattr(xattr_name(*name)).await?,
        Op::Sync { tag } => handle(tag)?.sync().await?,
        Op::Reopen { tag } => {
            let blob = run.take_handle(*tag).ok_or_else(|| none(*tag))?;
            close(run, *tag, blob).await?;
            open(run, store, *tag).await;
        }
        Op::ReadOnly { tag } => handle(tag)?.set_read_only().await?,
        Op::Inflate { tag } => store.inflate(id(tag)?).await?,
        Op::Decouple { tag } => store.decouple_parent(id(tag)?).await?,
        Op::SetParent { tag, parent } => store.set_parent(id(tag)?, Parent::Snapshot(id(parent)?)).await?,
        Op::SetSuper { tag } => {
            let tag = tag.as_ref().map(id).transpose()?;
            store.set_super_blob(tag).await?;
        }
        Op::Grow => store.grow().await?,
        _ => unreachable!("handled by the caller, or about data"),
    }
    Ok(None)
}

fn none(tag: Tag) -> BlobError {
    BlobError::NoSuchBlob { blob: BlobId::from_page(spindle_format::PageIdx(tag)) }
}

/// Opens a blob for the tasks to use.
pub async fn open(run: &Context, store: &Blobstore, tag: Tag) {
    let Some(id) = run.model(|model| model.blobs.get(&tag).and_then(|blob| blob.id)) else { return };
    match store.open_blob(id).await {
        Ok(blob) => run.put_handle(tag, blob),
        Err(error) => run.wrong(format!("blob {tag} ({id}) cannot be opened: {error}")),
    }
}

/// Closes a blob, with I/O to it under way as it may be, and deletes it.
async fn delete(run: &Context, store: &Blobstore, tag: Tag) -> Result<Option<BlobId>, BlobError> {
    let Some(id) = run.model(|model| model.blobs.get(&tag).and_then(|blob| blob.id)) else {
        return Err(none(tag));
    };
    if let Some(blob) = run.take_handle(tag) {
        close(run, tag, blob).await?;
    }
    let deleted = store.delete_blob(id).await;
    if deleted.is_err() {
        open(run, store, tag).await;
    }
    deleted.map(|()| None)
}

/// Closes a blob, with I/O to it under way unless the run is patient.
async fn close(run: &Context, tag: Tag, blob: Blob) -> Result<(), BlobError> {
    if run.profile.patient {
        run.idle(tag).await;
    }
    blob.close().await
}

/// Leaves the store in order and loads it again.
async fn reload(run: &Context, store: Blobstore) -> Result<Option<BlobId>, BlobError> {
    run.set_store(None);
    for tag in run.open_tags() {
        if let Some(blob) = run.take_handle(tag) {
            close(run, tag, blob).await?;
        }
    }
    store.unload().await?;
    load(run, LoadOptions::default()).await?;
    open_all(run).await;
    Ok(None)
}

/// Loads the store.
pub async fn load(run: &Context, options: LoadOptions) -> Result<Blobstore, BlobError> {
    let order = StoreOptions { order: run.order, ..StoreOptions::default() };
    let store = Blobstore::load(run.device.clone(), LoadOptions { store: order, ..options }).await?;
    run.set_store(Some(store.clone()));
    Ok(store)
}

/// Opens the blobs that the model knows.
pub async fn open_all(run: &Context) {
    let Some(store) = run.store() else { return };
    for tag in run.model(|model| model.blobs.keys().copied().collect::<Vec<_>>()) {
        open(run, &store, tag).await;
    }
}
