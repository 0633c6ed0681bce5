//! Blobs read off a raw image by what the format's loader says of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use spindle_blob::BlobId;
use spindle_engine::sim::Image;
use spindle_format::{Parent, Store};

use crate::seen::value_of;
use crate::units::{Value, ZERO};

/// Where a blob's clusters lie, its own or its parents', by their index.
type Map = Rc<BTreeMap<u64, u32>>;

/// Reads blobs off an image; each cluster is looked at once.
pub struct Reader<'a> {
    image: &'a Image,
    store: &'a Store,
    maps: BTreeMap<BlobId, Map>,
    clusters: BTreeMap<u32, Vec<Value>>,
}

impl<'a> Reader<'a> {
    /// A reader of a store's image.
    pub fn new(image: &'a Image, store: &'a Store) -> Reader<'a> {
        Reader { image, store, maps: BTreeMap::new(), clusters: BTreeMap::new() }
    }

    fn map(&mut self, id: BlobId, depth: usize) -> Map {
        if let Some(map) = self.maps.get(&id) {
            return map.clone();
        }
        let mut map = BTreeMap::new();
        if let Some(blob) = self.store.blobs.get(&id)
            && depth > 0
        {
            let size = blob.metadata.map.num_clusters();
            if let Some(Parent::Snapshot(parent)) = blob.parent {
                let above = self.map(parent, depth - 1);
                map.extend(above.range(..size).map(|(at, cluster)| (*at, *cluster)));
            }
            for run in blob.metadata.map.runs() {
                map.extend((0..run.length).map(|at| (run.start + u64::from(at), run.cluster.0 + at)));
            }
        }
        let map = Rc::new(map);
        self.maps.insert(id, map.clone());
        map
    }

    fn bytes(&self, cluster: u32) -> Vec<u8> {
        let size = self.store.geometry.cluster_size();
        let mut bytes = vec![0; size as usize];
        self.image.read(u64::from(cluster) * u64::from(size), &mut bytes);
        bytes
    }

    /// The units of a blob that are not zero.
    pub fn units(&mut self, id: BlobId) -> BTreeMap<u64, Value> {
        let map = self.map(id, self.store.blobs.len());
        let unit = self.store.geometry.io_unit_size();
        let per_cluster = u64::from(self.store.geometry.cluster_size() / unit);
        let mut units = BTreeMap::new();
        for (&index, &cluster) in &*map {
            if !self.clusters.contains_key(&cluster) {
                let values = self.bytes(cluster).chunks_exact(unit as usize).map(value_of).collect();
                self.clusters.insert(cluster, values);
            }
            let values = self.clusters[&cluster].iter().enumerate();
            let values = values.filter(|(_, value)| **value != ZERO);
            units.extend(values.map(|(at, value)| (index * per_cluster + at as u64, *value)));
        }
        units
    }

    /// Gives the whole content of a blob to somebody, cluster by cluster.
    pub fn content(&mut self, id: BlobId, mut take: impl FnMut(&[u8])) {
        let map = self.map(id, self.store.blobs.len());
        let zeroes = vec![0; self.store.geometry.cluster_size() as usize];
        let clusters = self.store.blobs.get(&id).map_or(0, |blob| blob.metadata.map.num_clusters());
        (0..clusters).for_each(|index| match map.get(&index) {
            Some(cluster) => take(&self.bytes(*cluster)),
            None => take(&zeroes),
        });
    }
}
