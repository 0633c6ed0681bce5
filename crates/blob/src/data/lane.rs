//! A blob's lane: on one thread, turns requests for a blob into requests for its store's device. It is the
//! only data path: the library's own reads and writes pass through it like those of a volume.
//!
//! This file is the path of a request for one known cluster, from its arrival to its end, and the lane's other
//! entries. What is cut, waits, is refused or reads zeroes is in [`super::otherwise`]; reads of an external snapshot
//! go to its device ([`super::external`]). Slow work (a new cluster, clusters to free) goes to a task of this
//! thread, which owns the request and gives it back ([`super::tasks`]). Looking the map up and sending the request
//! happen in one call, and every sent request is counted, so that a change of the map can wait for requests that
//! used the old one.
//!
//! While the blob is frozen a write is answered `Full` and waits, with the requests behind it, until the
//! thaw. Force unit access is a flush of the store after the write, as the write may rest on a map that no flush
//! has covered yet. Not promised: an order between requests, and that a failed one has changed nothing.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slab::Slab;
use spindle_block::{
    Busy, Cx, Device, Io, IoId, Lane, LaneCx, LaneEvent, LaneId, OpenError, Operation, Status, Submit,
};

use super::cluster_queue::ClusterQueue;
use super::errand::{Errands, Outcome};
use super::external::External;
use super::flush::LaneFlushes;
use crate::map::{ClusterSize, Entry};
use crate::md::Opened;
use crate::shared::{BlobLocal, BlobShared};

/// A flag in the saved words of a request: it must be durable when it completes.
const DURABLE: u64 = 1;

/// A flag there: the request stands for another one, in another block size.
pub(super) const EXTERNAL: u64 = 2;

/// The lane of a blob on one thread.
pub(crate) struct BlobLane {
    pub(super) blob: Arc<BlobShared>,
    /// The opening of its device; `None` for the library's own requests.
    opened: Option<Arc<Opened>>,
    pub(super) here: Rc<BlobLocal>,
    /// Its number in `here`.
    number: u64,
    /// The lane of the store's device.
    pub(super) below: LaneId,
    pub(super) block_shift: u32,
    /// Blocks of a cluster.
    cluster_blocks: ClusterSize,
    /// Requests that tasks process.
    pub(super) errands: Rc<Errands>,
    /// Requests that wait for a thaw and cannot be given back to the table.
    pub(super) held: VecDeque<Io>,
    /// Requests for new clusters that earlier ones are getting.
    pub(super) waiting: ClusterQueue,
    pub(super) flushes: LaneFlushes,
    /// Set once the device has refused write-zeroes.
    pub(super) zeroes_by_hand: bool,
    /// The external snapshots open below it.
    pub(super) externals: Vec<External>,
    /// Reads for which others stand.
    pub(super) parked: Slab<Io>,
    /// Set once the blob is gone and the lanes below are closed.
    pub(super) removed: bool,
}

impl Lane for BlobLane {
    #[inline]
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match self.place_of(&io) {
            Some(place) => {
                self.forward(io, place, cx);
                Submit::Taken
            }
            None => self.submit_otherwise(io, cx),
        }
    }

    #[inline]
    fn complete(&mut self, mut io: Io, [start, mark]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        if io.operation() == Operation::Flush {
            return self.flush_ended(io, status, cx);
        }
        self.here.epochs.end(mark >> 2);
        if mark & EXTERNAL != 0 {
            return self.external_read(io, start, status, cx);
        }
        io.set_start(start);
        match (status, mark & DURABLE) {
            (Ok(()), 0) => cx.done(io, status),
            (_, durable) => self.complete_otherwise(io, durable != 0, status, cx),
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        while let Some((io, outcome)) = self.errands.take() {
            let waited = self.waiting.over(self.cluster_blocks.split(io.start()).0);
            match outcome {
                Outcome::Done(status) => self.finish(io, status, cx),
                Outcome::Again => self.again(io, cx),
            }
            waited.into_iter().for_each(|io| self.again(io, cx));
        }
        if self.errands.lost_any() {
            self.waiting.all().into_iter().for_each(|io| self.again(io, cx));
        }
        // Only those there now: requests that are still kept out come back.
        for _ in 0..self.held.len() {
            let Some(io) = self.held.pop_front() else { break };
            self.again(io, cx);
        }
        self.settle(cx);
        self.close_externals(false, cx);
        Busy::Yes
    }

    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        if let LaneEvent::Removed = event
            && !std::mem::replace(&mut self.removed, true)
        {
            self.close_externals(true, cx);
            cx.close(self.below);
        }
    }

    fn opened(&mut self, device: &Arc<dyn Device>, lower: Result<LaneId, OpenError>, cx: &mut Cx<'_>) {
        self.external_opened(device, lower, cx);
        self.close_externals(self.removed, cx);
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        self.end_held(|io, _| io.id() == id, cx);
        self.errands.abort(|io| io.id() == id);
    }

    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        self.end_held(|io, cx| cx.is_orphaned(io), cx);
        self.errands.abort(|io| cx.is_orphaned(io));
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        self.end_held(|io, cx| cx.is_abandoned(io), cx);
        self.errands.give_up(&self.blob.lanes, |io| cx.is_abandoned(io));
    }
}

impl BlobLane {
    /// The block of the device for a read or write within one known cluster that is let in. In blocks, so that no
    /// range overflows.
    #[inline]
    fn place_of(&self, io: &Io) -> Option<u64> {
        let (index, within) = self.cluster_blocks.split(io.start());
        let count = io.count();
        let in_one = count > 0 && count <= self.cluster_blocks.get() - within;
        if !in_one || index >= self.blob.clusters.load(Ordering::Acquire) || io.fua() || self.is_closed() {
            return None;
        }
        let entry = self.blob.leaves.get(index);
        let cluster = match (io.operation(), entry) {
            (Operation::Read, Entry::Own(cluster) | Entry::Inherited(Some(cluster))) => cluster,
            (Operation::Write, Entry::Own(cluster)) if !self.keeps_writes_out() => cluster,
            _ => return None,
        };
        Some(u64::from(cluster) * self.cluster_blocks.get() + within)
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.is_closed())
    }

    /// True if a write has to wait or to fail.
    #[inline]
    fn keeps_writes_out(&self) -> bool {
        self.blob.is_frozen() || self.blob.read_only.load(Ordering::Acquire) || self.blob.store.read_only
    }

    /// First byte and length of a request's range, if they fit 64 bits.
    pub(super) fn range(&self, io: &Io) -> Option<(u64, u64)> {
        let (start, count) = (io.start(), io.count());
        let limit = u64::MAX >> self.block_shift;
        (start <= limit && count <= limit).then(|| (start << self.block_shift, count << self.block_shift))
    }

    /// Sends a request to a block of the device. Must be called in the call that looked up the map.
    #[inline(always)]
    pub(super) fn forward(&mut self, mut io: Io, place: u64, cx: &mut Cx<'_>) {
        let start = io.start();
        let durable = if io.fua() { DURABLE } else { 0 };
        if durable != 0 {
            io.set_fua(false);
        }
        let epoch = self.here.epochs.begin();
        io.set_start(place);
        cx.forward(self.below, io, [start, epoch << 2 | durable]);
    }
}

impl BlobLane {
    pub(crate) fn open(
        blob: Arc<BlobShared>,
        opened: Option<Arc<Opened>>,
        cx: &mut LaneCx<'_>,
    ) -> Result<Box<dyn Lane>, OpenError> {
        let not_here = || OpenError::NotOnThread { device: blob.name.clone() };
        let here = BlobLocal::of(&blob).ok_or_else(not_here)?;
        let below = cx.open(blob.store.device.device())?;
        let number = here.add_lane(cx.notifier());
        let lane = BlobLane {
            block_shift: blob.store.io_unit.trailing_zeros(),
            cluster_blocks: ClusterSize::new(blob.store.cluster_size / blob.store.io_unit),
            blob,
            opened,
            here,
            number,
            below,
            errands: Errands::new(cx.notifier()),
            held: VecDeque::new(),
            waiting: ClusterQueue::default(),
            flushes: LaneFlushes::default(),
            zeroes_by_hand: false,
            externals: Vec::new(),
            parked: Slab::new(),
            removed: false,
        };
        Ok(Box::new(lane))
    }

    /// True if blobs support an operation.
    pub(crate) fn does(operation: Operation) -> bool {
        use Operation::{Flush, Read, SeekData, SeekHole, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush | SeekData | SeekHole)
    }
}

impl Drop for BlobLane {
    fn drop(&mut self) {
        self.here.remove_lane(self.number);
        self.give_up_flush();
    }
}
