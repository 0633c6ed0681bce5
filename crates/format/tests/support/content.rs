//! What a blob holds, in the form in which the manifests of the images say it.

use sha2::{Digest, Sha256};
use spindle_format::resolve::{Source, resolve};
use spindle_format::{BlobId, Store};

use super::Image;

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sha256 of a whole blob, read through its parents.
pub fn content(image: &Image, external: &Image, store: &Store, id: BlobId) -> String {
    let size = u64::from(store.geometry.cluster_size());
    let mut hash = Sha256::new();
    let mut buffer = vec![0; size as usize];
    for index in 0..store.blob(id).unwrap().metadata.map.num_clusters() {
        match resolve(store, id, index).unwrap() {
            Source::Cluster { cluster, .. } => {
                image.read_into(store.geometry.cluster_offset(cluster), &mut buffer);
            }
            Source::Zeroes => buffer.fill(0),
            Source::External { .. } => external.read_into(index * size, &mut buffer),
        }
        hash.update(&buffer);
    }
    hex(&hash.finalize())
}
