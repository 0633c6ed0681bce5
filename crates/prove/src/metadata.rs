//! Performs operations on metadata on the store and records them in the model.

use std::sync::Arc;

use spindle_blob::{
    Blob, BlobError, BlobId, BlobOptions, Blobstore, ClearMethod, InitOptions, LoadOptions, Parent,
};
use spindle_block::SimDisk;
use spindle_engine::sim::{Disk, DiskOptions};
use spindle_mem::IoBuf;

use crate::content;
use crate::context::Context;
use crate::external;
use crate::model::MOST_OPEN;
use crate::op::{Above, Op, Outcome, Tag};
use crate::seen::{TAG, value_of, xattr_name};
use crate::units::{Time, Value, ZERO};
use crate::workload::rest;

/// The xattrs that identify a new blob to the model.
fn tagged(tag: Tag) -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![(TAG.to_vec(), tag.to_le_bytes().to_vec())]
}

/// Performs an operation on metadata.
pub async fn perform(run: &Arc<Context>, op: Op) {
    let Some(store) = run.store() else { return };
    let leaves = matches!(op, Op::Reload { .. } | Op::Destroy);
    if leaves && run.has_failed() {
        return;
    }
    if op.is_change() && run.model(|model| model.open().len() >= MOST_OPEN) {
        return rest().await;
    }
    let op = match op {
        // A load that cannot read everything does not grow the store.
        Op::Reload { .. } if run.is_failing() => Op::Reload { grow: false },
        op => op,
    };
    let begun = run.begin(&op);
    let result = match &op {
        Op::Reload { grow } => reload(run, store, *grow).await,
        Op::Destroy => destroy(run, store).await,
        Op::ShallowCopy { tag } => shallow_copy(run, &store, *tag, begun).await,
        Op::Delete { tag } => delete(run, &store, *tag).await,
        op if op.new_blob().is_some() => make_blob(run, &store, op).await.map(Some),
        _ => change(run, &store, &op).await.map(|()| None),
    };
    if leaves && run.has_failed() {
        return run.stop();
    }
    if let Some(id) = run.ended(begun, &op, result) {
        run.end(begun, Outcome::Done(id));
        if let (Some(tag), Some(store)) = (op.new_blob(), run.store()) {
            open(run, &store, tag).await;
        }
    }
}

/// Makes a blob. Fails if the blob that it is made of does not exist.
async fn make_blob(run: &Context, store: &Blobstore, op: &Op) -> Result<BlobId, BlobError> {
    let id = |tag: &Tag| known_id(run, *tag).ok_or_else(|| none(*tag));
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
            store.create_blob(options).await
        }
        Op::CloneExternal { tag, source, clusters } => {
            let external_snapshot = Some(external::id(*source));
            let options =
                BlobOptions { external_snapshot, xattrs: tagged(*tag), ..BlobOptions::thin(*clusters) };
            store.create_blob(options).await
        }
        Op::Snapshot { tag, new } => store.snapshot(id(tag)?, tagged(*new)).await,
        Op::Clone { tag, new } => store.clone_blob(id(tag)?, tagged(*new)).await,
        _ => unreachable!("makes no blob"),
    }
}

/// Changes a blob or the store. Fails if the blob is not open or does not exist.
async fn change(run: &Context, store: &Blobstore, op: &Op) -> Result<(), BlobError> {
    let handle = |tag: &Tag| run.handle(*tag).ok_or_else(|| none(*tag));
    let id = |tag: &Tag| known_id(run, *tag).ok_or_else(|| none(*tag));
    match op {
        Op::Resize { tag, clusters } => handle(tag)?.resize(*clusters).await,
        Op::Replace { tag, unit, count, value } => replace(run, &handle(tag)?, (*unit, *count), *value).await,
        Op::SetXattr { tag, name, value } => handle(tag)?.set_xattr(xattr_name(*name), value.clone()).await,
        Op::RemoveXattr { tag, name } => handle(tag)?.remove_xattr(xattr_name(*name)).await,
        Op::Sync { tag } => handle(tag)?.sync().await,
        Op::Open { tag } => {
            let blob = store.open_blob(id(tag)?).await?;
            run.put_handle(*tag, blob);
            Ok(())
        }
        Op::Reopen { tag } => {
            let blob = run.take_handle(*tag).ok_or_else(|| none(*tag))?;
            close(run, *tag, blob).await?;
            open(run, store, *tag).await;
            Ok(())
        }
        Op::ReadOnly { tag } => handle(tag)?.set_read_only().await,
        Op::Inflate { tag } => store.inflate(id(tag)?).await,
        Op::Decouple { tag } => store.decouple_parent(id(tag)?).await,
        Op::SetParent { tag, parent } => {
            let parent = match parent {
                Above::Blob(parent) => Parent::Snapshot(id(parent)?),
                Above::External(source) => Parent::External(external::id(*source)),
            };
            store.set_parent(id(tag)?, parent).await
        }
        Op::SetSuper { tag } => store.set_super_blob(tag.as_ref().map(id).transpose()?).await,
        Op::SetType { bs_type } => store.set_bs_type(*bs_type).await,
        Op::Grow => {
            run.device.grow();
            store.grow().await
        }
        _ => unreachable!("handled by the caller, or about data"),
    }
}

async fn replace(
    run: &Context,
    blob: &Blob,
    (unit, count): (u64, u64),
    value: Value,
) -> Result<(), BlobError> {
    let size = run.profile.block as usize;
    let mut bytes = IoBuf::zeroed(count as usize * size);
    content::fill(&mut bytes, size, value);
    let new = blob.replace().await?;
    match new.write(unit * size as u64, bytes).await {
        Ok(()) => new.commit().await,
        Err(error) => {
            // The first error explains more than one of the abandonment.
            let _ = new.abandon().await;
            Err(error)
        }
    }
}

fn none(tag: Tag) -> BlobError {
    BlobError::NoSuchBlob { blob: BlobId::from_page(spindle_format::PageIdx(tag)) }
}

/// Opens a blob for the tasks to use.
pub async fn open(run: &Context, store: &Blobstore, tag: Tag) {
    let Some(id) = known_id(run, tag) else { return };
    match store.open_blob(id).await {
        Ok(blob) => run.put_handle(tag, blob),
        Err(error) if run.is_device_failure(&error) || run.is_of_others(tag, &error) => {}
        Err(error) => run.wrong(format!("blob {tag} ({id}) cannot be opened: {error}")),
    }
}

fn known_id(run: &Context, tag: Tag) -> Option<BlobId> {
    run.model(|model| model.now().blobs.get(&tag).and_then(|blob| blob.id))
}

/// Closes a blob, possibly with I/O in progress, and deletes it.
async fn delete(run: &Context, store: &Blobstore, tag: Tag) -> Result<Option<BlobId>, BlobError> {
    let id = known_id(run, tag).ok_or_else(|| none(tag))?;
    if let Some(blob) = run.take_handle(tag) {
        close(run, tag, blob).await?;
    }
    let deleted = store.delete_blob(id).await;
    // After a device error it is unknown whether the blob still exists.
    if deleted.as_ref().is_err_and(|error| !run.is_device_failure(error)) {
        open(run, store, tag).await;
    }
    deleted.map(|()| None)
}

/// Closes a blob, with I/O in progress unless the run is patient.
async fn close(run: &Context, tag: Tag, blob: Blob) -> Result<(), BlobError> {
    if run.profile.patient {
        run.idle(tag).await;
    }
    blob.close().await
}

/// Unloads the store and loads it again.
async fn reload(run: &Context, store: Blobstore, grow: bool) -> Result<Option<BlobId>, BlobError> {
    // Xattrs reach the disk when their blob is closed, so every blob has to be open here.
    open_all(run).await;
    // Another task may have unloaded the store and loaded it again meanwhile.
    let store = run.store().unwrap_or(store);
    leave(run, &store, async || store.unload().await).await?;
    if run.has_failed() {
        return Ok(None);
    }
    if grow {
        run.device.grow();
    }
    run.reloading();
    load(run, LoadOptions { grow, ..LoadOptions::default() }).await?;
    open_all(run).await;
    Ok(None)
}

/// Closes all blobs, then unloads or destroys the store. The store stays in use if a blob could not be closed
/// or `last` fails.
async fn leave(
    run: &Context,
    store: &Blobstore,
    last: impl AsyncFnOnce() -> Result<(), BlobError>,
) -> Result<(), BlobError> {
    // No task may begin another operation on it.
    run.set_store(None);
    let left = match close_all(run).await {
        Ok(()) => last().await,
        Err(error) => Err(error),
    };
    // A store that another task has unloaded must not be used again.
    if left.as_ref().is_err_and(|error| !matches!(error, BlobError::Unloaded { .. })) {
        run.set_store(Some(store.clone()));
        open_all(run).await;
    }
    left
}

async fn close_all(run: &Context) -> Result<(), BlobError> {
    for tag in run.open_tags() {
        if let Some(blob) = run.take_handle(tag) {
            close(run, tag, blob).await?;
        }
    }
    Ok(())
}

/// Destroys the store.
async fn destroy(run: &Context, store: Blobstore) -> Result<Option<BlobId>, BlobError> {
    leave(run, &store, async || store.destroy().await).await.map(|()| None)
}

/// Makes a store on a device without one, and discards what the device held before.
///
/// # Errors
/// An error of the store.
pub async fn make(run: &Context) -> Result<(), String> {
    // Asks the device itself: the operation that should grow it may have been refused before that.
    let (small, large) = run.model(|model| model.rules.clusters);
    let clusters = if run.device.has_grown() { large } else { small };
    let begun = run.begin(&Op::Init { clusters });
    let options = InitOptions { layout: run.profile.layout(), force: true, store: run.store_options() };
    let store = Blobstore::init(run.device.clone(), options).await;
    if let Err(error) = &store
        && run.is_device_failure(error)
    {
        // The operation stays pending: the device may hold a store or not.
        return Ok(());
    }
    run.set_store(Some(store.map_err(|error| format!("the store cannot be made: {error}"))?));
    run.end(begun, Outcome::Done(None));
    Ok(())
}

/// Copies a read-only blob's own clusters to another device, and compares the copy with the model.
async fn shallow_copy(
    run: &Context,
    store: &Blobstore,
    tag: Tag,
    begun: Time,
) -> Result<Option<BlobId>, BlobError> {
    let blob = run.model(|model| model.now().blobs.get(&tag).cloned()).ok_or_else(|| none(tag))?;
    let id = blob.id.ok_or_else(|| none(tag))?;
    let size = (blob.clusters * u64::from(run.profile.cluster)).max(4096);
    let disk = Disk::new(DiskOptions::new(size));
    let target = SimDisk::immediate("copy", disk.clone()).expect("the disk's sizes fit each other");
    store.shallow_copy(id, target, |_, _| {}).await?;
    let mut bytes = vec![0; size as usize];
    disk.snapshot().durable().read(0, &mut bytes);
    let held = bytes.chunks_exact(run.profile.block as usize).map(value_of).zip(0..);
    if !run.model(|model| model.is_same_since(tag, begun)) {
        return Ok(None);
    }
    // Clusters that it reads from its parents are not copied.
    let skipped = |value| value == ZERO && blob.parent.is_some();
    let bad = held.filter(|(value, at)| !skipped(*value) && !blob.units.shows(*at, *value, begun));
    for (value, at) in bad.take(1) {
        run.wrong(format!("the copy of blob {tag} holds {} in unit {at}", content::name(value)));
    }
    Ok(None)
}

/// Loads the store.
pub async fn load(run: &Context, options: LoadOptions) -> Result<Blobstore, BlobError> {
    let options = LoadOptions { store: run.store_options(), ..options };
    let store = Blobstore::load(run.device.clone(), options).await?;
    run.set_store(Some(store.clone()));
    Ok(store)
}

/// Opens all blobs of the model.
pub async fn open_all(run: &Context) {
    let Some(store) = run.store() else { return };
    for tag in run.model(|model| model.now().blobs.keys().copied().collect::<Vec<_>>()) {
        if run.handle(tag).is_none() {
            open(run, &store, tag).await;
        }
    }
}
