//! The slow work of a lane, in tasks of its thread. A task owns the request, looks the map up again, and
//! gives the request back, finished or to be looked up again.
//!
//! What a task sends to clusters is counted like the lane's own requests, from the look-up on. A task runs to
//! its end even if the request's maker is gone, except one that works in steps: it makes no further step.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use spindle_block::{Channel, Io, IoErrorKind, Operation};
use spindle_mem::{Buffers, IoBuf};

use super::errand::{Errand, Outcome};
use super::lane::BlobLane;
use super::way::LONG;
use crate::error::BlobError;
use crate::map::Entry;
use crate::md::{Md, on_md};
use crate::shared::Source;

impl BlobLane {
    /// Starts a task with a request.
    pub(super) fn send(
        &self,
        io: Io,
        task: impl AsyncFnOnce(&Errand) -> Result<Outcome, BlobError> + 'static,
    ) {
        let errand = Errand::new(io, &self.errands, &self.blob, &self.here, self.block_shift);
        drop(spindle_reactor::spawn_local(async move {
            let result = task(&errand).await;
            errand.give_back(result);
        }));
    }

    /// Frees whole clusters of a thin blob without parent.
    pub(super) fn free(&self, io: Io, first: u64, count: u64) {
        self.send(io, async move |errand| {
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
        self.send(io, async |errand| {
            let (offset, len) = errand.range();
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
        self.send(io, async |errand| {
            let (offset, _) = errand.range();
            let _under_way = errand.here.epochs.under_way();
            let source = errand.blob.source(errand.blob.cluster_size.split(offset).0);
            let Source::External(snapshot) = source else { return Ok(Outcome::Again) };
            let channel = Channel::open_unheld(snapshot.device.clone());
            let channel = channel.map_err(|source| errand.blob.store.open_error(source))?;
            let (result, buffers) = read_around(&channel, offset, errand.take_buffers()).await;
            errand.put_buffers(buffers);
            result.map(|()| Outcome::Done(Ok(())))
        });
    }

    /// Processes a long range in steps, by separate requests. If the request must end early, no further step is made.
    pub(super) fn in_steps(&self, io: Io) {
        self.send(io, async |errand| {
            let mut steps = pin!(steps(errand));
            poll_fn(|cx| match errand.poll_ends(cx) {
                // Dropping the step gives it up in turn: newer changes wait for it.
                Poll::Ready(()) => Poll::Ready(Ok(Outcome::Done(Err(IoErrorKind::Aborted)))),
                Poll::Pending => steps.as_mut().poll(cx),
            })
            .await
        });
    }
}

/// The steps of a long range, over what the blob and its parents may have in it: all else reads zeroes already, and its
/// length may be absurd.
async fn steps(errand: &Errand) -> Result<Outcome, BlobError> {
    let (mut at, len) = errand.range();
    let size = errand.blob.cluster_size.get();
    let (end, step) = (at + len, LONG * size);
    let channel = errand.blob.channel()?;
    while at < end
        && let Some(part) = errand.blob.first_part(at / size..end.div_ceil(size))
    {
        at = at.max(part.start * size);
        // The first ends where a cluster does.
        let now = (step - errand.blob.cluster_size.split(at).1).min(end.min(part.end * size) - at);
        match errand.operation() {
            Operation::Unmap => channel.unmap(at, now).await?,
            _ => channel.write_zeroes(at, now).await?,
        }
        at += now;
        // If there was nothing to do, nothing has waited yet.
        spindle_reactor::yield_now().await;
    }
    Ok(Outcome::Done(Ok(())))
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
