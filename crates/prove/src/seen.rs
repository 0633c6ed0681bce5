//! What a store shows: its blobs and what each of their units holds. Made from the raw image by the format's
//! own loader, and from a loaded store through its handles; both are held against the model, and each other.

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

/// A store as seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Blobs by tag.
    pub blobs: BTreeMap<Tag, SeenBlob>,
    /// The super blob.
    pub super_blob: Option<Tag>,
    /// Whose store it is.
    pub bs_type: BsType,
    /// Clusters for data.
    pub clusters: u64,
}

/// A blob as seen.
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
    /// The clusters that it has itself.
    pub allocated: u64,
    /// Its xattrs but for the tag.
    pub xattrs: Xattrs,
    /// Its units that are not zero.
    pub units: BTreeMap<u64, Value>,
}

/// What is wrong with a store, in words.
pub type Wrong = Vec<String>;

/// A store from its raw image, with what the loader had to put right.
pub struct Raw {
    /// What it shows.
    pub seen: Seen,
    /// The store as the format's loader describes it.
    pub store: Store,
}

/// What an image holds.
pub enum Found {
    /// No store that can be loaded, and why not.
    Nothing(String),
    /// A store.
    Store(Box<Raw>),
}

impl Found {
    /// What the store shows, or why there is none.
    pub fn seen(&self) -> Result<&Seen, &str> {
        match self {
            Found::Nothing(why) => Err(why),
            Found::Store(raw) => Ok(&raw.seen),
        }
    }
}

/// What a blob reads where it has nothing itself, if that is known.
pub fn above(parent: Option<&Parent>, tags: &BTreeMap<BlobId, Tag>) -> Option<Above> {
    match parent? {
        Parent::Snapshot(id) => tags.get(id).copied().map(Above::Blob),
        Parent::External(id) => external::by_id(id).map(Above::External),
    }
}

/// Loads an image with the format's loader and checks its structure.
///
/// # Errors
/// Something is wrong in it that a load does not put right.
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

/// The tag in the value of its xattr.
pub fn tag_of(value: &[u8]) -> Option<Tag> {
    Some(Tag::from_le_bytes(value.try_into().ok()?))
}

/// The name of an xattr of the model.
pub fn xattr_name(name: u8) -> Vec<u8> {
    vec![b'x', name]
}

/// The xattrs that the model knows.
pub fn xattrs<'a>(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Xattrs {
    let known = all.filter(|(name, _)| name.len() == 2 && name[0] == b'x');
    known.map(|(name, value)| (name[1], value.to_vec())).collect()
}

/// The value of a unit; what nothing accounts for is told from everything else.
pub fn value_of(unit: &[u8]) -> Value {
    content::read(unit).unwrap_or(ANYTHING)
}
