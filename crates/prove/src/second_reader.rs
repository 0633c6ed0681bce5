//! The second reader: an independent program in another language, written from the format's description
//! alone, that also judges crashed images.
//!
//! It knows the format, but not what this store adds to it. If a crash can tear a page, it therefore gets the
//! image as a load repairs it; otherwise the image itself. The atomic unit that the store was told of
//! decides, since the store chooses its way of writing by that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::Value;
use spindle_engine::sim::Image;
use spindle_format::page::PAGE_SIZE;
use spindle_format::repair::{Repair, RepairReason};
use spindle_format::{Geometry, Parent};

use crate::external;
use crate::reader::Reader;
use crate::seen::{Raw, Wrong};

/// Runs the second reader.
#[derive(Clone, Debug)]
pub struct SecondReader {
    /// The python3 program.
    pub program: PathBuf,
    /// Gives it one in this many crashed images.
    pub every: u64,
}

/// Its description of a store.
#[derive(Deserialize)]
struct Said {
    accepted: bool,
    reason: Option<String>,
    super_blob: Option<u64>,
    free_clusters: Option<u32>,
    #[serde(default)]
    unopened: BTreeMap<String, String>,
    #[serde(default)]
    findings: Vec<String>,
    #[serde(default)]
    blobs: Vec<SaidBlob>,
}

/// Its description of a blob.
#[derive(Deserialize, PartialEq, Debug)]
struct SaidBlob {
    id: u64,
    clusters: u64,
    allocated_clusters: u64,
    thin: bool,
    read_only: bool,
    parent: Value,
    sha256: String,
}

impl SecondReader {
    /// True if it gets this image. It gets more of unloaded stores, which are rare.
    pub fn wants(&self, raw: &Raw, random: u64) -> bool {
        let every = if is_clean(raw) { (self.every / 32).max(1) } else { self.every };
        random.is_multiple_of(every)
    }

    /// Gives it an image to judge.
    ///
    /// # Errors
    /// It rejects the image, finds an error, sees other blobs or contents, or cannot be run.
    pub fn judge(&self, image: &Image, raw: &Raw, atomic_unit: u32) -> Result<(), Wrong> {
        let mut bytes = image.to_bytes();
        // In the middle of deleting a snapshot without free pages clone and snapshot name the same clusters, which
        // it reports.
        let shares = |repair: &Repair| matches!(repair.reason, RepairReason::UnshareClusters { .. });
        let repaired = (atomic_unit as usize) < PAGE_SIZE || raw.store.repairs.iter().any(shares);
        if repaired {
            let changes = raw.store.repairs.iter().flat_map(|repair| &repair.changes);
            changes.for_each(|change| change.apply(&mut bytes));
        }
        let said =
            self.ask(&bytes, &raw.store.geometry).map_err(|why| vec![format!("the second reader: {why}")])?;
        let mut wrong: Wrong = said.findings;
        wrong.extend(said.reason);
        wrong.extend(said.unopened.into_values());
        let store = &raw.store;
        let super_blob = store.super_block.super_blob.map(|id| id.raw());
        if said.accepted && said.super_blob != super_blob {
            wrong.push(format!("the super blob is {:?}, not {super_blob:?}", said.super_blob));
        }
        let exact = repaired || store.repairs.is_empty();
        if said.accepted && exact && said.free_clusters != Some(store.free_clusters()) {
            wrong.push(format!("{:?} clusters are free, not {}", said.free_clusters, store.free_clusters()));
        }
        let seen = blobs(image, raw);
        if said.accepted && said.blobs != seen {
            wrong.push(format!("there are {:?}, not {seen:?}", said.blobs));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.into_iter().map(|what| format!("the second reader: {what}")).collect()),
        }
    }

    fn ask(&self, bytes: &[u8], geometry: &Geometry) -> Result<Said, String> {
        let told = |error: std::io::Error| error.to_string();
        let file = tempfile::NamedTempFile::new().map_err(told)?;
        std::fs::write(file.path(), bytes).map_err(told)?;
        let mut command = Command::new("python3");
        command.arg(&self.program);
        let (cluster, unit) = (geometry.cluster_size(), geometry.io_unit_size());
        let mut externals = Vec::new();
        for source in 0..external::COUNT {
            let file = tempfile::NamedTempFile::new().map_err(told)?;
            std::fs::write(file.path(), external::bytes(source, cluster, unit)).map_err(told)?;
            let name = String::from_utf8_lossy(&external::id(source)).into_owned();
            command.arg("--esnap").arg(format!("{name}={}", file.path().display()));
            externals.push(file);
        }
        let run = command.arg(file.path()).output().map_err(told)?;
        if !run.status.success() {
            return Err(String::from_utf8_lossy(&run.stderr).into_owned());
        }
        serde_json::from_slice(&run.stdout).map_err(|error| error.to_string())
    }
}

/// True if the store was unloaded.
pub fn is_clean(raw: &Raw) -> bool {
    raw.store.super_block.clean && raw.store.repairs.is_empty()
}

/// Describes the blobs as the store's own loader sees them.
fn blobs(image: &Image, raw: &Raw) -> Vec<SaidBlob> {
    let mut reader = Reader::new(image, &raw.store);
    let one = |(id, blob): (&spindle_blob::BlobId, &spindle_format::Blob)| {
        let mut digest = Context::new(&SHA256);
        reader.content(*id, |bytes| digest.update(bytes));
        let digest = digest.finish();
        SaidBlob {
            id: id.raw(),
            clusters: blob.metadata.map.num_clusters(),
            allocated_clusters: blob.metadata.map.allocated(),
            thin: blob.metadata.flags.thin(),
            read_only: blob.metadata.flags.read_only(),
            parent: match &blob.parent {
                Some(Parent::Snapshot(parent)) => parent.raw().into(),
                Some(Parent::External(id)) => {
                    serde_json::json!({ "external": String::from_utf8_lossy(id) })
                }
                None => Value::Null,
            },
            sha256: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    };
    raw.store.blobs.iter().map(one).collect()
}
