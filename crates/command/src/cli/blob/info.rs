//! `spindle blob info`: the store as a whole.

use super::describe::name_of;
use super::external::Externals;
use super::image::ImageFile;
use super::source::{Source, load};
use crate::cli::failure::{Failure, shown};
use crate::cli::output::{Output, tell};
use crate::cli::table::print_pairs;
use crate::cli::text::{before_nul, count, external_id, json_text, printable, size};
use spindle_format::super_block::BsType;
use spindle_format::{Blob, MaskKind, Parent, Region, Store};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Arguments of `info`.
#[derive(clap::Args)]
pub(crate) struct Info {
    #[command(flatten)]
    source: Source,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (image, externals) = self.source.open()?;
        print(&image, &externals, self.json)
    }
}

/// Prints the report on the store of this image, after something was `done` to it.
pub(super) fn print_report(done: &str, image: &Path, json: bool) -> Result<(), Failure> {
    let file = ImageFile::open(image)?;
    let store = load(&file)?;
    let report = Report::of(&store, &Externals::open(&[])?);
    let print = |out: &mut Output| report.write(&shown(image), json, out);
    tell(|| format!("{done} {}", shown(image)), print)
}

fn print(image: &ImageFile, externals: &Externals, json: bool) -> Result<(), Failure> {
    let store = load(image)?;
    let report = Report::of(&store, externals);
    let mut out = Output::stdout();
    report.write(&shown(image.path()), json, &mut out)?;
    out.finish()
}

/// The contents of `info`; `info --json` prints it directly. Sizes are in bytes, regions in metadata pages.
#[derive(serde::Serialize)]
struct Report {
    version: u32,
    bstype: String,
    lvolstore: Option<Lvolstore>,
    clean: bool,
    /// True if everything was found by reading all metadata, because the masks on disk are stale or absent.
    recovered: bool,
    super_blob_id: Option<u64>,
    super_blob_id_text: Option<String>,
    size: u64,
    max_growable_size: u64,
    cluster_size: u32,
    md_page_size: u32,
    io_unit_size: u32,
    total_clusters: u32,
    total_data_clusters: u32,
    free_clusters: u32,
    used_md_pages: u32,
    regions: Regions,
    blobs: usize,
    snapshots: usize,
    external_snapshots: Vec<External>,
    damaged: Vec<Damaged>,
    /// What is wrong with the masks of a store marked clean.
    mask_errors: Vec<String>,
    /// Blobs missing in the mask of blob ids.
    unlisted: Vec<u64>,
    /// Interrupted snapshot operations that cannot be resolved without guessing.
    half_done: Vec<HalfDone>,
    /// Why clusters and pages cannot be allocated or freed.
    allocation_blocked: Option<Blocked>,
    repairs: Vec<Repair>,
}

#[derive(serde::Serialize)]
struct Lvolstore {
    name: Option<String>,
    uuid: Option<String>,
}

#[derive(serde::Serialize)]
struct Regions {
    used_page_mask: Span,
    used_cluster_mask: Span,
    used_blobid_mask: Span,
    metadata: Span,
}

#[derive(serde::Serialize)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(serde::Serialize)]
struct External {
    id: String,
    clones: Vec<u64>,
    /// True if `--esnap` named a file for it.
    given: bool,
}

#[derive(serde::Serialize)]
struct Damaged {
    id: u64,
    id_text: String,
    name: Option<String>,
    errors: Vec<String>,
}

#[derive(serde::Serialize)]
struct HalfDone {
    snapshot: u64,
    snapshot_text: String,
    /// True if the snapshot was being deleted, false if it was being made.
    removal: bool,
    other: u64,
    other_text: String,
    why: &'static str,
}

#[derive(serde::Serialize)]
struct Blocked {
    blobs: Vec<u64>,
    blobs_text: Vec<String>,
    md_pages: Vec<u32>,
    clusters: Vec<u32>,
}

#[derive(serde::Serialize)]
struct Repair {
    what: String,
    writes: usize,
}

impl Report {
    fn of(store: &Store, externals: &Externals) -> Report {
        let (block, geometry) = (&store.super_block, &store.geometry);
        Report {
            version: block.version,
            bstype: block.bs_type.to_string(),
            lvolstore: lvolstore(store),
            clean: store.was_clean(),
            recovered: store.recovered,
            super_blob_id: block.super_blob.map(|id| id.raw()),
            super_blob_id_text: block.super_blob.map(|id| id.to_string()),
            size: geometry.size(),
            max_growable_size: geometry.max_growable_size(),
            cluster_size: geometry.cluster_size(),
            md_page_size: geometry.md_page_size(),
            io_unit_size: geometry.io_unit_size(),
            total_clusters: geometry.total_clusters(),
            total_data_clusters: geometry.data_clusters(),
            free_clusters: store.free_clusters(),
            used_md_pages: store.used_pages.count(),
            regions: Regions {
                used_page_mask: geometry.mask(MaskKind::UsedPages).into(),
                used_cluster_mask: geometry.mask(MaskKind::UsedClusters).into(),
                used_blobid_mask: geometry.mask(MaskKind::UsedBlobIds).into(),
                metadata: geometry.metadata().into(),
            },
            blobs: store.blobs.len(),
            snapshots: store.blobs.values().filter(|blob| blob.is_snapshot()).count(),
            external_snapshots: external_snapshots(store, externals),
            damaged: damaged(store),
            mask_errors: store.mask_errors.iter().map(|error| error.to_string()).collect(),
            unlisted: store.unlisted.iter().map(|id| id.raw()).collect(),
            half_done: store.half_done.iter().map(HalfDone::of).collect(),
            allocation_blocked: store.allocation_blocked.as_ref().map(Blocked::of),
            repairs: store.repairs.iter().map(Repair::of).collect(),
        }
    }

    fn write(&self, image: &str, json: bool, out: &mut Output) -> Result<(), Failure> {
        if json { out.json(self) } else { self.print(image, out) }
    }

    fn print(&self, image: &str, out: &mut impl Write) -> Result<(), Failure> {
        print_pairs(out, &self.pairs(image))?;
        section(
            out,
            "External snapshots",
            self.external_snapshots.iter().map(|external| {
                let given = if external.given { "given" } else { "not given: export needs --esnap" };
                format!("{}: {}, {given}", external.id, count(external.clones.len() as u64, "clone"))
            }),
        )?;
        section(out, "Repairs that a writing load would make", self.repairs.iter().map(|r| r.what.clone()))?;
        section(
            out,
            "Damaged blobs",
            self.damaged.iter().map(|blob| {
                let name = blob.name.as_ref().map(|name| format!(" ({})", printable(name.as_bytes())));
                format!("{:#x}{}: {}", blob.id, name.unwrap_or_default(), blob.errors.join("; "))
            }),
        )?;
        section(out, "Masks that cannot be used", self.mask_errors.iter().cloned())?;
        let unlisted = self.unlisted.iter().map(|id| format!("{id:#x}"));
        section(out, "Blobs that the mask of blob ids does not know", unlisted)?;
        section(
            out,
            "Interrupted, and cannot be resolved without guessing",
            self.half_done.iter().map(HalfDone::text),
        )?;
        if self.allocation_blocked.is_some() {
            writeln!(out, "\nNothing can be allocated or freed until the damage is repaired.")?;
        }
        Ok(())
    }

    fn pairs(&self, image: &str) -> Vec<(&'static str, String)> {
        let clusters = |number: u32| {
            let bytes = u64::from(number) * u64::from(self.cluster_size);
            format!("{} in {}", size(bytes), count(number, "cluster"))
        };
        let state = match (self.clean, self.recovered) {
            (true, false) => "clean",
            (true, true) => "clean, but its masks cannot be used: found by reading all metadata",
            (false, _) => "dirty: it was not unloaded; shown is what a load would recover",
        };
        let mut pairs = vec![
            ("Image", image.to_owned()),
            ("Type", if self.bstype.is_empty() { "-".into() } else { printable(self.bstype.as_bytes()) }),
        ];
        if let Some(store) = &self.lvolstore {
            let text =
                |value: &Option<String>| value.as_deref().map_or("-".into(), |v| printable(v.as_bytes()));
            pairs.push(("Lvolstore", format!("{}, uuid {}", text(&store.name), text(&store.uuid))));
        }
        pairs.extend([
            ("State", state.to_owned()),
            ("Version", self.version.to_string()),
            ("Size", format!("{} (can grow to {})", size(self.size), size(self.max_growable_size))),
            ("Cluster size", size(self.cluster_size.into())),
            ("I/O unit", size(self.io_unit_size.into())),
            ("Data", clusters(self.total_data_clusters)),
            ("Free", clusters(self.free_clusters)),
            (
                "Metadata",
                format!(
                    "{} of {} in use, {} each, from byte {}",
                    self.used_md_pages,
                    count(self.regions.metadata.len, "page"),
                    size(self.md_page_size.into()),
                    u64::from(self.regions.metadata.start) * u64::from(self.md_page_size)
                ),
            ),
            ("Super blob", self.super_blob_id.map_or("-".into(), |id| format!("{id:#x}"))),
            ("Blobs", format!("{}, {} of them snapshots", self.blobs, self.snapshots)),
        ]);
        pairs
    }
}

impl From<Region> for Span {
    fn from(region: Region) -> Span {
        Span { start: region.start, len: region.len }
    }
}

impl HalfDone {
    fn of(half: &spindle_format::store::HalfDone) -> HalfDone {
        HalfDone {
            snapshot: half.snapshot.raw(),
            snapshot_text: half.snapshot.to_string(),
            removal: half.removal,
            other: half.other.raw(),
            other_text: half.other.to_string(),
            why: half.why,
        }
    }

    fn text(&self) -> String {
        let HalfDone { snapshot_text: snapshot, other_text: other, why, .. } = self;
        let what = if self.removal { "deletion" } else { "creation" };
        format!("{what} of snapshot {snapshot} (its marker names blob {other}): {why}")
    }
}

impl Blocked {
    fn of(blocked: &spindle_format::store::AllocationBlocked) -> Blocked {
        Blocked {
            blobs: blocked.blobs.iter().map(|id| id.raw()).collect(),
            blobs_text: blocked.blobs.iter().map(|id| id.to_string()).collect(),
            md_pages: blocked.pages.iter().map(|page| page.0).collect(),
            clusters: blocked.clusters.iter().map(|cluster| cluster.0).collect(),
        }
    }
}

impl Repair {
    fn of(repair: &spindle_format::repair::Repair) -> Repair {
        Repair { what: repair.reason.to_string(), writes: repair.changes.len() }
    }
}

fn section(
    out: &mut impl Write,
    title: &str,
    lines: impl ExactSizeIterator<Item = String>,
) -> Result<(), Failure> {
    if lines.len() > 0 {
        writeln!(out, "\n{title}")?;
    }
    for line in lines {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// Name and UUID of an lvolstore, which are xattrs of its super blob.
fn lvolstore(store: &Store) -> Option<Lvolstore> {
    if store.super_block.bs_type != BsType::LVOLSTORE {
        return None;
    }
    let blob = store.super_block.super_blob.and_then(|id| store.blob(id));
    let uuid = |blob: &Blob| blob.metadata.xattrs.get(b"uuid").map(|value| json_text(before_nul(value)));
    Some(Lvolstore { name: blob.and_then(name_of).map(json_text), uuid: blob.and_then(uuid) })
}

fn external_snapshots(store: &Store, externals: &Externals) -> Vec<External> {
    let mut found: BTreeMap<&[u8], Vec<u64>> = BTreeMap::new();
    for blob in store.blobs.values() {
        if let Some(Parent::External(id)) = &blob.parent {
            found.entry(id).or_default().push(blob.id.raw());
        }
    }
    let external =
        |(id, clones)| External { id: external_id(id), clones, given: externals.get(id).is_some() };
    found.into_iter().map(external).collect()
}

fn damaged(store: &Store) -> Vec<Damaged> {
    let of = |blob: &spindle_format::DamagedBlob| Damaged {
        id: blob.id.raw(),
        id_text: blob.id.to_string(),
        name: blob.name.clone(),
        errors: blob.errors.iter().map(|error| error.to_string()).collect(),
    };
    store.damaged.iter().map(of).collect()
}
