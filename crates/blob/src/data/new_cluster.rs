//! Allocates a cluster for a blob, on the thread that writes to it: the place in the map is claimed, the cluster is
//! filled on this thread, and then the metadata thread maps it on disk and shows it to readers.
//!
//! Runs in a task that is never dropped, so that an abandoned write leaves nothing half done. A cluster comes
//! from the thread's [`Reserve`](crate::space::Reserve), or from the metadata thread if that is empty.
//! After a failure it goes back there, unless the store is poisoned: then its owner is unknown.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::{Channel, Io, Operation};
use spindle_mem::{Buffers, IoBuf};

use super::errand::Outcome;
use super::lane::BlobLane;
use crate::error::BlobError;
use crate::map::Entry;
use crate::md::on_md;
use crate::ordering::Point;
use crate::shared::{BlobLocal, BlobShared, Source, StoreLocal};
use crate::space::{Fill, Fresh};
use crate::waiting::{join_all, locked};

/// What the request writes into the new cluster.
pub(crate) enum Payload {
    /// Nothing: it must read as before.
    Nothing,
    /// These bytes, from this byte of the cluster on.
    Data(u64, Buffers),
    /// Zeroes: first byte and length.
    Zeroes(u64, u64),
}

/// The outcome of an allocation.
pub(crate) enum Allocated {
    /// The cluster is mapped and holds the payload.
    Done,
    /// Another task was faster, or keeps writes out: look up again.
    Retry,
}

impl Payload {
    fn range(&self) -> (u64, u64) {
        match self {
            Payload::Nothing => (0, 0),
            Payload::Data(within, buffers) => (*within, buffers.len() as u64),
            Payload::Zeroes(within, len) => (*within, *len),
        }
    }

    /// Its memory.
    pub(crate) fn into_buffers(self) -> Buffers {
        match self {
            Payload::Data(_, buffers) => buffers,
            Payload::Nothing | Payload::Zeroes(..) => Buffers::None,
        }
    }
}

impl BlobLane {
    /// Gives the blob the cluster that a write needs, including the written data.
    pub(super) fn allocate(&mut self, io: Io, index: u64) {
        let Some(io) = self.waiting.join(index, io) else { return };
        self.send(io, async move |errand| {
            let (offset, len) = errand.range();
            let within = errand.blob.cluster_size.split(offset).1;
            let payload = match errand.operation() {
                Operation::Write => Payload::Data(within, errand.take_buffers()),
                _ => Payload::Zeroes(within, len),
            };
            let (result, buffers) = allocate(&errand.blob, &errand.here, index, payload).await;
            errand.put_buffers(buffers);
            Ok(match result? {
                Allocated::Done => Outcome::Done(Ok(())),
                Allocated::Retry => Outcome::Again,
            })
        });
    }
}

/// Allocates a cluster for a blob that reads as before except for the payload, which is returned. When this
/// resolves, the map on disk has been written. Must not be dropped before its end.
pub(crate) async fn allocate(
    blob: &Arc<BlobShared>,
    here: &BlobLocal,
    index: u64,
    mut payload: Payload,
) -> (Result<Allocated, BlobError>, Buffers) {
    // After a panic the state of the allocation is unknown.
    let unfinished = blob.store.poison_by_panic();
    let result = match blob.store.local() {
        Ok(local) => allocate_here(blob, here, &local, index, &mut payload).await,
        Err(error) => Err(error),
    };
    drop(unfinished);
    (result, payload.into_buffers())
}

async fn allocate_here(
    blob: &Arc<BlobShared>,
    here: &BlobLocal,
    local: &StoreLocal,
    index: u64,
    payload: &mut Payload,
) -> Result<Allocated, BlobError> {
    blob.store.check_poison()?;
    let Some(claim) = blob.claim(index).await else { return Ok(Allocated::Retry) };
    // Checked again: a blob that was frozen may have become read-only or shorter.
    let writes = !matches!(payload, Payload::Nothing);
    if writes {
        blob.check_data()?;
    }
    if matches!(blob.leaves.get(index), Entry::Own(_)) || index >= blob.clusters.load(Ordering::Acquire) {
        return Ok(Allocated::Retry);
    }
    let fresh = take(blob, local).await?;
    let (mapped, done) = match fresh.zero {
        // The cluster has its required contents with or without the payload: payload and map are written side
        // by side.
        Some(since) if locked(&blob.backing).is_zeroes() => {
            let data = write_payload(local, blob.start_of(fresh.cluster), true, payload);
            let map = map(blob, local, index, fresh.cluster, Fill::Zero(since));
            let (data, map) = crate::waiting::join(data, map).await;
            (map.is_ok(), map.and(data))
        }
        _ => {
            let done = match fill(blob, (here, local), index, fresh, payload).await {
                Ok(()) => map(blob, local, index, fresh.cluster, Fill::New).await,
                Err(error) => Err(error),
            };
            (done.is_ok(), done)
        }
    };
    if !mapped && blob.store.check_poison().is_ok() {
        give_back(blob, local, fresh.cluster).await;
    }
    drop(claim);
    done.map(|()| Allocated::Done)
}

/// A free cluster from this thread's reserve, or from the metadata thread.
async fn take(blob: &BlobShared, local: &StoreLocal) -> Result<Fresh, BlobError> {
    if let Some(fresh) = local.reserve.take() {
        return Ok(fresh);
    }
    let reserve = local.reserve.clone();
    on_md(&blob.store, async move |md| md.take_fresh(&reserve).await).await
}

/// Gives back an unmapped cluster, and the host's space that its contents take.
async fn give_back(blob: &BlobShared, local: &StoreLocal, cluster: u32) {
    // Best effort: it is zeroed before it is used.
    let _ = local.unmap(blob.start_of(cluster), u64::from(blob.store.cluster_size)).await;
    local.reserve.put([Fresh { cluster, zero: None, written: false }]);
    let _ = on_md(&blob.store, async |md| {
        md.space_changed();
        Ok(())
    })
    .await;
}

/// Names the cluster in the map on disk and shows it to readers.
async fn map(
    blob: &Arc<BlobShared>,
    local: &StoreLocal,
    index: u64,
    cluster: u32,
    fill: Fill,
) -> Result<(), BlobError> {
    let (mapped, reserve) = (blob.clone(), local.reserve.clone());
    on_md(&blob.store, async move |md| {
        md.top_up(&reserve);
        md.map(&mapped, index, cluster, fill).await
    })
    .await
}

/// Fills a new cluster with the parents' data or zeroes, and the payload on top.
async fn fill(
    blob: &BlobShared,
    (here, local): (&BlobLocal, &StoreLocal),
    index: u64,
    fresh: Fresh,
    payload: &mut Payload,
) -> Result<(), BlobError> {
    let size = u64::from(blob.store.cluster_size);
    let start = blob.start_of(fresh.cluster);
    let (within, len) = payload.range();
    let above = if len < size { take_above(blob, here, local, index, start).await? } else { Above::Zeroes };
    match above {
        Above::Zeroes => {}
        Above::Copied => return write_payload(local, start, false, payload).await,
        Above::Data(mut whole) => {
            match payload {
                Payload::Data(_, buffers) => {
                    buffers.copy_to(0, &mut whole[within as usize..(within + len) as usize]);
                }
                Payload::Zeroes(..) => whole[within as usize..(within + len) as usize].fill(0),
                Payload::Nothing => {}
            }
            return Ok(local.channel().write(start, whole).await.0?);
        }
    }
    let zero = fresh.zero.is_some() || !blob.store.order.keeps(Point::ZeroNewCluster);
    let around: &[(u64, u64)] = match zero {
        true => &[],
        false => &[(start, within), (start + within + len, size - within - len)],
    };
    // They do not overlap, so all are written at once.
    let around = around.iter().filter(|(_, len)| *len > 0);
    let around = join_all(around.map(|&(at, len)| local.clear(at, len)));
    let (around, data) = crate::waiting::join(around, write_payload(local, start, zero, payload)).await;
    data?;
    Ok(around.into_iter().collect::<Result<(), _>>()?)
}

/// Writes the payload into a cluster that begins at `start`.
async fn write_payload(
    local: &StoreLocal,
    start: u64,
    zero: bool,
    payload: &mut Payload,
) -> Result<(), BlobError> {
    match payload {
        Payload::Data(within, buffers) => {
            let channel = local.channel();
            let (result, back) = channel.write(start + *within, std::mem::take(buffers)).await;
            *buffers = back;
            Ok(result?)
        }
        Payload::Zeroes(within, len) if !zero && *len > 0 => Ok(local.clear(start + *within, *len).await?),
        Payload::Zeroes(..) | Payload::Nothing => Ok(()),
    }
}

/// A cluster's contents in the parents.
enum Above {
    Zeroes,
    Data(IoBuf),
    /// The new cluster holds them already.
    Copied,
}

/// Takes a cluster's contents in the parents: the device copies them to `target` if it can, otherwise they are
/// read.
async fn take_above(
    blob: &BlobShared,
    here: &BlobLocal,
    local: &StoreLocal,
    index: u64,
    target: u64,
) -> Result<Above, BlobError> {
    let size = u64::from(blob.store.cluster_size);
    // Counted from the look-up on: an operation that frees the parents' cluster waits for it.
    let _under_way = here.epochs.under_way();
    match blob.source(index) {
        Source::Zeroes => Ok(Above::Zeroes),
        Source::Missing(parent) => Err(BlobError::MissingParent { blob: blob.id, parent }),
        Source::Cluster { cluster, .. } if local.copies() => {
            local.channel().copy(target, blob.start_of(cluster), size).await?;
            Ok(Above::Copied)
        }
        Source::Cluster { cluster, .. } => {
            let buffer = IoBuf::try_zeroed(size as usize)?;
            let (result, buffers) = local.channel().read(blob.start_of(cluster), buffer).await;
            result?;
            Ok(Above::Data(buffers.into_one().or_else(|parts| joined(&parts, size))?))
        }
        Source::External(snapshot) => {
            let left = snapshot.device.geometry().bytes().saturating_sub(index * size).min(size);
            if left == 0 {
                return Ok(Above::Zeroes);
            }
            let channel = Channel::open_unheld(snapshot.device.clone());
            let channel = channel.map_err(|source| blob.store.open_error(source))?;
            let (result, buffers) = channel.read(index * size, IoBuf::try_zeroed(left as usize)?).await;
            result?;
            Ok(Above::Data(joined(&buffers, size)?))
        }
    }
}

/// Buffers joined in one piece and padded with zeroes to `len` bytes.
fn joined(parts: &Buffers, len: u64) -> Result<IoBuf, BlobError> {
    let mut whole = IoBuf::try_zeroed(len as usize)?;
    parts.copy_to(0, &mut whole);
    Ok(whole)
}
