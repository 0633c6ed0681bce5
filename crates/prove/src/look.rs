//! Reads the contents of a loaded store through its handles.

use std::collections::{BTreeMap, BTreeSet};

use spindle_blob::{Blob, BlobError, BlobId, Blobstore};
use spindle_mem::IoBuf;

use crate::context::Context;
use crate::op::Tag;
use crate::seen::{Seen, SeenBlob, TAG, above, tag_of, value_of, xattrs};
use crate::units::ZERO;

/// Clusters of a large blob that are read even if they were never written.
const ALWAYS: u64 = 8;

/// Reads everything that may not be zero: all that some blob has a cluster for, or that the model knows of.
///
/// # Errors
/// An error of the store, or an error found in it.
pub async fn look(run: &Context, store: &Blobstore) -> Result<Seen, String> {
    let told = |error: BlobError| error.to_string();
    let mut tags = BTreeMap::new();
    for id in store.blobs().await.map_err(told)? {
        let all = store.blob_xattrs(id).await.map_err(told)?;
        let tag = all.iter().find(|xattr| *xattr.name == *TAG).and_then(|xattr| tag_of(&xattr.value));
        let tag = tag.ok_or_else(|| format!("blob {id} carries no tag"))?;
        if tags.values().any(|other| *other == tag) {
            return Err(format!("two blobs carry the tag {tag}: {id} is one"));
        }
        tags.insert(id, tag);
    }
    let clusters = clusters(run, store, &tags).await.map_err(told)?;
    let mut blobs = BTreeMap::new();
    for (id, tag) in &tags {
        let info = store.blob_info(*id).await.map_err(told)?;
        if info.degraded {
            return Err(format!("blob {tag} ({id}) misses a parent"));
        }
        let all = store.blob_xattrs(*id).await.map_err(told)?;
        let seen = SeenBlob {
            id: *id,
            clusters: info.clusters,
            thin: info.thin,
            read_only: info.read_only,
            parent: above(info.parent.as_ref(), &tags),
            clones: info.clones.iter().filter_map(|clone| tags.get(clone).copied()).collect(),
            allocated: info.allocated,
            xattrs: xattrs(all.iter().map(|xattr| (&*xattr.name, &*xattr.value))),
            units: with(run, store, (*id, *tag), async |blob| read(run, blob, &clusters).await)
                .await
                .map_err(told)?,
        };
        blobs.insert(*tag, seen);
    }
    let super_blob = store.super_blob().await.map_err(told)?;
    let info = store.info().await.map_err(told)?;
    if !info.damaged.is_empty() {
        return Err(format!("blobs {:?} are damaged", info.damaged));
    }
    let (bs_type, clusters) = (info.bs_type, info.data_clusters.into());
    Ok(Seen { blobs, super_blob: super_blob.and_then(|id| tags.get(&id).copied()), bs_type, clusters })
}

/// The clusters to read of every blob: one that a crash has left unfinished is not in the model yet, and shares
/// with another.
async fn clusters(
    run: &Context,
    store: &Blobstore,
    tags: &BTreeMap<BlobId, Tag>,
) -> Result<BTreeSet<u64>, BlobError> {
    let per_cluster = run.profile.per_cluster();
    let mut clusters: BTreeSet<u64> = (0..ALWAYS).collect();
    clusters.extend(run.model(|model| {
        let blobs = model.worlds.iter().flat_map(|world| world.blobs.values());
        let places = blobs.flat_map(|blob| blob.units.places());
        places.map(|at| at / per_cluster).collect::<Vec<_>>()
    }));
    for (&id, &tag) in tags {
        let ranges = with(run, store, (id, tag), async |blob| blob.allocated_ranges().await).await?;
        clusters.extend(ranges.into_iter().flat_map(|(first, count)| first..first + count));
    }
    Ok(clusters)
}

/// Asks a blob something, opened for that if it is not open.
async fn with<R>(
    run: &Context,
    store: &Blobstore,
    (id, tag): (BlobId, Tag),
    ask: impl AsyncFnOnce(&Blob) -> Result<R, BlobError>,
) -> Result<R, BlobError> {
    let opened = run.handle(tag);
    let blob = match &opened {
        Some(blob) => blob.clone(),
        None => store.open_blob(id).await?,
    };
    let result = ask(&blob).await;
    if opened.is_none() {
        match blob.close().await {
            // There is no page for xattrs that are not on the disk yet; they stay in memory.
            Err(BlobError::OutOfMetadata { .. }) => {}
            closed => closed?,
        }
    }
    result
}

async fn read(run: &Context, blob: &Blob, clusters: &BTreeSet<u64>) -> Result<BTreeMap<u64, u32>, BlobError> {
    let per_cluster = run.profile.per_cluster();
    let size = u64::from(run.profile.cluster);
    let mut units = BTreeMap::new();
    let clusters: Vec<u64> = clusters.iter().copied().filter(|at| *at < blob.clusters()).collect();
    for run_of in clusters.chunk_by(|a, b| a + 1 == *b) {
        let (first, count) = (run_of[0], run_of.len() as u64);
        let (result, buffers) = blob.read(first * size, IoBuf::zeroed((count * size) as usize)).await;
        result?;
        let bytes = buffers.to_vec();
        let values = bytes.chunks_exact(run.profile.block as usize).map(value_of).zip(first * per_cluster..);
        units.extend(values.filter(|(value, _)| *value != ZERO).map(|(value, at)| (at, value)));
    }
    Ok(units)
}
