//! Runs the real store on a damaged image: it refuses, or leaves all other contents readable as before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use spindle_blob::{Blob, BlobError, BlobId, BlobOptions, Blobstore, LoadOptions, Parent, StoreOptions};
use spindle_block::SimDisk;
use spindle_engine::sim::{Disk, DiskOptions, Image, Rng, World};
use spindle_format::check::Finding;
use spindle_format::repair::RepairReason;
use spindle_format::super_block::BsType;
use spindle_format::{PAGE_SIZE, PageIdx};
use spindle_mem::IoBuf;
use spindle_reactor::{Runtime, timeout};

use super::broken::Broken;
use super::contents::{Allowed, Contents, lost};
use super::named::{damaged, hidden, is_hit, is_named, is_traceless};
use super::source::Base;
use super::state::State;

/// An operation that takes longer than this in simulated time counts as hung.
const LONGEST: Duration = Duration::from_secs(20);

/// The most bytes written at once.
const MOST_BYTES: u64 = 64 << 10;

/// Clusters that a grown device gains.
const MORE: u64 = 9;

/// One operation. Its numbers choose among the blobs that exist when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what they are called; `which` chooses a blob")]
pub enum Op {
    Create {
        clusters: u64,
        thin: bool,
        table: bool,
    },
    Delete {
        which: u64,
    },
    Resize {
        which: u64,
        clusters: u64,
    },
    Write {
        which: u64,
        at: u64,
        units: u64,
    },
    Unmap {
        which: u64,
        at: u64,
        units: u64,
    },
    Snapshot {
        which: u64,
    },
    Clone {
        which: u64,
    },
    Inflate {
        which: u64,
    },
    Decouple {
        which: u64,
    },
    SetParent {
        which: u64,
        parent: u64,
    },
    SetXattr {
        which: u64,
        long: bool,
    },
    SetReadOnly {
        which: u64,
    },
    SetSuper {
        which: u64,
    },
    WriteZeroes {
        which: u64,
        at: u64,
        units: u64,
    },
    /// Replaces the whole content, and commits or abandons the replacement.
    Replace {
        which: u64,
        at: u64,
        units: u64,
        commits: bool,
    },
    ShallowCopy {
        which: u64,
    },
    SetType {
        lvolstore: bool,
    },
    /// Extends the store to the size of its device.
    Grow,
    /// Unloads the store and loads it again.
    Reload,
}

/// Chooses the operations for one image.
pub fn plan(rng: &mut Rng) -> Vec<Op> {
    (0..1 + rng.below(4)).map(|_| choose(rng)).collect()
}

fn choose(rng: &mut Rng) -> Op {
    let which = rng.next_u64();
    match rng.below(24) {
        0..=3 => {
            let (clusters, thin, table) = (rng.below(6) as u64, rng.below(2) == 0, rng.below(3) > 0);
            Op::Create { clusters, thin, table }
        }
        4 | 5 => Op::Delete { which },
        6 | 7 => Op::Resize { which, clusters: rng.below(12) as u64 },
        8 | 9 => Op::Write { which, at: rng.next_u64(), units: 1 + rng.below(20) as u64 },
        10 => Op::Unmap { which, at: rng.next_u64(), units: 1 + rng.below(40) as u64 },
        11 => Op::Snapshot { which },
        12 => Op::Clone { which },
        13 => match rng.below(2) {
            0 => Op::Inflate { which },
            _ => Op::Decouple { which },
        },
        14 => Op::SetParent { which, parent: rng.next_u64() },
        15 => Op::SetXattr { which, long: rng.below(3) == 0 },
        16 => match rng.below(2) {
            0 => Op::SetReadOnly { which },
            _ => Op::SetSuper { which },
        },
        17 => Op::WriteZeroes { which, at: rng.next_u64(), units: 1 + rng.below(40) as u64 },
        18 | 19 => {
            let (at, units) = (rng.next_u64(), 1 + rng.below(40) as u64);
            Op::Replace { which, at, units, commits: rng.below(4) > 0 }
        }
        20 => Op::ShallowCopy { which },
        21 => Op::SetType { lvolstore: rng.below(2) == 0 },
        22 => Op::Grow,
        _ => Op::Reload,
    }
}

/// The changes that the operations may have made.
#[derive(Clone, Debug, Default)]
struct Changed {
    blobs: BTreeMap<BlobId, Allowed>,
    /// New blobs, each with the blob whose contents it must have.
    made: BTreeMap<BlobId, Option<BlobId>>,
    /// Deleted blobs: their ids may be used again.
    deleted: BTreeSet<BlobId>,
    /// True if another super blob was set: nothing names a missing one any more.
    super_set: bool,
}

impl Changed {
    fn of(&mut self, id: BlobId) -> &mut Allowed {
        self.blobs.entry(id).or_default()
    }
}

/// Verifies that a store that cannot be loaded is refused, and nothing is written.
///
/// # Errors
/// It was loaded, or a byte was written.
pub fn refused(base: &Base, image: &Image, seed: u64) -> Result<(), Broken> {
    let ran = run(base, image, &[], seed)?;
    let rule = "what cannot be checked is not loaded";
    if ran.loaded {
        return Err(Broken::new(rule, "the store was loaded"));
    }
    match ran.image.first_difference(image) {
        Some(at) => Err(Broken::new(rule, format!("byte {at} was written"))),
        None => Ok(()),
    }
}

/// Loads the store, performs the plan, and judges the result.
///
/// # Errors
/// A rule was broken.
pub fn judge(base: &Base, image: &Image, before: &State, plan: &[Op], seed: u64) -> Result<(), Broken> {
    reads_the_same(base, image, before, seed)?;
    // The size of the device tells what a torn super block held: it is restored before the device becomes larger.
    let torn =
        before.examined.store.repairs.iter().any(|repair| repair.reason == RepairReason::TornSuperBlock);
    let plan: Vec<Op> = plan.iter().copied().filter(|op| !(torn && *op == Op::Grow)).collect();
    let ran = run(base, image, &plan, seed)?;
    let after = State::of(base, &ran.image)?;
    let loaded = if ran.loaded { "" } else { "the load was refused, and all the same " };
    let done = |what: String| format!("{loaded}{what}, after {}", ran.done.join(", "));
    let none = Allowed::default();
    for (id, blob) in &before.readable {
        let allowed = ran.changed.blobs.get(id).unwrap_or(&none);
        if let Some(what) = lost(*id, blob, after.readable.get(id), allowed) {
            return Err(Broken::new("a command makes nothing unreadable", done(what)));
        }
    }
    if let Some(what) = ran.wrong.first() {
        return Err(Broken::new("a copy holds what its blob holds", done(what.clone())));
    }
    let left = &after.examined.findings;
    for id in damaged(before).difference(&hidden(before)).copied() {
        let changed = &ran.changed;
        let given_up = changed.blobs.get(&id).is_some_and(|allowed| allowed.anything)
            || changed.made.values().any(|like| *like == Some(id));
        let whole = after.readable.get(&id).is_some_and(Contents::is_whole);
        let traceless = is_traceless(base, &ran.image, &after, id);
        if !whole && !given_up && !traceless && !is_named(left, id) {
            let what = done(format!("blob {id}"));
            return Err(Broken::new("what is damaged stays named after a command", what));
        }
    }
    for (id, like) in &ran.changed.made {
        if let Some(what) = wrong_with_new(*id, *like, before, &after, &ran.changed) {
            return Err(Broken::new("a new blob has an id and contents of its own", done(what)));
        }
    }
    let known = damaged(before);
    // A copy of a damaged blob is damaged too, and pages that the masks hid may show up in a store in use.
    let made = &ran.changed.made;
    let is_new = |id: &BlobId| !known.contains(id) && !made.contains_key(id) && !is_hit(base, image, *id);
    let missing: BTreeSet<BlobId> = before.examined.findings.iter().filter_map(missing_parent).collect();
    // The clone of a deleted orphan gets the orphan's parent, and so becomes an orphan too; and so does a blob that is
    // put under an orphan.
    let handed_on: BTreeSet<BlobId> = left
        .iter()
        .filter_map(|finding| match finding {
            Finding::OrphanedClone { blob, parent } => {
                (known.contains(parent) || missing.contains(parent)).then_some(*blob)
            }
            _ => None,
        })
        .collect();
    let mut found = damaged(&after).into_iter().filter(|id| is_new(id) && !handed_on.contains(id));
    let new = found.find(|id| !is_named(&before.examined.findings, *id));
    match new {
        Some(id) => {
            let findings: Vec<String> = left.iter().map(ToString::to_string).collect();
            let what = done(format!("blob {id}: {}", findings.join("; ")));
            Err(Broken::new("a command damages nothing", what))
        }
        None => Ok(()),
    }
}

fn wrong_with_new(
    id: BlobId,
    like: Option<BlobId>,
    before: &State,
    after: &State,
    changed: &Changed,
) -> Option<String> {
    // Pages of others that a damaged page names are not reserved.
    let of_others = |finding: &&Finding| matches!(finding, Finding::DamagedBlob { blob, .. } if *blob != id);
    let replaced =
        |finding: &&Finding| changed.super_set && matches!(finding, Finding::MissingSuperBlob { .. });
    let findings = before.examined.findings.iter();
    let findings = findings.filter(|finding| !of_others(finding) && !replaced(finding));
    let findings: Vec<Finding> = findings.cloned().collect();
    let known = is_named(&findings, id) && !hidden(before).contains(&id);
    if (before.readable.contains_key(&id) || known) && !changed.deleted.contains(&id) {
        return Some(format!("blob {id} was there"));
    }
    let (like, old) = (like?, before.readable.get(&like?)?);
    // An operation has changed the other blob or this one meanwhile.
    if changed.blobs.contains_key(&like) || changed.blobs.contains_key(&id) {
        return None;
    }
    let allowed = Allowed { xattrs: true, ..Allowed::default() };
    lost(like, old, after.readable.get(&id), &allowed)
        .map(|what| format!("blob {id} is not like another: {what}"))
}

/// The result of a run.
struct Ran {
    image: Image,
    loaded: bool,
    done: Vec<String>,
    changed: Changed,
    wrong: Vec<String>,
}

/// The parent that a finding says is missing.
fn missing_parent(finding: &Finding) -> Option<BlobId> {
    match finding {
        Finding::OrphanedClone { parent, .. } => Some(*parent),
        _ => None,
    }
}

/// Returns the image on a larger device.
fn grown(base: &Base, image: &Image) -> Image {
    let cluster = u64::from(base.store.geometry.cluster_size());
    let mut larger = Image::zeroed(image.size().next_multiple_of(cluster) + MORE * cluster);
    let mut page = [0; PAGE_SIZE];
    for offset in (0..image.size()).step_by(PAGE_SIZE) {
        let page = &mut page[..(image.size() - offset).min(PAGE_SIZE as u64) as usize];
        image.read(offset, page);
        if page.iter().any(|byte| *byte != 0) {
            larger.write(offset, page);
        }
    }
    larger
}

fn device(base: &Base, image: &Image) -> (Disk, Arc<SimDisk>) {
    let disk = Disk::from_image(image.clone(), base.disk(image));
    let device = SimDisk::immediate("disk", disk.clone()).expect("the sizes of a base's disk fit each other");
    (disk, device)
}

/// Runs `work` in its own simulated world.
fn in_world<T: Send + 'static>(
    seed: u64,
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> Result<T, Broken> {
    let ended = |error: String| Broken::new("a store that is worked on goes on", error);
    let runtime = Runtime::builder().reactors(1).world(World::new(seed)).build();
    let runtime = runtime.map_err(|error| ended(error.to_string()))?;
    let ran = runtime.run(async move || timeout(LONGEST, work()).await);
    let ran = ran.map_err(|error| ended(error.to_string()))?;
    ran.map_err(|_| ended("an operation did not end".to_owned()))
}

fn run(base: &Base, image: &Image, plan: &[Op], seed: u64) -> Result<Ran, Broken> {
    let grows = plan.contains(&Op::Grow);
    let (disk, device) = match grows {
        true => device(base, &grown(base, image)),
        false => device(base, image),
    };
    let (plan, external) = (plan.to_vec(), base.external.clone());
    let mut rng = Rng::new(seed ^ 0x7772);
    let (killed, unloads) = (rng.below(4) == 0, rng.below(8) > 0);
    let grow = grows && rng.below(2) == 0;
    let (loaded, work) = in_world(seed, async move || {
        let store = StoreOptions { external, ..StoreOptions::default() };
        let options = LoadOptions { store, grow, ..LoadOptions::default() };
        let mut work = Work { device, options, told: Told::default() };
        let loaded = work.all(&plan, !killed && unloads).await;
        (loaded, work.told)
    })?;
    let Told { changed, done, wrong } = work;
    let image = disk.snapshot().visible().clone();
    Ok(Ran { image, loaded, done, changed, wrong })
}

struct Work {
    device: Arc<SimDisk>,
    options: LoadOptions,
    told: Told,
}

/// Changes and errors that the operations report.
#[derive(Default)]
struct Told {
    changed: Changed,
    done: Vec<String>,
    wrong: Vec<String>,
}

impl Work {
    /// Loads the store, performs the plan, and unloads the store if `unloads`. Returns true if it could be
    /// loaded.
    async fn all(&mut self, plan: &[Op], unloads: bool) -> bool {
        let Some(mut store) = self.load().await else { return false };
        for op in plan {
            let result = match op {
                Op::Reload => {
                    let left = store.unload().await;
                    self.say("unload", &left);
                    if left.is_err() {
                        return true;
                    }
                    let Some(loaded) = self.load().await else { return true };
                    store = loaded;
                    continue;
                }
                Op::Grow => store.grow().await,
                Op::SetType { lvolstore: true } => store.set_bs_type(BsType::LVOLSTORE).await,
                Op::SetType { lvolstore: false } => store.set_bs_type(BsType::NONE).await,
                op => self.one(&store, *op).await,
            };
            self.say(&format!("{op:?}"), &result);
        }
        if unloads {
            let left = store.unload().await;
            self.say("unload", &left);
        }
        true
    }

    async fn load(&mut self) -> Option<Blobstore> {
        let loaded = Blobstore::load(self.device.clone(), self.options.clone()).await;
        self.say("load", &loaded.as_ref().map(|_| ()).map_err(Clone::clone));
        loaded.ok()
    }

    fn say(&mut self, what: &str, result: &Result<(), BlobError>) {
        self.told.done.push(match result {
            Ok(()) => what.to_owned(),
            Err(error) => format!("{what} ({error})"),
        });
    }

    async fn one(&mut self, store: &Blobstore, op: Op) -> Result<(), BlobError> {
        let ids = ids(store).await?;
        let id = |which: u64| ids[which as usize % ids.len()];
        match op {
            Op::Create { clusters, thin, table } => {
                let options = BlobOptions { clusters, thin, extent_table: table, ..BlobOptions::default() };
                let made = store.create_blob(options).await?;
                self.changed().made.insert(made, None);
            }
            Op::Delete { which } => {
                let id = id(which);
                store.delete_blob(id).await?;
                self.changed().of(id).anything = true;
                self.changed().deleted.insert(id);
            }
            Op::Snapshot { which } => {
                let made = store.snapshot(id(which), Vec::new()).await?;
                self.changed().made.insert(made, Some(id(which)));
            }
            Op::Clone { which } => {
                let made = store.clone_blob(id(which), Vec::new()).await?;
                self.changed().made.insert(made, Some(id(which)));
            }
            Op::Inflate { which } => store.inflate(id(which)).await?,
            Op::Decouple { which } => store.decouple_parent(id(which)).await?,
            Op::SetParent { which, parent } => {
                let (id, parent) = (id(which), id(parent));
                let readers = readers(store, id).await?;
                store.set_parent(id, Parent::Snapshot(parent)).await?;
                readers.into_iter().for_each(|reader| self.changed().of(reader).anything = true);
            }
            Op::SetSuper { which } => {
                store.set_super_blob(Some(id(which))).await?;
                self.changed().super_set = true;
            }
            Op::ShallowCopy { which } => self.copy(store, id(which)).await?,
            Op::Reload | Op::Grow | Op::SetType { .. } => {}
            Op::Resize { which, .. }
            | Op::Write { which, .. }
            | Op::WriteZeroes { which, .. }
            | Op::Unmap { which, .. }
            | Op::Replace { which, .. }
            | Op::SetXattr { which, .. }
            | Op::SetReadOnly { which } => {
                let blob = store.open_blob(id(which)).await?;
                let result = self.on_open(store, &blob, op).await;
                blob.close().await?;
                result?;
            }
        }
        Ok(())
    }

    fn changed(&mut self) -> &mut Changed {
        &mut self.told.changed
    }

    /// Copies a blob's own clusters to another device, and compares the copy.
    async fn copy(&mut self, store: &Blobstore, id: BlobId) -> Result<(), BlobError> {
        let blob = store.open_blob(id).await?;
        let result = self.copy_open(store, &blob).await;
        blob.close().await?;
        result
    }

    async fn copy_open(&mut self, store: &Blobstore, blob: &Blob) -> Result<(), BlobError> {
        let cluster = u64::from(store.cluster_size());
        let disk = Disk::new(DiskOptions::new(blob.size().max(cluster)));
        let target = SimDisk::immediate("copy", disk.clone()).expect("the sizes of this disk fit each other");
        store.shallow_copy(blob.id(), target, |_, _| {}).await?;
        let copy = disk.snapshot().durable().clone();
        let mut copied = vec![0; cluster as usize];
        for index in
            blob.allocated_ranges().await?.into_iter().flat_map(|(first, count)| first..first + count)
        {
            let (read, buffers) = blob.read(index * cluster, IoBuf::zeroed(cluster as usize)).await;
            read?;
            copy.read(index * cluster, &mut copied);
            if buffers.to_vec() != copied {
                self.told.wrong.push(format!("cluster {index} of the copy of blob {}", blob.id()));
            }
        }
        Ok(())
    }

    async fn on_open(&mut self, store: &Blobstore, blob: &Blob, op: Op) -> Result<(), BlobError> {
        let (id, unit) = (blob.id(), u64::from(store.io_unit_size()));
        match op {
            Op::Resize { clusters, .. } => {
                self.changed().of(id).size = true;
                // Clusters that were cut off come back as zeroes.
                let cut = clusters.min(blob.clusters());
                blob.resize(clusters).await?;
                self.changed().of(id).cells.push(cut..u64::MAX);
            }
            Op::Write { at, units, .. } | Op::WriteZeroes { at, units, .. } | Op::Unmap { at, units, .. } => {
                let cluster = u64::from(store.cluster_size());
                let Some((offset, len)) = range(blob, unit, at, units) else { return Ok(()) };
                let touched = offset / cluster..(offset + len).div_ceil(cluster);
                self.changed().of(id).cells.push(touched);
                match op {
                    Op::Unmap { .. } => blob.unmap(offset, len).await?,
                    Op::WriteZeroes { .. } => blob.write_zeroes(offset, len).await?,
                    _ => blob.write(offset, written(len)).await.0?,
                }
            }
            Op::Replace { at, units, commits, .. } => {
                let Some((offset, len)) = range(blob, unit, at, units) else { return Ok(()) };
                let new = blob.replace().await?;
                new.write(offset, written(len)).await?;
                match commits {
                    true => {
                        new.commit().await?;
                        self.changed().of(id).cells.push(0..u64::MAX);
                    }
                    false => new.abandon().await?,
                }
            }
            Op::SetXattr { long, .. } => {
                self.changed().of(id).xattrs = true;
                let value = vec![b'v'; if long { 2000 } else { 9 }];
                blob.set_xattr(b"damage".to_vec(), value).await?;
                blob.sync().await?;
            }
            Op::SetReadOnly { .. } => {
                blob.set_read_only().await?;
                blob.sync().await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns offset and length of a range of a blob; `None` if its size is 0.
fn range(blob: &Blob, unit: u64, at: u64, units: u64) -> Option<(u64, u64)> {
    let all = blob.size() / unit;
    let first = at.checked_rem(all)?;
    let units = units.min(all - first).min((MOST_BYTES / unit).max(1));
    Some((first * unit, units * unit))
}

/// The bytes to write.
fn written(len: u64) -> IoBuf {
    let mut bytes = IoBuf::zeroed(len as usize);
    bytes.fill(0xd7);
    bytes
}

/// Returns every blob to operate on: the existing ones, the damaged ones, and one id that may be neither.
async fn ids(store: &Blobstore) -> Result<Vec<BlobId>, BlobError> {
    let mut ids: BTreeSet<BlobId> = store.blobs().await?.into_iter().collect();
    ids.extend(store.info().await?.damaged);
    ids.insert(BlobId::from_page(PageIdx(0)));
    Ok(ids.into_iter().collect())
}

/// Returns a blob and all blobs that read through it.
async fn readers(store: &Blobstore, id: BlobId) -> Result<Vec<BlobId>, BlobError> {
    let mut all = vec![id];
    let mut next = 0;
    while let Some(id) = all.get(next).copied() {
        if let Ok(info) = store.blob_info(id).await {
            let new: Vec<BlobId> = info.clones.into_iter().filter(|clone| !all.contains(clone)).collect();
            all.extend(new);
        }
        next += 1;
    }
    Ok(all)
}

/// Verifies that a read-only load writes nothing, and shows the blobs that the format's loader found.
fn reads_the_same(base: &Base, image: &Image, before: &State, seed: u64) -> Result<(), Broken> {
    let (disk, device) = device(base, image);
    let external = base.external.clone();
    let ids: Vec<BlobId> = before.readable.keys().copied().collect();
    let sizes: BTreeMap<BlobId, u64> =
        before.readable.iter().map(|(id, blob)| (*id, blob.clusters)).collect();
    let wrong = in_world(seed, async move || {
        let store = StoreOptions { external, ..StoreOptions::default() };
        let options = LoadOptions { read_only: true, store, ..LoadOptions::default() };
        let store = match Blobstore::load(device, options).await {
            Ok(store) => store,
            Err(error) => return Some(error.to_string()),
        };
        let listed = match store.blobs().await {
            Ok(listed) => listed,
            Err(error) => return Some(error.to_string()),
        };
        if listed != ids {
            return Some(format!("it lists {listed:?}, not {ids:?}"));
        }
        for id in listed {
            match store.blob_info(id).await {
                Ok(info) if info.clusters == sizes[&id] => {}
                Ok(info) => {
                    return Some(format!("blob {id} has {} clusters, not {}", info.clusters, sizes[&id]));
                }
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    })?;
    if let Some(wrong) = wrong {
        return Err(Broken::new("what can be checked can be read", wrong));
    }
    match disk.snapshot().visible().first_difference(image) {
        Some(at) => Err(Broken::new("a load for reading writes nothing", format!("byte {at}"))),
        None => Ok(()),
    }
}
