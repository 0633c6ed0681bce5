//! Reads blobs from a raw image, by the description that the format's loader gives.

use std::collections::BTreeMap;
use std::rc::Rc;

use spindle_blob::BlobId;
use spindle_engine::sim::Image;
use spindle_format::{Parent, Store};

use crate::external;
use crate::seen::value_of;
use crate::units::{Value, ZERO};

/// Location of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In the store.
    Own(u32),
    /// In an external snapshot, at this index.
    External(u8, u64),
}

/// Locations of a blob's clusters, its own or its parents', by their index.
type Map = Rc<BTreeMap<u64, Place>>;

/// Reads blobs from an image. Reads each cluster only once.
pub struct Reader<'a> {
    image: &'a Image,
    store: &'a Store,
    maps: BTreeMap<BlobId, Map>,
    clusters: BTreeMap<Place, Vec<Value>>,
    externals: BTreeMap<u8, Vec<u8>>,
}

impl<'a> Reader<'a> {
    /// A reader of a store's image.
    pub fn new(image: &'a Image, store: &'a Store) -> Reader<'a> {
        Reader { image, store, maps: BTreeMap::new(), clusters: BTreeMap::new(), externals: BTreeMap::new() }
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
            match &blob.parent {
                Some(Parent::Snapshot(parent)) => {
                    let above = self.map(*parent, depth - 1);
                    map.extend(above.range(..size).map(|(at, place)| (*at, *place)));
                }
                Some(Parent::External(id)) => {
                    let source = external::by_id(id);
                    let clusters = source.map_or(0, external::clusters).min(size);
                    let all = source.into_iter().flat_map(|source| (0..clusters).map(move |at| (source, at)));
                    map.extend(all.map(|(source, at)| (at, Place::External(source, at))));
                }
                None => {}
            }
            for run in blob.metadata.map.runs() {
                let own = |at: u32| (run.start + u64::from(at), Place::Own(run.cluster.0 + at));
                map.extend((0..run.length).map(own));
            }
        }
        let map = Rc::new(map);
        self.maps.insert(id, map.clone());
        map
    }

    fn bytes(&mut self, place: Place) -> Vec<u8> {
        let (size, unit) = (self.store.geometry.cluster_size(), self.store.geometry.io_unit_size());
        match place {
            Place::Own(cluster) => {
                let mut bytes = vec![0; size as usize];
                self.image.read(u64::from(cluster) * u64::from(size), &mut bytes);
                bytes
            }
            Place::External(source, at) => {
                let all = self.externals.entry(source);
                let all = all.or_insert_with(|| external::bytes(source, size, unit));
                all[at as usize * size as usize..][..size as usize].to_vec()
            }
        }
    }

    /// Returns the units of a blob that are not zero.
    pub fn units(&mut self, id: BlobId) -> BTreeMap<u64, Value> {
        let map = self.map(id, self.store.blobs.len());
        let unit = self.store.geometry.io_unit_size();
        let per_cluster = u64::from(self.store.geometry.cluster_size() / unit);
        let mut units = BTreeMap::new();
        for (&index, &place) in &*map {
            if !self.clusters.contains_key(&place) {
                let values = self.bytes(place).chunks_exact(unit as usize).map(value_of).collect();
                self.clusters.insert(place, values);
            }
            let values = self.clusters[&place].iter().enumerate();
            let values = values.filter(|(_, value)| **value != ZERO);
            units.extend(values.map(|(at, value)| (index * per_cluster + at as u64, *value)));
        }
        units
    }

    /// Passes the whole content of a blob to `take`, cluster by cluster.
    pub fn content(&mut self, id: BlobId, mut take: impl FnMut(&[u8])) {
        let map = self.map(id, self.store.blobs.len());
        let zeroes = vec![0; self.store.geometry.cluster_size() as usize];
        let clusters = self.store.blobs.get(&id).map_or(0, |blob| blob.metadata.map.num_clusters());
        (0..clusters).for_each(|index| match map.get(&index) {
            Some(place) => take(&self.bytes(*place)),
            None => take(&zeroes),
        });
    }
}
