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
use crate::transfer::{Direction, Done, Steps, Transfer};

/// A part of a range that lies in one cluster.
#[derive(Clone, Copy)]
struct Piece {
    index: u64,
    within: u64,
    len: u64,
}

impl Blob {
    /// Fills `buffers` from byte `offset` on and comes back with them. What was never written reads zero.
    ///
    /// Nothing happens before the first poll. Dropping the future afterwards detaches the request: its
    /// memory goes back to its pool when the device has returned it.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the device fails, or a parent is missing.
    #[inline]
    pub fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(self, Direction::Read, offset, buffers.into())
    }

    /// Stores `buffers` from byte `offset` on and comes back with them. When it has succeeded the data can be
    /// read back; it is durable after a later [`flush`](Self::flush). Each block of a write that a crash
    /// interrupts is old or new.
    ///
    /// Nothing happens before the first poll. Dropping the future afterwards detaches the request: each of
    /// its pieces may still be written.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the blob is read-only, the store is out of space
    /// ([`BlobError::OutOfSpace`]), or the device fails. Some of the range may have been written then.
    #[inline]
    pub fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(self, Direction::Write, offset, buffers.into())
    }

    /// Makes `len` bytes from byte `offset` on read zero. Where nothing is allocated and no parent has data,
    /// nothing is written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        let local = self.begin_write(offset, len)?;
        let shared = &self.opened.shared;
        let done = join_all(self.pieces(offset, len).map(|piece| zero_piece(shared, &local, piece))).await;
        done.into_iter().collect()
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
        let size = u64::from(shared.store.cluster_size);
        loop {
            shared.thawed().await;
            if !shared.thin.load(Ordering::Acquire) || !shared.is_without_parent() {
                let pieces = self.pieces(offset, len).map(|piece| unmap_piece(shared, &local, piece));
                return join_all(pieces).await.into_iter().collect();
            }
            let (first, end) = (offset.div_ceil(size), (offset + len) / size);
            if first >= end
                || self.on_md(async move |md, blob| md.unmap(&blob, first, end - first).await).await?
            {
                break;
            }
        }
        let partial = self.pieces(offset, len).filter(|piece| piece.len < size);
        join_all(partial.map(|piece| unmap_piece(shared, &local, piece))).await.into_iter().collect()
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

    /// An error if the range is not to be read.
    #[inline]
    fn check(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        self.check_open()?;
        let shared = &self.opened.shared;
        let unit = shared.store.io_unit;
        if (offset | len) & u64::from(unit - 1) != 0 {
            return Err(BlobError::Unaligned { blob: shared.id, offset, len, unit });
        }
        let size = shared.bytes();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(BlobError::OutOfRange { blob: shared.id, offset, len, size });
        }
        Ok(())
    }

    /// An error if the range is not to be written.
    #[inline]
    fn check_write(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        let shared = &self.opened.shared;
        if shared.store.read_only {
            return Err(BlobError::StoreReadOnly { store: shared.store.name.clone() });
        }
        if shared.read_only.load(Ordering::Acquire) {
            return Err(BlobError::ReadOnly { blob: shared.id });
        }
        self.check(offset, len)
    }

    fn begin_write(&self, offset: u64, len: u64) -> Result<Rc<Local>, BlobError> {
        self.check_write(offset, len)?;
        self.opened.shared.store.local()
    }

    /// The byte of the device where a range lies, if it is in one cluster that is known. Asked and used in one
    /// poll, with a request whose channel was had before.
    #[inline]
    pub(crate) fn place_of(
        &self,
        direction: Direction,
        offset: u64,
        len: u64,
    ) -> Result<Option<u64>, BlobError> {
        match direction {
            Direction::Read => self.check(offset, len)?,
            Direction::Write => self.check_write(offset, len)?,
        }
        let shared = &self.opened.shared;
        if shared.store.is_unloaded() {
            return Err(shared.store.gone());
        }
        let Some(piece) = self.single(offset, len) else { return Ok(None) };
        let frozen = direction == Direction::Write && shared.is_frozen();
        Ok(match (shared.leaves.get(piece.index), direction) {
            (Entry::Own(cluster), _) if !frozen => Some(shared.place(cluster, piece)),
            (Entry::Inherited(Some(cluster)), Direction::Read) => Some(shared.place(cluster, piece)),
            _ => None,
        })
    }

    /// Reads or writes a range in one piece for each cluster.
    #[cold]
    pub(crate) fn in_steps(&self, direction: Direction, offset: u64, buffers: Buffers) -> Steps<'_> {
        match direction {
            Direction::Read => Box::pin(self.read_in_steps(offset, buffers)),
            Direction::Write => Box::pin(self.write_in_steps(offset, buffers)),
        }
    }

    async fn read_in_steps(&self, offset: u64, buffers: Buffers) -> Done {
        let shared = &self.opened.shared;
        let local = match shared.store.local() {
            Ok(local) => local,
            Err(error) => return (Err(error), buffers),
        };
        let pieces = self.parts(offset, buffers).into_iter();
        joined(join_all(pieces.map(|(piece, part)| read_piece(shared, &local, piece, part))).await)
    }

    async fn write_in_steps(&self, offset: u64, buffers: Buffers) -> Done {
        let shared = &self.opened.shared;
        let local = match shared.store.local() {
            Ok(local) => local,
            Err(error) => return (Err(error), buffers),
        };
        let pieces = self.parts(offset, buffers).into_iter();
        joined(join_all(pieces.map(|(piece, part)| write_piece(shared, &local, piece, part))).await)
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

    /// A range that lies in one cluster, if it does.
    fn single(&self, offset: u64, len: u64) -> Option<Piece> {
        let size = u64::from(self.opened.shared.store.cluster_size);
        let index = offset / size;
        let within = offset - index * size;
        (len > 0 && within + len <= size).then_some(Piece { index, within, len })
    }

    /// A range cut at cluster boundaries.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let size = u64::from(self.opened.shared.store.cluster_size);
        let (mut at, end) = (offset, offset + len);
        std::iter::from_fn(move || {
            let (index, within) = (at / size, at % size);
            let len = (size - within).min(end - at);
            at += len;
            (len > 0).then_some(Piece { index, within, len })
        })
    }
}

impl BlobShared {
    /// The byte of the device where a piece lies that is in this cluster.
    fn place(&self, cluster: u32, piece: Piece) -> u64 {
        u64::from(cluster) * u64::from(self.store.cluster_size) + piece.within
    }
}

impl BlobShared {
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
        let size = u64::from(self.store.cluster_size);
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
            let start = piece.index * u64::from(shared.store.cluster_size) + piece.within;
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
    let (result, around) = channel.read(first, IoBuf::zeroed((end - first) as usize)).await;
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
