//! Creates blobs: empty ones, and clones of snapshots.

use std::rc::Rc;

use spindle_format::metadata::internal;
use spindle_format::{BlobId, BlobMetadata, ClusterIdx, ClusterMap, Flags, PageIdx, Parent};

use super::blob_state::BlobState;
use super::links::set_parent;
use super::metadata::Md;
use super::persist::Persist;
use super::turns::Turns;
use crate::error::BlobError;
use crate::options::BlobOptions;
use crate::ordering::Point;

impl Md {
    /// Makes a blob.
    pub(crate) async fn create(self: &Rc<Md>, options: &BlobOptions) -> Result<BlobId, BlobError> {
        let mut meta = new_metadata(options)?;
        self.check_allocation()?;
        let _guard = self.exclusive().await?;
        let mut clusters = Vec::new();
        let result = self.create_thick(&mut meta, options, &mut clusters).await;
        let result = match result {
            Ok(()) => self.write_new(meta, Point::DurableBeforeAck).await,
            Err(error) => Err(error),
        };
        if result.is_err() && self.check_writable().is_ok() {
            self.release_unused(clusters).await;
        }
        self.space_changed();
        result.map(|blob| blob.id)
    }

    async fn create_thick(
        &self,
        meta: &mut BlobMetadata,
        options: &BlobOptions,
        clusters: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        if meta.flags.thin() {
            return Ok(());
        }
        self.take_clusters(options.clusters, options.clear_method, clusters).await?;
        let mut turns = Turns::default();
        for (index, &cluster) in clusters.iter().enumerate() {
            meta.map.set(index as u64, Some(ClusterIdx(cluster)));
            turns.spend(1).await;
        }
        meta.map.compact();
        Ok(())
    }

    /// Makes a clone of a snapshot.
    pub(crate) async fn clone_of(
        self: &Rc<Md>,
        snapshot: BlobId,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<BlobId, BlobError> {
        self.check_writable()?;
        let _guard = self.exclusive().await?;
        let parent = self.blob(snapshot)?;
        if !parent.flags().read_only() {
            return Err(BlobError::Refused {
                blob: snapshot,
                why: "only a snapshot can be cloned: take one first",
            });
        }
        if parent.held.get() {
            return Err(BlobError::busy(snapshot));
        }
        let (clusters, extent_table) = {
            let meta = parent.meta.borrow();
            (meta.map.num_clusters(), meta.map.is_table())
        };
        let options = BlobOptions { extent_table, xattrs: xattrs.to_vec(), ..BlobOptions::thin(clusters) };
        let mut meta = new_metadata(&options)?;
        set_parent(&mut meta, Some(&Parent::Snapshot(snapshot)));
        let blob = self.write_new(meta, Point::DurableBeforeAck).await?;
        parent.clones.borrow_mut().push(blob.id);
        Ok(blob.id)
    }

    /// Finds a root for new metadata and writes it. Called under [`Md::lock`].
    pub(crate) async fn write_new(
        &self,
        meta: BlobMetadata,
        after: Point,
    ) -> Result<Rc<BlobState>, BlobError> {
        self.check_allocation()?;
        self.mark_dirty().await?;
        let named = |page| self.found.reserved_roots.contains(&PageIdx(page));
        let root = self.find_page(0, false, named).await?;
        let empty = BlobMetadata { map: ClusterMap::new_table(), ..meta.clone() };
        let blob = Rc::new(BlobState::new(BlobId::from_page(root), empty, vec![root]));
        let how = Persist { fills: !meta.flags.thin(), after: vec![after], ..Persist::default() };
        if let Err(error) = self.persist(&blob, meta, how).await {
            if self.check_writable().is_ok() {
                let copies = self.take_copies(&[root]);
                self.space.borrow_mut().free_pages_again([root]);
                self.free_pages(copies).await?;
            }
            return Err(error);
        }
        self.used_blob_ids.borrow_mut().set(root.0);
        self.blobs.borrow_mut().insert(blob.id, blob.clone());
        Ok(blob)
    }
}

/// The metadata of a new blob without clusters.
fn new_metadata(options: &BlobOptions) -> Result<BlobMetadata, BlobError> {
    let wrong = |option, why: String| BlobError::Option { option, why };
    if options.clusters > spindle_format::cluster_map::MAX_CLUSTERS {
        return Err(wrong(
            "clusters",
            format!("a blob has at most 2^32 - 1 clusters, not {}", options.clusters),
        ));
    }
    let thin = options.thin || options.external_snapshot.is_some();
    let mut meta = if thin { BlobMetadata::new_thin() } else { BlobMetadata::new_thick() };
    if !options.extent_table {
        meta.flags.invalid &= !Flags::EXTENT_TABLE;
        meta.map = ClusterMap::new_rle();
    }
    meta.flags.set_clear_method(options.clear_method);
    for (name, value) in &options.xattrs {
        meta.xattrs.set(name, value).map_err(|error| wrong("xattrs", error.to_string()))?;
    }
    if let Some(id) = &options.external_snapshot {
        let set = meta.set_internal(internal::EXTERNAL_SNAPSHOT_ID, id);
        set.map_err(|error| wrong("external_snapshot", error.to_string()))?;
        meta.flags.invalid |= Flags::EXTERNAL_SNAPSHOT;
    }
    meta.map.resize(options.clusters);
    Ok(meta)
}
