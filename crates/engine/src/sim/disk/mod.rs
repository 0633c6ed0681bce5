//! The fault model's disk: what a disk with a volatile write cache may do to whoever trusts it.
//!
//! A [`Disk`] holds a durable [`Image`] and, on top of it, the ordered log of writes not yet flushed.
//! Reads see the newest data; a flush makes the log durable; a crash keeps any part of the log, in any
//! order, torn at the atomic unit. Snapshots share pages, so they cost the same at every size.
//! Usable by itself: no engine, no world, any OS thread.

use std::io;

/// What an unmapped (discarded) range reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmapReads {
    /// Zeroes.
    #[default]
    Zero,
    /// A pattern that is neither the old data nor zero.
    Garbage,
}

/// What a disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes; a multiple of `block`.
    pub size: u64,
    /// Bytes per logical block: what offsets and lengths are multiples of.
    pub block: u32,
    /// Bytes written at once: a crash tears between units, never inside one. 512 or 4096.
    pub atomic_unit: u32,
    /// Whether writes wait in a volatile cache for a flush. Without it every write is durable at once.
    pub volatile_cache: bool,
    /// Whether discard is offered, and what a discarded range reads.
    pub discard: Option<UnmapReads>,
    /// After a failed flush, whether what it should have covered can no longer be made durable by a
    /// later flush (as Linux does: the pages are marked clean).
    pub failed_flush_loses: bool,
}

/// Bytes of a disk, copy-on-write: cloning costs one counter.
#[derive(Clone, Debug)]
pub struct Image(());

/// Everything about a disk at one moment: the durable image and the log on top. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct State(());

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Only what was flushed.
    LoseAll,
    /// Everything, as if flushed.
    KeepAll,
    /// Any subset of the unflushed atomic units, in any order.
    Random,
}

/// A kind of disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
    /// A zero-range.
    ZeroRange,
    /// A discard.
    Discard,
}

/// What an injected fault does to the operation it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails and changes nothing.
    Error,
    /// It fails after some of its atomic units took effect.
    TornError,
    /// A read answers with what stood there before the last flush.
    StaleRead,
    /// A write or flush answers success and does nothing.
    Lost,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of operation it hits.
    pub operation: Operation,
    /// Which one, counted from 1 = the next of its kind.
    pub nth: u64,
    /// How many in a row; `u64::MAX` for all from then on.
    pub times: u64,
    /// What happens.
    pub effect: Effect,
}

/// When the observer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the operation takes effect.
    Before(Operation),
    /// After it took effect, before the submitter knows.
    After(Operation),
}

/// A disk. Cloneable handle: clones are the same disk.
#[derive(Clone)]
pub struct Disk(());

impl DiskOptions {
    /// 512-byte blocks, torn at 512, volatile cache, discard reads zero, a failed flush loses.
    pub fn new(size: u64) -> DiskOptions {
        DiskOptions {
            size,
            block: 512,
            atomic_unit: 512,
            volatile_cache: true,
            discard: Some(UnmapReads::Zero),
            failed_flush_loses: true,
        }
    }
}

/// How many operations a disk served since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Zero-ranges.
    pub zero_ranges: u64,
    /// Discards.
    pub discards: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Faults that hit.
    pub faults: u64,
}

impl Image {
    /// `size` zero bytes.
    pub fn zeroed(size: u64) -> Image {
        todo!("{size}")
    }

    /// A copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Image {
        todo!("{}", bytes.len())
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Copies out. Panics past the end.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        todo!("{offset} {}", into.len())
    }

    /// Copies in; other clones keep what they had. Panics past the end.
    pub fn write(&mut self, offset: u64, from: &[u8]) {
        todo!("{offset} {}", from.len())
    }

    /// Makes a range zero. Panics past the end.
    pub fn zero(&mut self, offset: u64, length: u64) {
        todo!("{offset} {length}")
    }

    /// All bytes; for small images and for tools that want a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
}

impl State {
    /// What is on the medium for certain.
    pub fn durable(&self) -> &Image {
        todo!()
    }

    /// What reads see.
    pub fn visible(&self) -> &Image {
        todo!()
    }

    /// Writes not yet durable.
    pub fn unflushed(&self) -> usize {
        todo!()
    }

    /// The image after a crash now. `choose(n)` picks 0 to n - 1; any source will do: a seed, a world,
    /// an enumeration.
    pub fn crash(&self, crash: Crash, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        let _ = (crash, choose);
        todo!()
    }
}

impl Disk {
    /// A disk of zeroes. Panics if the sizes in `options` do not fit each other.
    pub fn new(options: DiskOptions) -> Disk {
        todo!("{options:?}")
    }

    /// A disk that holds `image`, all of it durable. `options.size` is taken from the image.
    pub fn from_image(image: Image, options: DiskOptions) -> Disk {
        let _ = image;
        todo!("{options:?}")
    }

    /// What the disk is like.
    pub fn options(&self) -> DiskOptions {
        todo!()
    }

    /// Reads the newest data.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        todo!("{offset} {}", into.len())
    }

    /// Writes into the cache.
    pub fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        todo!("{offset} {}", from.len())
    }

    /// Writes zeroes into the cache.
    pub fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        todo!("{offset} {length}")
    }

    /// Unmaps a range, in the cache too.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        todo!("{offset} {length}")
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) -> io::Result<()> {
        todo!()
    }

    /// Everything about the disk now.
    pub fn snapshot(&self) -> State {
        todo!()
    }

    /// The image after a crash now; see [`State::crash`].
    pub fn crash(&self, crash: Crash, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        self.snapshot().crash(crash, choose)
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        todo!("{fault:?}")
    }

    /// Forgets all faults to come.
    pub fn clear_faults(&self) {
        todo!()
    }

    /// Calls `observer` before and after every write, zero-range, discard and flush, with the disk as it
    /// is at that moment. The observer must not use this disk's handle: it is held.
    pub fn observe(&self, observer: impl FnMut(Moment, &State) + Send + 'static) {
        let _ = observer;
        todo!()
    }

    /// Removes the observer.
    pub fn unobserve(&self) {
        todo!()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        todo!()
    }
}
