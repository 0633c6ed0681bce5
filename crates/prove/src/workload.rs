//! The workload: chooses the operations, and runs the tasks that perform them.
//!
//! One to three tasks change metadata, one operation after the other, without coordination. Other tasks do
//! I/O at the same time, on two reactors, to any open blob, including blobs that are being closed, truncated
//! and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use spindle_blob::BsType;
use spindle_reactor::{random, sleep, yield_now};

use crate::context::Context;
use crate::data;
use crate::directed;
use crate::external;
use crate::kept::Blob;
use crate::metadata;
use crate::model::Model;
use crate::op::{Above, Op, Tag, Xattrs};
use crate::scenario::{Scenario, Shares};

/// The most blobs in a store; more would only take longer to read.
const MOST_BLOBS: usize = 9;

/// Clusters of an extent page: larger blobs have two pages.
const LEAF: u64 = 512;

/// A number below `n`, from the seed.
pub fn below(n: u64) -> u64 {
    random() % n.max(1)
}

fn one_of(tags: &[Tag]) -> Option<Tag> {
    tags.get(below(tags.len() as u64) as usize).copied()
}

/// Changes metadata `steps` times.
pub async fn change_metadata(run: Arc<Context>, steps: u32) {
    if run.profile.scenario == Scenario::ComeAndGo {
        return directed::come_and_go(run, steps).await;
    }
    let shares = run.profile.scenario.shares();
    for _ in 0..steps {
        if run.is_stopped() {
            return;
        }
        let chosen = run.model(|model| choose_change(model, &shares));
        match chosen.map(|op| or_open(&run, op)) {
            Some(_) if run.store().is_none() => wait_for_store(&run).await,
            Some(op) if run.model(|model| may_meet_a_stranger(model, &op)) => rest().await,
            Some(Op::Destroy) => remake(&run).await,
            Some(op) => metadata::perform(&run, op).await,
            None => rest().await,
        }
    }
}

/// Turns a reopen into an open if the blob is not open, and sometimes if other tasks may be using it.
fn or_open(run: &Context, op: Op) -> Op {
    match op {
        Op::Reopen { tag } if run.handle(tag).is_none() || run.profile.changers > 1 && below(3) == 0 => {
            Op::Open { tag }
        }
        op => op,
    }
}

/// Waits until another task that unloaded or destroyed the store has loaded or made one.
async fn wait_for_store(run: &Context) {
    for _ in 0..500 {
        if run.store().is_some() || run.is_stopped() {
            return;
        }
        sleep(Duration::from_micros(20)).await;
    }
}

/// Destroys the store and makes another.
async fn remake(run: &Arc<Context>) {
    metadata::perform(run, Op::Destroy).await;
    if !run.is_stopped()
        && run.model(|model| model.worlds.iter().all(|world| world.absent))
        && let Err(wrong) = metadata::make(run).await
    {
        run.wrong(wrong);
    }
}

/// Lets other tasks run.
pub async fn rest() {
    match below(3) {
        0 => sleep(Duration::from_micros(below(200))).await,
        _ => {
            for _ in 0..below(6) {
                yield_now().await;
            }
        }
    }
}

/// Does I/O `steps` times.
pub async fn do_io(run: Arc<Context>, steps: u32) {
    if run.profile.scenario == Scenario::ComeAndGo {
        return;
    }
    let shares = run.profile.scenario.shares();
    for _ in 0..steps {
        if run.is_stopped() {
            return;
        }
        let tags = run.open_tags();
        let chosen = one_of(&tags).and_then(|tag| {
            let op =
                run.model(|model| choose_io(model, tag, &shares, run.profile.scenario.busy_clusters()))?;
            Some((run.handle(tag)?, op))
        });
        match chosen {
            Some((blob, op)) => data::perform(&run, &blob, op).await,
            None => rest().await,
        }
        if below(4) == 0 {
            rest().await;
        }
    }
}

/// Picks an item by its share.
fn pick<T: Copy>(shares: &[(u32, T)]) -> Option<T> {
    let total: u32 = shares.iter().map(|(share, _)| share).sum();
    let mut at = below(u64::from(total)) as u32;
    shares
        .iter()
        .find(|(share, _)| at.checked_sub(*share).map(|rest| at = rest).is_none())
        .map(|(_, what)| *what)
}

#[derive(Clone, Copy)]
enum Change {
    Create,
    Delete,
    Resize,
    Replace,
    Xattr,
    Sync,
    Reopen,
    ReadOnly,
    Snapshot,
    Clone,
    CloneExternal,
    ShallowCopy,
    Inflate,
    Decouple,
    SetParent,
    SetSuper,
    SetType,
    Reload,
    Remake,
    Grow,
    Pause,
}

fn choose_change(model: &Model, shares: &Shares) -> Option<Op> {
    let store = model.now();
    let full = store.blobs.len() >= MOST_BLOBS;
    let new = model.next.0;
    let candidates = Candidates::of(model);
    let all = candidates.those(|_| true);
    let writable = candidates.those(|blob| !blob.read_only);
    let child = candidates.those(|blob| !blob.read_only && blob.parent.is_some());
    match pick(&changes(shares))? {
        Change::CloneExternal if !full => {
            let source = below(external::COUNT.into()) as u8;
            Some(Op::CloneExternal { tag: new, source, clusters: 1 + below(8) })
        }
        Change::ShallowCopy => {
            // A copy of a large blob would only take time.
            let tag = one_of(&candidates.those(|blob| blob.read_only && blob.clusters < 16))?;
            Some(Op::ShallowCopy { tag })
        }
        Change::Create if !full => Some(create(new)),
        Change::Delete => Some(Op::Delete { tag: one_of(&all)? }),
        Change::Resize => {
            let tag = one_of(&writable)?;
            Some(Op::Resize { tag, clusters: size(store.blobs[&tag].thin) })
        }
        Change::Replace => {
            let alone = candidates.those(|blob| !blob.read_only && blob.clusters > 0);
            let tag = one_of(&alone)?;
            let (unit, count) = range(&store.blobs[&tag], model.rules.per_cluster, false, 8)?;
            Some(Op::Replace { tag, unit, count, value: model.next.1 })
        }
        Change::Xattr => change_xattr(model, one_of(&writable)?),
        Change::Sync => Some(Op::Sync { tag: one_of(&writable)? }),
        Change::Reopen => Some(Op::Reopen { tag: one_of(&all)? }),
        Change::ReadOnly => Some(Op::ReadOnly { tag: one_of(&writable)? }),
        Change::Snapshot if !full => Some(Op::Snapshot { tag: one_of(&writable)?, new }),
        Change::Clone if !full => {
            Some(Op::Clone { tag: one_of(&candidates.those(|blob| blob.read_only))?, new })
        }
        Change::Inflate => Some(Op::Inflate { tag: one_of(&writable)? }),
        Change::Decouple => Some(Op::Decouple { tag: one_of(&child)? }),
        Change::SetParent => set_parent(&candidates),
        Change::SetSuper => Some(Op::SetSuper { tag: one_of(&all).filter(|_| below(4) > 0) }),
        Change::SetType => {
            let own = [*b"SOMEBODY'S OWN\0\0", *b"ANOTHER'S OWN\0\0\0"].map(BsType);
            let types = [BsType::NONE, BsType::LVOLSTORE, own[0], own[1]];
            Some(Op::SetType { bs_type: types[below(4) as usize] })
        }
        Change::Reload => Some(Op::Reload { grow: below(8) == 0 }),
        Change::Remake => Some(Op::Destroy),
        Change::Grow => Some(Op::Grow),
        _ => None,
    }
}

/// Returns the changes of metadata with their shares.
fn changes(shares: &Shares) -> [(u32, Change); 21] {
    [
        (shares.create, Change::Create),
        (shares.delete, Change::Delete),
        (shares.resize, Change::Resize),
        (shares.replace, Change::Replace),
        (shares.xattr, Change::Xattr),
        (shares.sync, Change::Sync),
        (shares.reopen, Change::Reopen),
        (shares.read_only, Change::ReadOnly),
        (shares.snapshot, Change::Snapshot),
        (shares.clone, Change::Clone),
        (shares.clone_external, Change::CloneExternal),
        (shares.shallow_copy, Change::ShallowCopy),
        (shares.inflate, Change::Inflate),
        (shares.decouple, Change::Decouple),
        (shares.set_parent, Change::SetParent),
        (shares.set_super, Change::SetSuper),
        (shares.set_type, Change::SetType),
        (shares.reload, Change::Reload),
        (shares.remake, Change::Remake),
        (shares.grow, Change::Grow),
        (shares.pause, Change::Pause),
    ]
}

/// The blobs of a store that an operation may choose.
struct Candidates<'a> {
    blobs: &'a BTreeMap<Tag, Arc<Blob>>,
    /// The blobs that pending operations concern.
    busy: BTreeSet<Tag>,
}

impl Candidates<'_> {
    fn of(model: &Model) -> Candidates<'_> {
        let open = model.pending.values().filter(|pending| pending.op.is_change());
        let busy = open.flat_map(|pending| model.now().family(&pending.op)).collect();
        Candidates { blobs: &model.now().blobs, busy }
    }

    /// Returns those that fit; half of the time only blobs that another operation uses, or one in a chain with
    /// it.
    fn those(&self, want: impl Fn(&Blob) -> bool) -> Vec<Tag> {
        let all: Vec<Tag> = self.blobs.iter().filter(|(_, blob)| want(blob)).map(|(tag, _)| *tag).collect();
        let met: Vec<Tag> = all.iter().copied().filter(|tag| self.busy.contains(tag)).collect();
        if met.is_empty() || below(2) == 0 { all } else { met }
    }
}

/// Chooses an xattr to set or remove.
fn change_xattr(model: &Model, tag: Tag) -> Option<Op> {
    let name = b'a' + below(3) as u8;
    // With two at once it would be unknown which came last.
    if model.pending.values().any(|pending| pending.op.blob() == Some(tag) && !pending.op.is_data()) {
        return None;
    }
    if below(4) == 0 {
        return Some(Op::RemoveXattr { tag, name });
    }
    // Sometimes so large that the chain needs another page.
    let length = if below(6) == 0 { 2000 } else { below(30) };
    let value = (0..length).map(|_| b'0' + below(10) as u8).collect();
    Some(Op::SetXattr { tag, name, value })
}

/// Chooses a blob and a new parent for it.
fn set_parent(candidates: &Candidates<'_>) -> Option<Op> {
    let tag = one_of(&candidates.those(|blob| blob.thin && !blob.read_only))?;
    if below(3) == 0 {
        let parent = Above::External(below(external::COUNT.into()) as u8);
        return Some(Op::SetParent { tag, parent });
    }
    let clusters = candidates.blobs[&tag].clusters;
    let parents = candidates.those(|blob| blob.read_only && blob.clusters == clusters);
    Some(Op::SetParent { tag, parent: Above::Blob(one_of(&parents)?) })
}

/// True if a new blob could get the id that an operation in progress was begun with: one operation names a
/// blob that another deletes, while a third creates one.
fn may_meet_a_stranger(model: &Model, op: &Op) -> bool {
    let mut ops: Vec<&Op> = model.pending.values().map(|one| &one.op).filter(|one| one.is_change()).collect();
    ops.push(op);
    let others = |than: usize| ops.iter().enumerate().filter(move |(at, _)| *at != than).map(|(_, op)| *op);
    ops.iter().enumerate().any(|(at, named)| {
        let mut tags = named.tags();
        tags.retain(|tag| named.new_blob() != Some(*tag));
        let goes = |tag: &Tag| {
            !model.now().blobs.contains_key(tag) || others(at).any(|other| *other == Op::Delete { tag: *tag })
        };
        tags.iter().any(goes) && others(at).any(|other| other.new_blob().is_some())
    })
}

fn create(tag: Tag) -> Op {
    let thin = below(3) > 0;
    let xattrs = (0..below(3)).map(|at| (b'a' + at as u8, vec![b'v'; below(20) as usize]));
    let xattrs: Xattrs = xattrs.collect();
    // A run-length list gives a map no page of its own; a table does.
    Op::Create { tag, clusters: size(thin), thin, table: below(3) > 0, waived: below(12) == 0, xattrs }
}

/// A size in clusters: small, or for a thin blob sometimes more than one extent page holds.
fn size(thin: bool) -> u64 {
    if thin && below(6) == 0 { LEAF - 2 + below(6) } else { below(8) }
}

#[derive(Clone, Copy, PartialEq)]
enum Io {
    Write,
    Zeroes,
    Unmap,
    Flush,
    Read,
}

fn choose_io(model: &Model, tag: Tag, shares: &Shares, busy: u64) -> Option<Op> {
    let table = [
        (shares.write, Io::Write),
        (shares.zeroes, Io::Zeroes),
        (shares.unmap, Io::Unmap),
        (shares.flush, Io::Flush),
        (shares.read, Io::Read),
    ];
    let io = pick(&table)?;
    let blob = model.now().blobs.get(&tag)?;
    if io == Io::Flush {
        return Some(Op::Flush { tag });
    }
    if blob.read_only && io != Io::Read {
        return None;
    }
    let (unit, count) = range(blob, model.rules.per_cluster, io == Io::Unmap, busy)?;
    Some(match io {
        Io::Write => Op::Write { tag, unit, count, value: model.next.1 },
        Io::Zeroes => Op::Zeroes { tag, unit, count },
        Io::Unmap => Op::Unmap { tag, unit, count },
        Io::Read | Io::Flush => Op::Read { tag, unit, count },
    })
}

/// A range of a blob in units: part of a cluster, a whole one, or across clusters.
fn range(blob: &Blob, per_cluster: u64, whole: bool, busy: u64) -> Option<(u64, u64)> {
    let units = blob.clusters * per_cluster;
    // The first clusters, so that operations meet; for large blobs also the start of the second extent page.
    let cluster = match blob.clusters {
        0 => return None,
        LEAF.. if below(2) == 0 => LEAF - 2 + below(blob.clusters - LEAF + 2),
        clusters => below(clusters.min(busy)),
    };
    let first = cluster * per_cluster;
    let (unit, count) = match below(if whole { 2 } else { 6 }) {
        0 => (first, per_cluster),
        1 => (first, per_cluster * (1 + below(3))),
        2 => (first + below(per_cluster), 1 + below(2 * per_cluster)),
        _ => (first + below(per_cluster), 1 + below(per_cluster.min(3))),
    };
    Some((unit, count.min(units - unit)))
}
