//! Blobs as the commands show them: the fields on which scripts rely, and the words for display.

use crate::cli::failure::Failure;
use crate::cli::output::{Output, tell};
use crate::cli::text::{before_nul, external_id, hex, json_text, named, printable};
use serde::ser::{Serialize, SerializeMap, Serializer};
use spindle_blob::BlobInfo;
use spindle_format::{Blob, BlobId, Parent, Store, Xattr};
use std::io::Write;

/// The bytes of a blob's `name` xattr before its first NUL.
pub(super) fn name_of(blob: &Blob) -> Option<&[u8]> {
    name_among(blob.metadata.xattrs.iter().as_slice())
}

/// The bytes of the `name` xattr before its first NUL.
pub(super) fn name_among(xattrs: &[Xattr]) -> Option<&[u8]> {
    xattrs.iter().find(|xattr| xattr.name == b"name").map(|xattr| before_nul(&xattr.value))
}

/// A blob's parent, in JSON: an id, or `{"external": ".."}`.
#[derive(serde::Serialize)]
#[serde(untagged)]
pub(super) enum ParentJson {
    Blob(u64),
    External { external: String },
}

impl ParentJson {
    fn of(parent: &Parent) -> ParentJson {
        match parent {
            Parent::Snapshot(id) => ParentJson::Blob(id.raw()),
            Parent::External(id) => ParentJson::External { external: external_id(id) },
        }
    }
}

/// The id of a parent in the store, as text.
fn parent_id(parent: &Parent) -> Option<String> {
    match parent {
        Parent::Snapshot(id) => Some(id.to_string()),
        Parent::External(_) => None,
    }
}

/// Xattrs in JSON: values in hexadecimal, in their order on disk.
pub(super) struct XattrsJson<'a>(pub(super) &'a [Xattr]);

impl Serialize for XattrsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for xattr in self.0.iter() {
            map.serialize_entry(&json_text(&xattr.name), &hex(&xattr.value))?;
        }
        map.end()
    }
}

/// One element of `spindle blob ls --json`. Scripts rely on these names.
#[derive(serde::Serialize)]
pub(super) struct BlobJson<'a> {
    id: u64,
    /// As it is printed and typed: hexadecimal with 0x.
    id_text: String,
    /// `null` if the blob has no `name` xattr.
    name: Option<String>,
    /// In bytes.
    size: u64,
    clusters: u64,
    allocated_clusters: u64,
    thin: bool,
    read_only: bool,
    parent: Option<ParentJson>,
    /// The id of the parent as text; `null` without one, and for an external snapshot.
    parent_text: Option<String>,
    clones: Vec<u64>,
    clones_text: Vec<String>,
    xattrs: XattrsJson<'a>,
}

impl<'a> BlobJson<'a> {
    pub(super) fn of(store: &Store, blob: &'a Blob) -> BlobJson<'a> {
        BlobJson {
            id: blob.id.raw(),
            id_text: blob.id.to_string(),
            name: name_of(blob).map(json_text),
            size: size_of(store, blob),
            clusters: blob.metadata.map.num_clusters(),
            allocated_clusters: blob.metadata.map.allocated(),
            thin: blob.metadata.flags.thin(),
            read_only: blob.metadata.flags.read_only(),
            parent: blob.parent.as_ref().map(ParentJson::of),
            parent_text: blob.parent.as_ref().and_then(parent_id),
            clones: blob.clones.iter().map(|id| id.raw()).collect(),
            clones_text: blob.clones.iter().map(BlobId::to_string).collect(),
            xattrs: XattrsJson(blob.metadata.xattrs.iter().as_slice()),
        }
    }
}

/// A blob of a loaded store, as the commands that change one show it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) info: BlobInfo,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) cluster_size: u32,
}

impl Live {
    pub(super) fn id(&self) -> BlobId {
        self.info.id
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.info.clusters.saturating_mul(u64::from(self.cluster_size))
    }

    /// Its name, if it has one.
    pub(super) fn name(&self) -> Option<&[u8]> {
        name_among(&self.xattrs)
    }

    /// Its parent, for display.
    pub(super) fn parent(&self) -> String {
        match &self.info.parent {
            None => "no parent".into(),
            Some(Parent::Snapshot(id)) => format!("the parent {id}"),
            Some(Parent::External(id)) => format!("the external snapshot {} as parent", external_id(id)),
        }
    }

    /// Prints it: a sentence, or everything in JSON. `done` is the past participle, as "made".
    pub(super) fn print(
        &self,
        done: &str,
        json: bool,
        sentence: impl FnOnce(&Live) -> String,
    ) -> Result<(), Failure> {
        let print = |out: &mut Output| match json {
            true => out.json(&self.json()),
            false => Ok(writeln!(out, "{}", sentence(self))?),
        };
        tell(|| format!("{done} blob {}", self.label()), print)
    }

    /// Its id, and its name if it has one.
    pub(super) fn label(&self) -> String {
        match self.name() {
            Some(name) => format!("{} ({})", self.info.id, printable(name)),
            None => self.info.id.to_string(),
        }
    }

    /// As an element of `spindle blob ls --json`.
    pub(super) fn json(&self) -> BlobJson<'_> {
        BlobJson {
            id: self.info.id.raw(),
            id_text: self.info.id.to_string(),
            name: self.name().map(json_text),
            size: self.size(),
            clusters: self.info.clusters,
            allocated_clusters: self.info.allocated,
            thin: self.info.thin,
            read_only: self.info.read_only,
            parent: self.info.parent.as_ref().map(ParentJson::of),
            parent_text: self.info.parent.as_ref().and_then(parent_id),
            clones: self.info.clones.iter().map(|id| id.raw()).collect(),
            clones_text: self.info.clones.iter().map(BlobId::to_string).collect(),
            xattrs: XattrsJson(&self.xattrs),
        }
    }
}

/// Bytes of a blob. A size beyond 64 bits is shown as the largest number.
pub(super) fn size_of(store: &Store, blob: &Blob) -> u64 {
    blob.metadata.map.num_clusters().saturating_mul(u64::from(store.geometry.cluster_size()))
}

/// A blob's parent, for display: name and id, or the external snapshot.
pub(super) fn parent_text(store: &Store, blob: &Blob) -> String {
    match &blob.parent {
        None => "-".into(),
        Some(Parent::External(id)) => format!("external {}", external_id(id)),
        Some(Parent::Snapshot(id)) => match store.blob(*id) {
            Some(parent) => parent.id.to_string(),
            None if store.damaged.iter().any(|blob| blob.id == *id) => format!("{id} (damaged)"),
            None => format!("{id} (missing)"),
        },
    }
}

/// A blob's name for display, or a dash.
pub(super) fn name_text(blob: &Blob) -> String {
    name_of(blob).map_or_else(|| "-".into(), named)
}

/// A blob's special properties, for display.
pub(super) fn flags_text(store: &Store, blob: &Blob) -> String {
    let flags = &blob.metadata.flags;
    let importing = store.importing(blob.id).is_some();
    let marks = [
        (flags.thin(), "thin"),
        (flags.read_only(), "read-only"),
        (blob.is_snapshot(), "snapshot"),
        (importing, "importing"),
    ];
    let marks: Vec<&str> = marks.into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark).collect();
    if marks.is_empty() { "-".into() } else { marks.join(",") }
}
