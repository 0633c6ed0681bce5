//! The shape of a block device: what its users must respect and what they may rely on.
//!
//! A [`Geometry`] is a plain checked value, a copy of the device's shape at the time of the call. Only the
//! number of blocks may change ([`CurrentGeometry`]). `boundary` and `depth` are hints; the rest is
//! guaranteed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Operation;

/// Largest block size accepted: larger than any disk's, small enough for a bounce buffer.
const MAX_BLOCK_SIZE: u32 = 64 * 1024;

/// A geometry that no device can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The block size is not one of 512, 1024, ... 65536.
    #[error("block size {0} is not a power of two from 512 to 65536; 512 and 4096 are the usual ones")]
    BlockSize(u32),
    /// The device cannot be reached in blocks this small.
    #[error("blocks of {wanted} bytes are smaller than the device's own, {needed}; ask for {needed} or more")]
    BlockTooSmall {
        /// Bytes asked for.
        wanted: u32,
        /// The smallest that works.
        needed: u32,
    },
    /// A part that its device does not have.
    #[error("{blocks} blocks from block {from} on reach beyond the device, which has {of}")]
    Beyond {
        /// First block asked for.
        from: u64,
        /// Blocks asked for.
        blocks: u64,
        /// Blocks there are.
        of: u64,
    },
    /// A device without blocks.
    #[error("a block device needs at least one block")]
    Empty,
    /// More bytes than a signed 64-bit file offset can address.
    #[error("{blocks} blocks of {block_size} bytes exceed the largest byte offset, 2^63 - 1")]
    TooLarge {
        /// Blocks asked for.
        blocks: u64,
        /// Bytes in each.
        block_size: u32,
    },
    /// The size in bytes is not a whole number of blocks.
    #[error("{bytes} bytes are not a whole number of {block_size}-byte blocks")]
    Ragged {
        /// Size asked for.
        bytes: u64,
        /// Bytes in a block.
        block_size: u32,
    },
    /// The atomic unit is not a whole number of blocks.
    #[error("atomic unit {0} is not a power of two of at least one block")]
    AtomicUnit(u32),
    /// The memory for transfers that are not aligned does not hold two blocks.
    #[error("{bytes} bytes of bounce memory hold fewer than two blocks of {block_size} bytes; give more")]
    BounceTooSmall {
        /// Bytes given.
        bytes: usize,
        /// Bytes in a block.
        block_size: u32,
    },
    /// No transfer would be small enough.
    #[error("the largest transfer must hold at least one block, not 0")]
    MaxTransfer,
    /// No unmap, zeroing or copy would be small enough.
    #[error("the largest {0} must hold at least one block, not 0")]
    MaxOf(Operation),
    /// No write would be whole.
    #[error("a write unit has at least one block, not 0")]
    WriteUnit,
    /// The largest transfer is smaller than what must be written at once.
    #[error("the largest transfer, {most} blocks, does not hold a write unit of {unit} blocks")]
    UnitTooLarge {
        /// Blocks of the largest transfer.
        most: u32,
        /// Blocks of a unit.
        unit: u32,
    },
    /// The memory of one transfer does not hold what must be moved at once.
    #[error("{runs} runs of {bytes} bytes of memory in a transfer do not hold {needed} bytes; allow more")]
    SegmentsTooSmall {
        /// Runs of memory in a transfer.
        runs: u32,
        /// Bytes of a run.
        bytes: u32,
        /// Bytes of a block, or of a write unit.
        needed: u64,
    },
    /// A part of a device that would begin within one of its write units.
    #[error("block {from} lies within a write unit of {unit} blocks; let the part begin at a multiple")]
    WithinUnit {
        /// First block asked for.
        from: u64,
        /// Blocks of a unit.
        unit: u32,
    },
}

/// Runs of memory in one transfer at most, where runs are limited in length: the table remembers where it cut
/// each.
const MOST_CUT_RUNS: u32 = 64;

/// The shape of a device and its guarantees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    blocks: u64,
    block_shift: u32,
    boundary: u32,
    atomic_unit: u32,
    max_transfer: u32,
    write_unit: u32,
    max_segments: u32,
    max_segment_bytes: u32,
    max_unmap: u32,
    max_write_zeroes: u32,
    max_copy: u32,
    depth: u32,
    volatile_cache: bool,
    unmap_reads_zero: bool,
    writable: bool,
    cuts_at_boundary: bool,
}

impl Geometry {
    /// A writable device of `blocks` blocks of `block_size` bytes: no volatile cache, no boundary, no
    /// transfer limit, atomic in one block, contents of unmapped blocks undefined.
    ///
    /// # Errors
    /// A block size that is not a power of two from 512 to 65536, no blocks, or more than 2^63 - 1 bytes.
    pub fn new(block_size: u32, blocks: u64) -> Result<Geometry, GeometryError> {
        if !block_size.is_power_of_two() || !(512..=MAX_BLOCK_SIZE).contains(&block_size) {
            return Err(GeometryError::BlockSize(block_size));
        }
        if blocks == 0 {
            return Err(GeometryError::Empty);
        }
        match blocks.checked_mul(u64::from(block_size)) {
            Some(bytes) if i64::try_from(bytes).is_ok() => {}
            _ => return Err(GeometryError::TooLarge { blocks, block_size }),
        }
        Ok(Geometry {
            blocks,
            block_shift: block_size.trailing_zeros(),
            boundary: 0,
            atomic_unit: block_size,
            max_transfer: u32::MAX,
            write_unit: 1,
            max_segments: u32::MAX,
            max_segment_bytes: u32::MAX,
            max_unmap: u32::MAX,
            max_write_zeroes: u32::MAX,
            max_copy: u32::MAX,
            depth: u32::MAX,
            volatile_cache: false,
            unmap_reads_zero: false,
            writable: true,
            cuts_at_boundary: false,
        })
    }

    /// The same from a size in bytes.
    ///
    /// # Errors
    /// As [`new`](Self::new), and a size that is not a whole number of blocks.
    pub fn of_bytes(block_size: u32, bytes: u64) -> Result<Geometry, GeometryError> {
        if block_size != 0 && !bytes.is_multiple_of(u64::from(block_size)) {
            return Err(GeometryError::Ragged { bytes, block_size });
        }
        Geometry::new(block_size, bytes.checked_div(u64::from(block_size)).unwrap_or(0))
    }

    /// Sets the boundary, in blocks, that a transfer should not cross; 0 is none.
    #[must_use]
    pub fn with_boundary(self, blocks: u32) -> Geometry {
        Geometry { boundary: blocks, ..self }
    }

    /// Sets whether no transfer that reaches the device crosses the boundary: the lane table cuts those that do.
    #[must_use]
    pub fn with_cuts_at_boundary(self, cuts: bool) -> Geometry {
        Geometry { cuts_at_boundary: cuts, ..self }
    }

    /// Sets how many bytes, aligned to their own size, a write replaces all or nothing across a power cut.
    ///
    /// # Errors
    /// Not a power of two, or less than a block.
    pub fn with_atomic_unit(self, bytes: u32) -> Result<Geometry, GeometryError> {
        if !bytes.is_power_of_two() || bytes < self.block_size() {
            return Err(GeometryError::AtomicUnit(bytes));
        }
        Ok(Geometry { atomic_unit: bytes, ..self })
    }

    /// Sets the largest transfer, in blocks. The lane table cuts larger reads, writes and comparisons into
    /// pieces, in front of the device's lanes.
    ///
    /// # Errors
    /// Zero blocks, or fewer than a [write unit](Self::with_write_unit) has.
    pub fn with_max_transfer(self, blocks: u32) -> Result<Geometry, GeometryError> {
        if blocks == 0 {
            return Err(GeometryError::MaxTransfer);
        }
        Geometry { max_transfer: blocks, ..self }.able_to_write()
    }

    /// Sets how many blocks are written at once, from a multiple of that number on. The lane table cuts writes
    /// at each multiple, instead of at the boundary, and refuses those that begin or end between two
    /// ([`IoErrorKind::WriteUnit`](crate::IoErrorKind::WriteUnit)). Blocks after the last whole unit cannot be
    /// written.
    ///
    /// # Errors
    /// Zero blocks, more than the largest transfer has, or more than the largest memory of a transfer holds.
    pub fn with_write_unit(self, blocks: u32) -> Result<Geometry, GeometryError> {
        if blocks == 0 {
            return Err(GeometryError::WriteUnit);
        }
        Geometry { write_unit: blocks, ..self }.able_to_write()
    }

    /// Sets how many runs of memory a transfer has at most, and how many bytes each; `u32::MAX` is no limit. The
    /// lane table cuts transfers with more, and longer runs. Where their length is limited, there are never more
    /// than 64.
    ///
    /// # Errors
    /// Together less than a block, or less than a [write unit](Self::with_write_unit).
    pub fn with_max_segments(self, runs: u32, bytes: u32) -> Result<Geometry, GeometryError> {
        let max_segments = if bytes == u32::MAX { runs } else { runs.min(MOST_CUT_RUNS) };
        Geometry { max_segments, max_segment_bytes: bytes, ..self }.able_to_write()
    }

    /// Sets the most blocks of an unmap; `u32::MAX` is no limit. The lane table cuts those that are larger.
    ///
    /// # Errors
    /// Zero blocks.
    pub fn with_max_unmap(self, blocks: u32) -> Result<Geometry, GeometryError> {
        not_zero(Operation::Unmap, blocks).map(|max_unmap| Geometry { max_unmap, ..self })
    }

    /// Sets the most blocks that a device zeroes at once; `u32::MAX` is no limit. The lane table cuts larger requests.
    /// Without effect on a device that does not support the operation: zeroes are then written, in transfers.
    ///
    /// # Errors
    /// Zero blocks.
    pub fn with_max_write_zeroes(self, blocks: u32) -> Result<Geometry, GeometryError> {
        let most = not_zero(Operation::WriteZeroes, blocks);
        most.map(|max_write_zeroes| Geometry { max_write_zeroes, ..self })
    }

    /// Sets the most blocks that a device copies at once; `u32::MAX` is no limit. The lane table cuts larger requests.
    /// Without effect on a device that does not support the operation, as above.
    ///
    /// # Errors
    /// Zero blocks.
    pub fn with_max_copy(self, blocks: u32) -> Result<Geometry, GeometryError> {
        not_zero(Operation::Copy, blocks).map(|max_copy| Geometry { max_copy, ..self })
    }

    /// Checks that a write unit fits into a transfer.
    fn able_to_write(self) -> Result<Geometry, GeometryError> {
        if self.write_unit > self.max_transfer {
            return Err(GeometryError::UnitTooLarge { most: self.max_transfer, unit: self.write_unit });
        }
        let (runs, bytes) = (self.max_segments, self.max_segment_bytes);
        let needed = u64::from(self.write_unit) << self.block_shift;
        if u64::from(runs) * u64::from(bytes) < needed {
            return Err(GeometryError::SegmentsTooSmall { runs, bytes, needed });
        }
        Ok(self)
    }

    /// Sets how many requests a lane takes before it answers [`Full`](crate::Submit::Full).
    #[must_use]
    pub fn with_depth(self, requests: u32) -> Geometry {
        Geometry { depth: requests, ..self }
    }

    /// Sets whether a completed write may be lost at a power cut until a flush has completed.
    #[must_use]
    pub fn with_volatile_cache(self, volatile: bool) -> Geometry {
        Geometry { volatile_cache: volatile, ..self }
    }

    /// Sets whether unmapped blocks read as zeroes.
    #[must_use]
    pub fn with_unmap_reads_zero(self, zero: bool) -> Geometry {
        Geometry { unmap_reads_zero: zero, ..self }
    }

    /// Sets whether requests may change data.
    #[must_use]
    pub fn with_writable(self, writable: bool) -> Geometry {
        Geometry { writable, ..self }
    }

    /// The shape of a part of `blocks` blocks from block `from` on. A boundary that the part does not begin at is
    /// left to the device below, which cuts there itself.
    ///
    /// # Errors
    /// No blocks, blocks that the device does not have, or a first block within a write unit.
    pub(crate) fn part(self, from: u64, blocks: u64) -> Result<Geometry, GeometryError> {
        if !self.contains(from, blocks) {
            return Err(GeometryError::Beyond { from, blocks, of: self.blocks });
        }
        if !from.is_multiple_of(u64::from(self.write_unit)) {
            return Err(GeometryError::WithinUnit { from, unit: self.write_unit });
        }
        let part = self.with_blocks(blocks)?;
        Ok(match from.checked_rem(u64::from(self.boundary)) {
            Some(0) | None => part,
            Some(_) => Geometry { boundary: 0, cuts_at_boundary: false, ..part },
        })
    }

    /// The same device with another number of blocks (a part of one, or a grown one).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_blocks(self, blocks: u64) -> Result<Geometry, GeometryError> {
        Geometry::new(self.block_size(), blocks)?;
        Ok(Geometry { blocks, ..self })
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// The base-two logarithm of the block size.
    pub fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// The boundary, in blocks, that a transfer should not cross; 0 is none.
    pub fn boundary(&self) -> u32 {
        self.boundary
    }

    /// True if no transfer that reaches the device crosses the boundary.
    pub fn cuts_at_boundary(&self) -> bool {
        self.cuts_at_boundary
    }

    /// Bytes, aligned to their own size, that a write replaces all or nothing across a power cut.
    pub fn atomic_unit(&self) -> u32 {
        self.atomic_unit
    }

    /// The largest transfer that reaches the device, in blocks; `u32::MAX` if it sets no limit.
    pub fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    /// Blocks that are written at once, from a multiple of that number on; 1 if any may be.
    pub fn write_unit(&self) -> u32 {
        self.write_unit
    }

    /// Runs of memory in a transfer that reaches the device; `u32::MAX` if it sets no limit.
    pub fn max_segments(&self) -> u32 {
        self.max_segments
    }

    /// Bytes of such a run; `u32::MAX` if it sets no limit.
    pub fn max_segment_bytes(&self) -> u32 {
        self.max_segment_bytes
    }

    /// The most blocks of an unmap that reaches the device; `u32::MAX` if it sets no limit.
    pub fn max_unmap(&self) -> u32 {
        self.max_unmap
    }

    /// The most blocks that the device zeroes at once; `u32::MAX` if it sets no limit.
    pub fn max_write_zeroes(&self) -> u32 {
        self.max_write_zeroes
    }

    /// The most blocks that the device copies at once; `u32::MAX` if it sets no limit.
    pub fn max_copy(&self) -> u32 {
        self.max_copy
    }

    /// The most blocks of a request that reaches the device; `u32::MAX` if it sets no limit for the operation.
    pub fn most_of(&self, operation: Operation) -> u32 {
        match operation {
            Operation::Read | Operation::Write | Operation::Compare => self.max_transfer,
            Operation::Unmap => self.max_unmap,
            Operation::WriteZeroes => self.max_write_zeroes,
            Operation::Copy => self.max_copy,
            _ => u32::MAX,
        }
    }

    /// Requests that a lane takes before it answers `Full`; `u32::MAX` if it sets no limit.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// True if a completed write may be lost at a power cut until a flush completed.
    pub fn volatile_cache(&self) -> bool {
        self.volatile_cache
    }

    /// True if unmapped blocks read as zeroes.
    pub fn unmap_reads_zero(&self) -> bool {
        self.unmap_reads_zero
    }

    /// False if only reading is allowed.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// True if `count` blocks from block `start` lie inside the device.
    pub fn contains(&self, start: u64, count: u64) -> bool {
        count <= self.blocks && start <= self.blocks - count
    }
}

/// A limit of blocks that some requests can keep.
fn not_zero(operation: Operation, blocks: u32) -> Result<u32, GeometryError> {
    if blocks == 0 { Err(GeometryError::MaxOf(operation)) } else { Ok(blocks) }
}

/// The geometry of a device whose number of blocks may change; readable from any thread.
#[derive(Debug)]
pub struct CurrentGeometry {
    fixed: Geometry,
    blocks: AtomicU64,
}

impl CurrentGeometry {
    /// Starts as `geometry`.
    pub fn new(geometry: Geometry) -> CurrentGeometry {
        CurrentGeometry { blocks: AtomicU64::new(geometry.blocks), fixed: geometry }
    }

    /// As it is now.
    #[inline]
    pub fn get(&self) -> Geometry {
        Geometry { blocks: self.blocks.load(Ordering::Acquire), ..self.fixed }
    }

    /// Changes the number of blocks. Call [`DeviceState::resized`](crate::DeviceState::resized) afterwards to
    /// tell the lanes.
    ///
    /// # Errors
    /// As [`Geometry::new`]; nothing has changed then.
    pub fn set_blocks(&self, blocks: u64) -> Result<(), GeometryError> {
        self.fixed.with_blocks(blocks)?;
        self.blocks.store(blocks, Ordering::Release);
        Ok(())
    }
}

impl From<Geometry> for CurrentGeometry {
    fn from(geometry: Geometry) -> CurrentGeometry {
        CurrentGeometry::new(geometry)
    }
}
