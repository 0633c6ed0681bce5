//! The contents of a store: its blobs and the value in each of their units. Made from the raw image by the
//! format's loader, and from a loaded store through its handles; both are compared with the model and with
//! each other.

use std::collections::{BTreeMap, BTreeSet};

use spindle_blob::{BlobId, BsType};
use spindle_engine::sim::Image;
use spindle_format::check::{Finding, check};
use spindle_format::{LoadOptions, Loader, Parent, Store};

use crate::content;
use crate::external;
use crate::op::{Above, Tag, Xattrs};
use crate::reader::Reader;
use crate::units::{ANYTHING, Value};

/// The xattr that carries the tag.
pub const TAG: &[u8] = b"tag";

/// The contents of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Blobs by tag.
    pub blobs: BTreeMap<Tag, SeenBlob>,
    /// The super blob.
    pub super_blob: Option<Tag>,
    /// The type of the store.
    pub bs_type: BsType,
    /// Clusters for data.
    pub clusters: u64,
}

/// The contents of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBlob {
    /// Its id.
    pub id: BlobId,
    /// Its size in clusters.
    pub clusters: u64,
    /// Whether it is thin.
    pub thin: bool,
    /// Whether its data cannot be written.
    pub read_only: bool,
    /// Its parent.
    pub parent: Option<Above>,
    /// The blobs that read through it.
    pub clones: BTreeSet<Tag>,
    /// Number of its own clusters.
    pub allocated: u64,
    /// Its xattrs except the tag.
    pub xattrs: Xattrs,
    /// Its units that are not zero.
    pub units: BTreeMap<u64, Value>,
}

/// Errors of a store, in words.
pub type Wrong = Vec<String>;

/// A store read from its raw image, with the repairs that the loader made.
pub struct Raw {
    /// Its contents.
    pub seen: Seen,
    /// The store as the format's loader describes it.
    pub store: Store,
}

/// The result of reading an image.
pub enum Found {
    /// No store that can be loaded, and the reason.
    Nothing(String),
    /// A store.
    Store(Box<Raw>),
}

impl Found {
    /// Returns the contents, or why there are none.
    pub fn seen(&self) -> Result<&Seen, &str> {
        match self {
            Found::Nothing(why) => Err(why),
            Found::Store(raw) => Ok(&raw.seen),
        }
    }
}

/// Returns the place a blob reads from where it has no data of its own, if known.
pub fn above(parent: Option<&Parent>, tags: &BTreeMap<BlobId, Tag>) -> Option<Above> {
    match parent? {
        Parent::Snapshot(id) => tags.get(id).copied().map(Above::Blob),
        Parent::External(id) => external::by_id(id).map(Above::External),
    }
}

/// Loads an image with the format's loader and checks its structure.
///
/// # Errors
/// The image has an error that a load does not repair.
pub fn raw(image: &Image) -> Result<Found, Wrong> {
    let mut loader = Loader::new(image.size(), LoadOptions::default());
    let mut bytes = Vec::new();
    while let Some(range) = loader.next_read() {
        bytes.resize(range.len, 0);
        image.read(range.offset, &mut bytes);
        loader.supply(range, &bytes);
    }
    let store = match loader.finish() {
        Ok(store) => store,
        Err(error) => return Ok(Found::Nothing(error.to_string())),
    };
    let mut wrong: Wrong = check(&store)
        .iter()
        .filter(|finding| !matches!(finding, Finding::Pending(_)))
        .map(|finding| format!("check: {finding}"))
        .collect();
    let seen = see(image, &store, &mut wrong);
    if wrong.is_empty() { Ok(Found::Store(Box::new(Raw { seen, store }))) } else { Err(wrong) }
}

fn see(image: &Image, store: &Store, wrong: &mut Wrong) -> Seen {
    let mut tags = BTreeMap::new();
    for (id, blob) in &store.blobs {
        let tag = blob.metadata.xattrs.get(TAG).and_then(tag_of);
        match tag {
            Some(tag) if tags.values().any(|other| *other == tag) => {
                wrong.push(format!("two blobs carry the tag {tag}: {id} is one"));
            }
            Some(tag) => drop(tags.insert(*id, tag)),
            None => wrong.push(format!("blob {id} carries no tag")),
        }
    }
    let mut reader = Reader::new(image, store);
    let clones = |id: BlobId| {
        let reads = |(_, blob): &(&BlobId, &spindle_format::Blob)| blob.parent == Some(Parent::Snapshot(id));
        store.blobs.iter().filter(reads).filter_map(|(clone, _)| tags.get(clone).copied()).collect()
    };
    let blob = |(id, tag): (&BlobId, &Tag)| {
        let blob = &store.blobs[id];
        let meta = &blob.metadata;
        let seen = SeenBlob {
            id: *id,
            clusters: meta.map.num_clusters(),
            thin: meta.flags.thin(),
            read_only: meta.flags.read_only(),
            parent: above(blob.parent.as_ref(), &tags),
            clones: clones(*id),
            allocated: meta.map.allocated(),
            xattrs: xattrs(meta.xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value))),
            units: reader.units(*id),
        };
        (*tag, seen)
    };
    let blobs = tags.iter().map(blob).collect();
    let super_blob = store.super_block.super_blob.and_then(|id| tags.get(&id).copied());
    let clusters = store.geometry.total_clusters() - store.geometry.metadata_clusters();
    Seen { blobs, super_blob, bs_type: store.super_block.bs_type, clusters: clusters.into() }
}

/// Parses the tag from the value of its xattr.
pub fn tag_of(value: &[u8]) -> Option<Tag> {
    Some(Tag::from_le_bytes(value.try_into().ok()?))
}

/// Returns the name of an xattr of the model.
pub fn xattr_name(name: u8) -> Vec<u8> {
    vec![b'x', name]
}

/// Returns the xattrs that the model tracks.
pub fn xattrs<'a>(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Xattrs {
    let known = all.filter(|(name, _)| name.len() == 2 && name[0] == b'x');
    known.map(|(name, value)| (name[1], value.to_vec())).collect()
}

/// Returns the value of a unit. Unexplained content gets [`ANYTHING`], which equals no other value.
pub fn value_of(unit: &[u8]) -> Value {
    content::read(unit).unwrap_or(ANYTHING)
}
