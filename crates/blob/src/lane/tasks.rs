//! The slow work of a lane, in tasks of its thread. A task owns the request, looks the map up again, and
//! gives the request back, finished or to be looked up again.
//!
//! What a task sends to clusters is counted like the lane's own requests, from the look-up on. A task runs to
//! its end even if the request's maker is gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{Channel, Io, Notifier, Operation, Status};
use spindle_mem::{Buffers, IoBuf};

use super::BlobLane;
use super::way::LONG;
use crate::allocate::{Allocated, Payload, allocate};
use crate::blob_local::BlobLocal;
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::md::Md;
use crate::shared::{BlobShared, Source};
use crate::store::on_md;

/// The result of a request in a task.
pub(super) enum Outcome {
    /// It has ended.
    Done(Status),
    /// The map has changed: it must be looked up again.
    Again,
}

/// Requests on their way back from tasks to their lane.
pub(super) struct Returned {
    list: RefCell<VecDeque<(Io, Outcome)>>,
    lane: Notifier,
}

impl Returned {
    pub(super) fn new(lane: Notifier) -> Rc<Returned> {
        Rc::new(Returned { list: RefCell::default(), lane })
    }

    /// The next of them.
    pub(super) fn take(&self) -> Option<(Io, Outcome)> {
        self.list.borrow_mut().pop_front()
    }

    fn give(&self, io: Io, outcome: Outcome) {
        self.list.borrow_mut().push_back((io, outcome));
        self.lane.notify();
    }
}

/// A task's copy of its lane's data; the lane may be dropped before the task ends.
#[derive(Clone)]
struct Errand {
    blob: Arc<BlobShared>,
    here: Rc<BlobLocal>,
    returned: Rc<Returned>,
    block_shift: u32,
}

impl Errand {
    /// First byte and length of a request's range, which is inside the blob.
    fn range(&self, io: &Io) -> (u64, u64) {
        (io.start() << self.block_shift, io.count() << self.block_shift)
    }

    /// Gives the request back with its result.
    fn give(&self, io: Io, result: Result<Outcome, BlobError>) {
        let outcome = result.unwrap_or_else(|error| {
            self.here.note_failure(&error);
            Outcome::Done(Err(error.kind()))
        });
        self.returned.give(io, outcome);
    }
}

impl BlobLane {
    /// Starts a task with a request.
    fn send(&self, io: Io, task: impl AsyncFnOnce(&Errand, &mut Io) -> Result<Outcome, BlobError> + 'static) {
        let errand = Errand {
            blob: self.blob.clone(),
            here: self.here.clone(),
            returned: self.returned.clone(),
            block_shift: self.block_shift,
        };
        drop(spindle_reactor::spawn_local(async move {
            let mut io = io;
            let result = task(&errand, &mut io).await;
            errand.give(io, result);
        }));
    }

    /// Gives the blob the cluster that a write needs, including the written data.
    pub(super) fn allocate(&self, io: Io, index: u64) {
        self.send(io, async move |errand, io| {
            let (offset, len) = errand.range(io);
            let within = errand.blob.cluster_size.split(offset).1;
            let payload = match io.operation() {
                Operation::Write => Payload::Data(within, io.take_buffers()),
                _ => Payload::Zeroes(within, len),
            };
            let (result, buffers) = allocate(&errand.blob, &errand.here, index, payload).await;
            io.put_buffers(buffers);
            Ok(match result? {
                Allocated::Done => Outcome::Done(Ok(())),
                Allocated::Retry => Outcome::Again,
            })
        });
    }

    /// Frees whole clusters of a thin blob without parent.
    pub(super) fn free(&self, io: Io, first: u64, count: u64) {
        self.send(io, async move |errand, _| {
            let blob = errand.blob.clone();
            let freed = on_md(&errand.blob.store, async move |md| {
                let state = md.state_of(&blob)?;
                Md::unmap(&md, &state, first, count).await
            });
            Ok(if freed.await? { Outcome::Done(Ok(())) } else { Outcome::Again })
        });
    }

    /// Overwrites a range within a cluster with zeroes.
    pub(super) fn zero_by_hand(&self, io: Io) {
        self.send(io, async |errand, io| {
            let (offset, len) = errand.range(io);
            let local = errand.blob.store.local()?;
            let _under_way = errand.here.epochs.under_way();
            let (index, within) = errand.blob.cluster_size.split(offset);
            match errand.blob.leaves.get(index) {
                Entry::Own(cluster) if !errand.blob.is_frozen() => {
                    local.write_zeroes(errand.blob.start_of(cluster) + within, len).await?;
                    Ok(Outcome::Done(Ok(())))
                }
                _ => Ok(Outcome::Again),
            }
        });
    }

    /// Reads a range of an external snapshot that is not whole blocks of it, or beyond its end.
    pub(super) fn read_around(&self, io: Io) {
        self.send(io, async |errand, io| {
            let (offset, _) = errand.range(io);
            let _under_way = errand.here.epochs.under_way();
            let source = errand.blob.source(errand.blob.cluster_size.split(offset).0);
            let Source::External(outside) = source else { return Ok(Outcome::Again) };
            let channel = Channel::open_unheld(outside.device.clone());
            let channel = channel.map_err(|source| errand.blob.store.open_error(source))?;
            let (result, buffers) = read_around(&channel, offset, io.take_buffers()).await;
            io.put_buffers(buffers);
            result.map(|()| Outcome::Done(Ok(())))
        });
    }

    /// Processes a long range in steps, by separate requests.
    pub(super) fn in_steps(&self, io: Io) {
        self.send(io, async |errand, io| {
            let (mut at, len) = errand.range(io);
            let (end, step) = (at + len, LONG * errand.blob.cluster_size.bytes());
            let channel = errand.blob.channel()?;
            while at < end {
                // The first ends where a cluster does.
                let now = (step - errand.blob.cluster_size.split(at).1).min(end - at);
                match io.operation() {
                    Operation::Unmap => channel.unmap(at, now).await?,
                    _ => channel.write_zeroes(at, now).await?,
                }
                at += now;
                // If there was nothing to do, nothing has waited yet.
                spindle_reactor::yield_now().await;
            }
            Ok(Outcome::Done(Ok(())))
        });
    }
}

/// Reads from an external snapshot; zeroes beyond its end. If its blocks are larger than the store's,
/// surrounding bytes are read too.
async fn read_around(
    channel: &Channel,
    start: u64,
    mut buffers: Buffers,
) -> (Result<(), BlobError>, Buffers) {
    let shape = channel.geometry();
    let block = u64::from(shape.block_size());
    let len = buffers.len() as u64;
    if start.is_multiple_of(block) && len.is_multiple_of(block) && start + len <= shape.bytes() {
        let (result, buffers) = channel.read(start, buffers).await;
        return (result.map_err(BlobError::from), buffers);
    }
    let first = (start / block * block).min(shape.bytes());
    let end = (start + len).next_multiple_of(block).min(shape.bytes());
    buffers.fill(0);
    if first >= end {
        return (Ok(()), buffers);
    }
    let around = match IoBuf::try_zeroed((end - first) as usize) {
        Ok(around) => around,
        Err(error) => return (Err(error.into()), buffers),
    };
    let (result, around) = channel.read(first, around).await;
    if let (Ok(()), Ok(around)) = (&result, around.into_one()) {
        let skip = ((start - first) as usize).min(around.len());
        buffers.copy_from(0, &around[skip..]);
    }
    (result.map_err(BlobError::from), buffers)
}
