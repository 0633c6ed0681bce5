//! Reads and checks a store on any medium.

use super::{Finding, compare, lvolstore};
use crate::ids::{ClusterIdx, PageIdx};
use crate::loader::{ByteRange, LoadError, LoadOptions, Loader};
use crate::page::PAGE_SIZE;
use crate::store::{Blob, Store};

/// The medium of a store, read on the calling thread.
pub trait Medium {
    /// Its size in bytes.
    fn bytes(&self) -> u64;

    /// Bytes of a block: reads begin and end at multiples of it.
    fn block_size(&self) -> u32;

    /// Fills the buffer from this byte on; false if that cannot be read.
    #[must_use]
    fn read(&self, offset: u64, into: &mut [u8]) -> bool;
}

/// A store and its findings.
#[derive(Debug)]
pub struct Examination {
    /// The store as a writing load would leave it.
    pub store: Store,
    /// For a store whose masks were used: the store without them.
    pub without_masks: Option<Store>,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// Loads a store from a medium, as a writing load would leave it.
///
/// # Errors
/// As [`Loader::finish`].
pub fn load(medium: &dyn Medium, force_recover: bool) -> Result<Store, LoadError> {
    let options = LoadOptions { block_size: medium.block_size(), force_recover, ..LoadOptions::default() };
    let mut loader = Loader::new(medium.bytes(), options);
    let mut bytes = Vec::new();
    while let Some(range) = loader.next_read() {
        let ByteRange { offset, len } = range;
        bytes.resize(len, 0);
        match medium.read(offset, &mut bytes) {
            true => loader.supply(range, &bytes),
            false => loader.read_failed(range),
        }
    }
    loader.finish()
}

/// Loads a store and checks it, as a store and as an lvolstore if it is one.
///
/// # Errors
/// As [`Loader::finish`]: the super block cannot be used.
pub fn examine(medium: &dyn Medium) -> Result<Examination, LoadError> {
    let store = load(medium, false)?;
    let without_masks = match store.recovered {
        true => None,
        false => Some(load(medium, true)?),
    };
    let mut findings = compare::findings(&store);
    findings.extend(lvolstore::findings(&store));
    if let Some(all) = &without_masks {
        findings.extend(hidden(&store, all));
    }
    Ok(Examination { store, without_masks, findings })
}

/// As [`examine`], for a medium that has lost its end ([`LoadError::cut_short`]): the store as it was on `whole` bytes,
/// of which what is left is read. That it was cut is the first finding.
///
/// # Errors
/// As `examine`.
pub fn examine_cut(medium: &dyn Medium, whole: u64) -> Result<Examination, LoadError> {
    let mut examined = examine(&Longer { medium, whole })?;
    let (bytes, store) = (medium.bytes(), &examined.store);
    let end = |cluster: u32, length: u32| {
        store.geometry.cluster_offset(ClusterIdx(cluster))
            + u64::from(length) * u64::from(store.geometry.cluster_size())
    };
    let lost = |blob: &&Blob| blob.metadata.map.runs().any(|run| end(run.cluster.0, run.length) > bytes);
    let blobs = store.blobs.values().filter(lost).map(|blob| blob.id).collect();
    let is_there = |page: &u32| store.geometry.page_offset(PageIdx(*page)) + PAGE_SIZE as u64 <= bytes;
    let pages = store.geometry.md_pages() - (0..store.geometry.md_pages()).filter(is_there).count() as u32;
    // One finding for all pages after the end.
    let is_after = |finding: &Finding| match finding {
        Finding::UnreadablePage { offset, .. } => offset + PAGE_SIZE as u64 > bytes,
        _ => false,
    };
    examined.findings.retain(|finding| !is_after(finding));
    examined.findings.insert(0, Finding::CutShort { bytes, whole, blobs, pages });
    Ok(examined)
}

/// A medium as if it had more bytes, which cannot be read.
struct Longer<'a> {
    medium: &'a dyn Medium,
    whole: u64,
}

impl Medium for Longer<'_> {
    fn bytes(&self) -> u64 {
        self.whole
    }

    fn block_size(&self) -> u32 {
        self.medium.block_size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let end = offset.checked_add(into.len() as u64);
        end.is_some_and(|end| end <= self.medium.bytes()) && self.medium.read(offset, into)
    }
}

/// Blobs that no mask names.
fn hidden(store: &Store, all: &Store) -> Vec<Finding> {
    let seen = |blob| {
        store.blob(blob).is_some()
            || store.unlisted.contains(&blob)
            || store.damaged.iter().any(|damaged| damaged.id == blob)
            // A pending repair removes it.
            || blob.root_page().is_some_and(|root| {
                store.disk_masks.as_ref().is_some_and(|masks| masks.used_blob_ids.get(root.0))
            })
    };
    let hidden = all.blobs.keys().copied().filter(|&blob| !seen(blob));
    hidden.map(|blob| Finding::UnlistedBlob { blob }).collect()
}
