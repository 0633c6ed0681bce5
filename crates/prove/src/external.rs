//! Two external snapshots that every run has: devices that are never written, with values that no write of
//! the workload uses.

use std::sync::Arc;

use spindle_blob::ExternalSource;
use spindle_block::{Device, SimDisk};
use spindle_engine::sim::{Disk, DiskOptions, Image};

use crate::content;
use crate::profile::Profile;
use crate::units::{Units, Value, ZERO};

/// Number of external snapshots.
pub const COUNT: u8 = 2;

/// Names, clusters, and block sizes in bytes: the second one's blocks may be larger than the store's.
const ALL: [(&str, u64, u32); COUNT as usize] = [("external-a", 3, 512), ("external-b", 6, 4096)];

/// Far beyond the values that the workload reaches.
const FIRST: Value = 1 << 30;

/// Returns the id that clones carry.
pub fn id(which: u8) -> Vec<u8> {
    ALL[usize::from(which)].0.as_bytes().to_vec()
}

/// Returns the index of the external snapshot with this id.
pub fn by_id(id: &[u8]) -> Option<u8> {
    (0..COUNT).find(|which| ALL[usize::from(*which)].0.as_bytes() == id)
}

/// Returns its size in clusters.
pub fn clusters(which: u8) -> u64 {
    ALL[usize::from(which)].1
}

/// Returns the value in each of its units; some are zero.
pub fn values(which: u8, per_cluster: u64) -> impl Iterator<Item = Value> {
    let units = (clusters(which) * per_cluster) as Value;
    let first = FIRST + Value::from(which) * (1 << 20);
    (0..units).map(move |at| if at % 5 == 4 { ZERO } else { first + at })
}

/// Returns the units of a blob that reads all of it.
pub fn units(which: u8, per_cluster: u64) -> Units {
    let all = (0..).zip(values(which, per_cluster));
    Units::known(all.filter(|(_, value)| *value != ZERO), ZERO)
}

/// Returns its bytes.
pub fn bytes(which: u8, cluster: u32, unit: u32) -> Vec<u8> {
    let per_cluster = u64::from(cluster / unit);
    let mut bytes = vec![0; (clusters(which) * u64::from(cluster)) as usize];
    for (unit, value) in bytes.chunks_exact_mut(unit as usize).zip(values(which, per_cluster)) {
        content::fill(unit, unit.len(), value);
    }
    bytes
}

/// Makes the source that finds them for a store.
pub fn source(profile: &Profile) -> ExternalSource {
    let device = |which: u8| -> Arc<dyn Device> {
        let bytes = bytes(which, profile.cluster, profile.block);
        let (name, _, block) = ALL[usize::from(which)];
        let options = DiskOptions { block, atomic_unit: block, ..DiskOptions::new(bytes.len() as u64) };
        let disk = Disk::from_image(Image::from_bytes(&bytes), options);
        SimDisk::immediate(name, disk).expect("the disk's sizes fit each other")
    };
    let devices: Vec<Arc<dyn Device>> = (0..COUNT).map(device).collect();
    Arc::new(move |id: &[u8]| by_id(id).map(|which| devices[usize::from(which)].clone()))
}
