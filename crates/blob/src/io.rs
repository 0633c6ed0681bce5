//! A blob's data: reads and writes on the thread that asks.
//!
//! A range is cut at cluster boundaries. A cluster that is known is looked up and its request submitted in
//! one poll, without a lock; one that a write needs and the blob has not is asked for on the metadata thread,
//! which writes the data too. Pieces run side by side and may complete in any order.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_mem::{Buffers, IoBuf};

use crate::allocate::{Allocated, Payload, allocate};
use crate::blob::Blob;
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::local::Local;
use crate::shared::{BlobShared, Source};
use crate::sync::join_all;
use crate::transfer::{Direction, Done, Steps};

/// Pieces of a range without data that are worked on at a time.
const SIDE_BY_SIDE: usize = 128;

/// A part of a range that lies in one cluster.
#[derive(Clone, Copy)]
struct Piece {
    index: u64,
    within: u64,
    len: u64,
}

impl Blob {
    /// Makes `len` bytes from byte `offset` on read zero. Where nothing is allocated and no parent has data,
    /// nothing is written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        let local = self.begin_write(offset, len)?;
        let shared = &self.opened.shared;
        all(self.pieces(offset, len).map(|piece| zero_piece(shared, &local, piece))).await
    }

    /// Says that `len` bytes from byte `offset` on hold nothing of use. Whole clusters of a thin blob without
    /// parent are freed, durably, and read zero; what lies in other clusters is passed to the device, and
    /// reads what the device says; what reads through to a parent stays.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn unmap(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        let local = self.begin_write(offset, len)?;
        let shared = &self.opened.shared;
        let size = shared.cluster_size.bytes();
        let (first, end) = (offset.div_ceil(size), (offset + len) / size);
        loop {
            shared.thawed().await;
            if !shared.thin.load(Ordering::Acquire) || !shared.is_without_parent() {
                return all(self.pieces(offset, len).map(|piece| unmap_piece(shared, &local, piece))).await;
            }
            if first >= end
                || self.on_md(async move |md, blob| md.unmap(&blob, first, end - first).await).await?
            {
                break;
            }
        }
        // What is left are the ends of the range, of clusters that are not all in it.
        let (head, tail) = match first <= end {
            true => (first * size - offset, offset + len - end * size),
            false => (len, 0),
        };
        let ends = self.pieces(offset, head).chain(self.pieces(offset + len - tail, tail));
        all(ends.map(|piece| unmap_piece(shared, &local, piece))).await
    }

    /// Makes everything durable that was written before, by anybody, and had succeeded. Goes on to its end if the
    /// future is dropped.
    ///
    /// # Errors
    /// The device fails: any write since the last flush may be lost, the maps of new clusters too. This and
    /// every later flush fails then, and the store refuses changes of its metadata until it is loaded again.
    pub async fn flush(&self) -> Result<(), BlobError> {
        self.check_open()?;
        let store = self.opened.shared.store.clone();
        let local = store.local()?;
        store.check_poison()?;
        // A task: a failure must be known whatever becomes of this future.
        let flush = spindle_reactor::spawn_local({
            let store = store.clone();
            async move { store.flush(&local).await }
        });
        flush.await.unwrap_or_else(|error| Err(store.panicked(&error)))
    }

    /// An error if the range is not to be read or written.
    pub(crate) fn check(&self, direction: Direction, offset: u64, len: u64) -> Result<(), BlobError> {
        let shared = &self.opened.shared;
        if direction == Direction::Write {
            if shared.store.read_only {
                return Err(BlobError::StoreReadOnly { store: shared.store.name.clone() });
            }
            if shared.read_only.load(Ordering::Acquire) {
                return Err(BlobError::ReadOnly { blob: shared.id });
            }
        }
        self.check_open()?;
        let unit = shared.store.io_unit;
        if (offset | len) & u64::from(unit - 1) != 0 {
            return Err(BlobError::Unaligned { blob: shared.id, offset, len, unit });
        }
        let size = shared.bytes();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(BlobError::OutOfRange { blob: shared.id, offset, len, size });
        }
        if shared.store.is_unloaded() {
            return Err(shared.store.gone());
        }
        Ok(())
    }

    fn begin_write(&self, offset: u64, len: u64) -> Result<Rc<Local>, BlobError> {
        self.check(Direction::Write, offset, len)?;
        self.opened.shared.store.local()
    }

    /// The byte of the device where a range lies, if it may be read or written at once because it is in one
    /// cluster that is known. Asked and used in one poll.
    #[inline]
    pub(crate) fn place_of(&self, direction: Direction, offset: u64, len: u64) -> Option<u64> {
        // A store that has open blobs is not unloaded.
        let place = || self.opened.shared.place_of(direction, offset, len);
        if self.opened.is_closed() { None } else { place() }
    }

    /// Reads or writes a range in one piece for each cluster.
    pub(crate) fn in_steps<'a>(
        &'a self,
        local: &'a Rc<Local>,
        direction: Direction,
        offset: u64,
        buffers: Buffers,
    ) -> Steps<'a> {
        match direction {
            Direction::Read => Box::pin(self.read_in_steps(local, offset, buffers)),
            Direction::Write => Box::pin(self.write_in_steps(local, offset, buffers)),
        }
    }

    async fn read_in_steps(&self, local: &Local, offset: u64, buffers: Buffers) -> Done {
        let shared = &self.opened.shared;
        let pieces = self.parts(offset, buffers).into_iter();
        joined(join_all(pieces.map(|(piece, part)| read_piece(shared, local, piece, part))).await)
    }

    async fn write_in_steps(&self, local: &Rc<Local>, offset: u64, buffers: Buffers) -> Done {
        let shared = &self.opened.shared;
        let pieces = self.parts(offset, buffers).into_iter();
        joined(join_all(pieces.map(|(piece, part)| write_piece(shared, local, piece, part))).await)
    }

    /// The memory of a range cut at cluster boundaries.
    fn parts(&self, offset: u64, mut buffers: Buffers) -> Vec<(Piece, Buffers)> {
        self.pieces(offset, buffers.len() as u64)
            .map(|piece| {
                let rest = buffers.split_off(piece.len as usize);
                (piece, std::mem::replace(&mut buffers, rest))
            })
            .collect()
    }

    /// A range cut at cluster boundaries.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let size = self.opened.shared.cluster_size;
        let (mut at, end) = (offset, offset + len);
        std::iter::from_fn(move || {
            let (index, within) = size.split(at);
            let len = (size.bytes() - within).min(end - at);
            at += len;
            (len > 0).then_some(Piece { index, within, len })
        })
    }
}

impl BlobShared {
    /// The byte of the device where a piece lies that is in this cluster.
    fn place(&self, cluster: u32, piece: Piece) -> u64 {
        self.start_of(cluster) + piece.within
    }

    /// See [`Blob::place_of`].
    #[inline]
    fn place_of(&self, direction: Direction, offset: u64, len: u64) -> Option<u64> {
        let whole_units = (offset | len) & self.unit_mask == 0;
        let inside = offset.checked_add(len)? <= self.bytes();
        let (index, within) = self.cluster_size.split(offset);
        let in_one = len > 0 && within + len <= self.cluster_size.bytes();
        if !(whole_units && inside && in_one) {
            return None;
        }
        let cluster = match (self.leaves.get(index), direction) {
            (Entry::Own(cluster), Direction::Write) if !self.keeps_writes_out() => cluster,
            (Entry::Own(cluster) | Entry::Inherited(Some(cluster)), Direction::Read) => cluster,
            _ => return None,
        };
        Some(self.start_of(cluster) + within)
    }

    /// Whether a write has to wait or to fail.
    #[inline]
    fn keeps_writes_out(&self) -> bool {
        self.is_frozen() || self.read_only.load(Ordering::Acquire) || self.store.read_only
    }

    /// Waits until writes are let in. An error if they are not any more, now that they are.
    async fn let_in(&self, piece: Piece) -> Result<(), BlobError> {
        self.thawed().await;
        self.check_in(piece)
    }

    /// An error if a write to the piece is not let in, frozen or not.
    fn check_in(&self, piece: Piece) -> Result<(), BlobError> {
        if self.store.is_unloaded() {
            return Err(self.store.gone());
        }
        if self.read_only.load(Ordering::Acquire) {
            return Err(BlobError::ReadOnly { blob: self.id });
        }
        let size = self.cluster_size.bytes();
        if piece.index >= self.clusters.load(Ordering::Acquire) {
            let offset = piece.index * size + piece.within;
            return Err(BlobError::OutOfRange { blob: self.id, offset, len: piece.len, size: self.bytes() });
        }
        Ok(())
    }
}

async fn write_piece(
    shared: &Arc<BlobShared>,
    local: &Rc<Local>,
    piece: Piece,
    mut buffers: Buffers,
) -> Done {
    loop {
        if shared.is_frozen() {
            Box::pin(shared.thawed()).await;
        }
        if let Err(error) = shared.check_in(piece) {
            return (Err(error), buffers);
        }
        // Looked up and submitted in one poll with the look at what keeps writes out.
        if let Entry::Own(cluster) = shared.leaves.get(piece.index) {
            let (result, buffers) = local.channel().write(shared.place(cluster, piece), buffers).await;
            return (result.map_err(BlobError::from), buffers);
        }
        let payload = Payload::Data(piece.within, buffers);
        let (result, back) = Box::pin(allocate(shared, local, piece.index, payload)).await;
        match result {
            Ok(Allocated::Retry) => buffers = back,
            Ok(Allocated::Done) => return (Ok(()), back),
            Err(error) => return (Err(error), back),
        }
    }
}

async fn zero_piece(shared: &Arc<BlobShared>, local: &Rc<Local>, piece: Piece) -> Result<(), BlobError> {
    loop {
        shared.let_in(piece).await?;
        match shared.source(piece.index) {
            Source::Cluster { cluster, own: true } => {
                return Ok(local.write_zeroes(shared.place(cluster, piece), piece.len).await?);
            }
            Source::Zeroes => return Ok(()),
            _ => {}
        }
        let payload = Payload::Zeroes(piece.within, piece.len);
        if let Allocated::Done = allocate(shared, local, piece.index, payload).await.0? {
            return Ok(());
        }
    }
}

async fn read_piece(shared: &BlobShared, local: &Local, piece: Piece, mut buffers: Buffers) -> Done {
    match shared.source(piece.index) {
        Source::Cluster { cluster, .. } => {
            let (result, buffers) = local.channel().read(shared.place(cluster, piece), buffers).await;
            (result.map_err(BlobError::from), buffers)
        }
        Source::Zeroes => {
            buffers.fill(0);
            (Ok(()), buffers)
        }
        Source::Missing(parent) => (Err(BlobError::MissingParent { blob: shared.id, parent }), buffers),
        Source::External(device) => {
            let channel = match local.external(&device) {
                Ok(channel) => channel,
                Err(source) => return (Err(shared.store.open_error(source)), buffers),
            };
            let start = piece.index * shared.cluster_size.bytes() + piece.within;
            Box::pin(read_external(&channel, start, buffers)).await
        }
    }
}

/// Reads from an external snapshot, zeroes beyond its end. Its blocks may be larger than the store's: what
/// is asked for is read with what surrounds it then.
async fn read_external(channel: &spindle_block::Channel, start: u64, mut buffers: Buffers) -> Done {
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

async fn unmap_piece(shared: &BlobShared, local: &Local, piece: Piece) -> Result<(), BlobError> {
    shared.let_in(piece).await?;
    if let Entry::Own(cluster) = shared.leaves.get(piece.index) {
        local.unmap(shared.place(cluster, piece), piece.len).await?;
    }
    Ok(())
}

/// Works on the pieces of a range, some side by side: it may be all of a huge blob.
async fn all<F>(mut pieces: impl Iterator<Item = F>) -> Result<(), BlobError>
where
    F: Future<Output = Result<(), BlobError>>,
{
    loop {
        let some: Vec<F> = pieces.by_ref().take(SIDE_BY_SIDE).collect();
        let last = some.len() < SIDE_BY_SIDE;
        join_all(some).await.into_iter().collect::<Result<(), BlobError>>()?;
        if last {
            return Ok(());
        }
        // Where there is nothing to do nobody has waited for anything.
        spindle_reactor::yield_now().await;
    }
}

/// The pieces of a range put together again; the first error is the range's.
fn joined(parts: Vec<Done>) -> Done {
    let mut result = Ok(());
    let mut buffers = Buffers::None;
    for (done, part) in parts {
        if result.is_ok() {
            result = done;
        }
        buffers.append(part);
    }
    (result, buffers)
}
