//! The disk itself: operations, cache, faults, observer.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::{Effect, Fault, Faults, Operation};
use super::image::{Image, PAGE, Page, Spare, pages};
use super::state::{Crash, Fill, NEVER, Piece, State};
use crate::rng::{Rng, mix};

/// What a discarded (unmapped) range reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmapReads {
    /// Zeroes.
    #[default]
    Zero,
    /// A pattern that is neither the old data nor zero.
    Garbage,
}

/// Properties of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes; a multiple of `block`.
    pub size: u64,
    /// Bytes per logical block, a power of two: offsets and lengths are multiples of it. 1 behaves as a file
    /// through the page cache.
    pub block: u32,
    /// Bytes written at once: a crash tears between units, never inside one. 512 or 4096.
    pub atomic_unit: u32,
    /// True if writes wait in a volatile cache for a flush. Without it every write is durable at once.
    pub volatile_cache: bool,
    /// Whether discard is supported, and what a discarded range reads.
    pub discard: Option<UnmapReads>,
    /// True if a failed flush decides for each unit that it should have covered whether it is durable or
    /// never will be, as on Linux, where the pages are marked clean. Reads still see it.
    pub failed_flush_loses: bool,
    /// Seed of the disk's own choices: what a torn error or a failed flush keeps.
    pub seed: u64,
}

impl DiskOptions {
    /// 512-byte blocks, torn at 512, volatile cache, discard reads zero, a failed flush loses, seed 0.
    pub fn new(size: u64) -> DiskOptions {
        DiskOptions {
            size,
            block: 512,
            atomic_unit: 512,
            volatile_cache: true,
            discard: Some(UnmapReads::Zero),
            failed_flush_loses: true,
            seed: 0,
        }
    }

    fn check(&self) {
        assert!(self.block.is_power_of_two(), "block of {} bytes is no power of two", self.block);
        assert!(matches!(self.atomic_unit, 512 | 4096), "atomic unit of {} bytes", self.atomic_unit);
        assert!(self.size.is_multiple_of(u64::from(self.block)), "{} bytes in {}s", self.size, self.block);
    }
}

/// A call of the observer: when, and about which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// True: before it takes effect. False: after, while the submitter does not know yet.
    pub before: bool,
    /// The operation: never [`Operation::Read`].
    pub operation: Operation,
    /// Byte offset of the range; 0 for a flush.
    pub offset: u64,
    /// Bytes; 0 for a flush.
    pub length: u64,
    /// Operations that were made to fail so far. Reads may still see what a failed flush lost.
    pub faults: u64,
}

/// Number of operations that a disk has served since it was made, including failed ones.
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
    /// Bytes written, zeroed ones not counted.
    pub bytes_written: u64,
    /// Number of faults that hit.
    pub faults: u64,
}

type Observer = Box<dyn FnMut(Moment, &State) + Send>;

/// A disk. Cloneable handle: clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Core>>);

struct Core {
    options: DiskOptions,
    state: State,
    spare: Spare,
    /// Memory for sorting the log in a flush.
    room: Vec<Piece>,
    faults: Faults,
    /// The contents that stale reads return: those when the fault was injected.
    stale: Option<Image>,
    observer: Option<Observer>,
    counters: Counters,
    rng: Rng,
    /// What a discarded range reads, if not zero; made on first use.
    garbage: Option<Arc<Page>>,
    /// The next write's number.
    next_write: u64,
    /// How many writes were acknowledged.
    acknowledged: u64,
}

/// The effect of a write-like operation, for the code shared by all three.
#[derive(Clone, Copy)]
enum Change<'a> {
    Bytes(&'a [u8]),
    Zero,
    Discard(UnmapReads),
}

/// A write that took effect and that its submitter does not know to be complete yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InCache(u64);

/// What a flush must cover: every write acknowledged before this was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlushTicket(u64);

impl Disk {
    /// A disk of zeroes. Panics if the sizes in `options` are inconsistent.
    pub fn new(options: DiskOptions) -> Disk {
        Disk::from_image(Image::zeroed(options.size), options)
    }

    /// A disk that holds `image`, all of it durable. The size is the image's; `options.size` is ignored.
    /// Panics if the sizes are inconsistent.
    pub fn from_image(image: Image, options: DiskOptions) -> Disk {
        Disk::from_state(State::new(image, options.atomic_unit), options)
    }

    /// A disk that continues from the state of another, as when a program is killed and the next one opens
    /// its disk: volatile writes count as acknowledged. Size and atomic unit are the state's. Panics if the
    /// sizes are inconsistent.
    pub fn from_state(mut state: State, options: DiskOptions) -> Disk {
        let size = state.visible().size();
        let options = DiskOptions { size, atomic_unit: state.atomic_unit, ..options };
        options.check();
        state.log.iter_mut().for_each(|piece| piece.acknowledged = 0);
        let next_write = state.log.iter().map(|piece| piece.write + 1).max().unwrap_or(0);
        Disk(Arc::new(Mutex::new(Core {
            options,
            state,
            spare: Spare::default(),
            room: Vec::new(),
            faults: Faults::default(),
            stale: None,
            observer: None,
            counters: Counters::default(),
            rng: Rng::new(mix(options.seed ^ 0xd15c)),
            garbage: None,
            next_write,
            acknowledged: 1,
        })))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // An observer that panicked leaves the disk between two operations: still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk's properties.
    pub fn options(&self) -> DiskOptions {
        self.core().options
    }

    /// Reads the newest data.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.core().read(offset, into)
    }

    /// Writes into the cache.
    pub fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut core = self.core();
        let write = core.change(Operation::Write, offset, from.len() as u64, Change::Bytes(from))?;
        core.acknowledge(write);
        Ok(())
    }

    /// Writes zeroes into the cache.
    pub fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut core = self.core();
        let write = core.change(Operation::ZeroRange, offset, length, Change::Zero)?;
        core.acknowledge(write);
        Ok(())
    }

    /// Unmaps a range, in the cache too. An error of kind [`io::ErrorKind::Unsupported`] if the disk does not
    /// support it.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let write = self.apply_discard(offset, length)?;
        self.acknowledge(write);
        Ok(())
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) -> io::Result<()> {
        self.core().flush(NEVER)
    }

    /// Applies a write; [`acknowledge`](Self::acknowledge) follows when its submitter is told.
    pub(crate) fn apply_write(&self, offset: u64, from: &[u8]) -> io::Result<InCache> {
        self.core().change(Operation::Write, offset, from.len() as u64, Change::Bytes(from))
    }

    /// As [`apply_write`](Self::apply_write), for a zero-range.
    pub(crate) fn apply_zero_range(&self, offset: u64, length: u64) -> io::Result<InCache> {
        self.core().change(Operation::ZeroRange, offset, length, Change::Zero)
    }

    /// As [`apply_write`](Self::apply_write), for a discard.
    pub(crate) fn apply_discard(&self, offset: u64, length: u64) -> io::Result<InCache> {
        let mut core = self.core();
        let Some(reads) = core.options.discard else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this simulated disk offers no discard"));
        };
        core.change(Operation::Discard, offset, length, Change::Discard(reads))
    }

    /// Notes that the submitter of `write` knows of its completion: from now on a flush covers it.
    pub(crate) fn acknowledge(&self, write: InCache) {
        self.core().acknowledge(write);
    }

    /// The set of writes that a flush submitted now must cover.
    pub(crate) fn flush_ticket(&self) -> FlushTicket {
        FlushTicket(self.core().acknowledged)
    }

    /// Applies a flush. It covers no more than its ticket: a write under way when the flush was submitted
    /// stays volatile.
    pub(crate) fn apply_flush(&self, ticket: FlushTicket) -> io::Result<()> {
        self.core().flush(ticket.0)
    }

    /// The disk's complete present state.
    pub fn snapshot(&self) -> State {
        self.core().state.clone()
    }

    /// The image after a crash now; see [`State::crash`].
    pub fn crash(&self, crash: Crash, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        self.snapshot().crash(crash, choose)
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        let mut core = self.core();
        if fault.effect == Effect::Stale {
            core.stale = Some(core.state.visible.clone());
        }
        core.faults.add(fault);
    }

    /// Removes all pending faults.
    pub fn clear_faults(&self) {
        self.core().faults.clear();
    }

    /// Calls `observer` before and after every write, zero-range, discard and flush, with the disk's state at
    /// that moment. Replaces the previous observer. The observer must not use a handle of this disk, nor of
    /// the world that drives it: both are locked, and it gets the state as an argument.
    pub fn observe(&self, observer: impl FnMut(Moment, &State) + Send + 'static) {
        self.core().observer = Some(Box::new(observer));
    }

    /// Removes the observer.
    pub fn unobserve(&self) {
        self.core().observer = None;
    }

    /// Number of operations so far.
    pub fn counters(&self) -> Counters {
        self.core().counters
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core();
        write!(f, "Disk({:?}, {:?})", core.state, core.counters)
    }
}

impl Core {
    fn check(&self, operation: Operation, offset: u64, length: u64) -> io::Result<()> {
        let block = u64::from(self.options.block);
        let (kind, what) = if !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
            (io::ErrorKind::InvalidInput, "is not a multiple of the block size")
        } else if offset.checked_add(length).is_none_or(|end| end > self.options.size) {
            (io::ErrorKind::InvalidInput, "reaches past the end of the disk")
        } else {
            return Ok(());
        };
        let size = self.options.size;
        let message = format!("{operation:?} of {length} bytes at {offset} {what} ({block} of {size})");
        Err(io::Error::new(kind, message))
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(Operation::Read, offset, into.len() as u64)?;
        self.counters.reads += 1;
        self.counters.bytes_read += into.len() as u64;
        let effect = self.hit(Operation::Read);
        match (effect, &self.stale) {
            (Some(Effect::Error | Effect::TornError), _) => return Err(injected()),
            (Some(Effect::Stale), Some(stale)) => stale.read(offset, into),
            _ => self.state.visible.read(offset, into),
        }
        Ok(())
    }

    fn hit(&mut self, operation: Operation) -> Option<Effect> {
        let effect = self.faults.hit(operation);
        self.counters.faults += u64::from(effect.is_some());
        effect
    }

    fn change(
        &mut self,
        operation: Operation,
        offset: u64,
        length: u64,
        change: Change<'_>,
    ) -> io::Result<InCache> {
        self.check(operation, offset, length)?;
        match operation {
            Operation::Write => {
                self.counters.writes += 1;
                self.counters.bytes_written += length;
            }
            Operation::ZeroRange => self.counters.zero_ranges += 1,
            _ => self.counters.discards += 1,
        }
        let write = InCache(self.next_write);
        self.next_write += 1;
        let moment = Moment { before: true, operation, offset, length, faults: self.counters.faults };
        self.tell(moment);
        let result = match self.hit(operation) {
            Some(Effect::Error) => Err(injected()),
            Some(Effect::TornError) => {
                self.apply_torn(write, offset, length, change);
                self.acknowledge(write);
                Err(injected())
            }
            Some(Effect::Lost) => Ok(write),
            Some(Effect::Stale) | None => {
                self.apply(write, offset, length, change);
                Ok(write)
            }
        };
        if !self.options.volatile_cache {
            self.state.settle(&mut self.spare);
        }
        self.tell(Moment { before: false, faults: self.counters.faults, ..moment });
        result
    }

    /// Puts a change into the cache: one piece for each page of data, one for a whole range otherwise.
    fn apply(&mut self, write: InCache, offset: u64, length: u64, change: Change<'_>) {
        let fill = match change {
            Change::Bytes(bytes) => return self.apply_bytes(write, offset, bytes),
            Change::Zero | Change::Discard(UnmapReads::Zero) => Fill::Zero,
            Change::Discard(UnmapReads::Garbage) => Fill::Pattern(self.garbage()),
        };
        if length > 0 {
            let piece = Piece { write: write.0, offset, length, fill, acknowledged: NEVER };
            self.state.push(piece, &mut self.spare);
        }
    }

    fn garbage(&mut self) -> Arc<Page> {
        let rng = &mut self.rng;
        // Never zero, so that a reader that takes it for a hole is detected.
        let page = || Arc::new(std::array::from_fn(|_| 0xa0 | (rng.next_u64() as u8 & 0x0f)));
        Arc::clone(self.garbage.get_or_insert_with(page))
    }

    fn apply_bytes(&mut self, write: InCache, offset: u64, mut bytes: &[u8]) {
        for (index, start, end) in pages(offset, bytes.len() as u64) {
            let (now, later) = bytes.split_at(end - start);
            bytes = later;
            self.state.visible.patch(index, start, now, &mut self.spare);
            let page = self.state.visible.page(index).expect("patching made the page");
            self.state.log.push(Piece {
                write: write.0,
                offset: index * PAGE as u64 + start as u64,
                length: (end - start) as u64,
                fill: Fill::Page(Arc::clone(page)),
                acknowledged: NEVER,
            });
        }
    }

    /// Puts some of a change's atomic units into the cache.
    fn apply_torn(&mut self, write: InCache, offset: u64, length: u64, change: Change<'_>) {
        let unit = u64::from(self.options.atomic_unit);
        let mut at = offset;
        while at < offset + length {
            let stop = ((at / unit + 1) * unit).min(offset + length);
            if self.rng.below(2) == 1 {
                let part = match change {
                    Change::Bytes(b) => Change::Bytes(&b[(at - offset) as usize..(stop - offset) as usize]),
                    other => other,
                };
                self.apply(write, at, stop - at, part);
            }
            at = stop;
        }
    }

    fn acknowledge(&mut self, write: InCache) {
        for piece in self.state.log.iter_mut().rev().take_while(|p| p.write >= write.0) {
            if piece.write == write.0 {
                piece.acknowledged = self.acknowledged;
            }
        }
        self.acknowledged += 1;
    }

    fn flush(&mut self, ticket: u64) -> io::Result<()> {
        self.counters.flushes += 1;
        let moment = Moment {
            before: true,
            operation: Operation::Flush,
            offset: 0,
            length: 0,
            faults: self.counters.faults,
        };
        self.tell(moment);
        let result = match self.hit(Operation::Flush) {
            Some(Effect::Error | Effect::TornError) => {
                if self.options.failed_flush_loses {
                    let rng = &mut self.rng;
                    self.state.abandon(&mut |n| rng.below(n));
                }
                Err(injected())
            }
            Some(Effect::Lost) => Ok(()),
            Some(Effect::Stale) | None => {
                self.state.flush(ticket, &mut self.room, &mut self.spare);
                Ok(())
            }
        };
        self.tell(Moment { before: false, faults: self.counters.faults, ..moment });
        result
    }

    fn tell(&mut self, moment: Moment) {
        if let Some(observer) = &mut self.observer {
            observer(moment, &self.state);
        }
    }
}

fn injected() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::test_runner::Config as ProptestConfig;

    use super::{Crash, Disk, DiskOptions, Image, InCache, Rng};

    const UNITS: usize = 12;

    /// A step of a test: the submitters of operations learn of the completion later than it takes effect.
    #[derive(Debug, Clone)]
    enum Step {
        /// A write, zero-range or discard takes effect: operation, first unit, number of units.
        Apply(u8, usize, usize),
        /// The submitter of an operation in flight learns of its completion.
        Tell(usize),
        /// A flush is submitted.
        Submit,
        /// The flush submitted last takes effect.
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8u8, 0..UNITS, 1..5usize).prop_map(|(kind, at, count)| Step::Apply(kind, at, count)),
            2 => (0..8usize).prop_map(Step::Tell),
            1 => Just(Step::Submit),
            1 => Just(Step::Flush),
        ]
    }

    /// The values that one unit may hold: those since the last one that a flush covered, oldest first, each
    /// with the number of its write.
    type History = Vec<(u64, u8)>;

    fn units(image: &Image) -> Vec<u8> {
        image.to_bytes().chunks(512).map(|unit| unit[0]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn overlapping_writes_become_durable_in_the_order_in_which_they_become_visible(
            steps in proptest::collection::vec(step(), 1..40), seed: u64
        ) {
            let disk = Disk::new(DiskOptions::new(UNITS as u64 * 512));
            let mut histories: Vec<History> = vec![vec![(0, 0)]; UNITS];
            let mut under_way: Vec<(u64, InCache)> = Vec::new();
            let (mut told, mut ticket) = (BTreeSet::new(), None);
            for (number, step) in (1u64..).zip(steps) {
                match step {
                    Step::Apply(kind, at, count) => {
                        let (start, count) = (at as u64 * 512, count.min(UNITS - at));
                        let (value, length) = (if kind < 2 { 0 } else { number as u8 }, count as u64 * 512);
                        let write = match kind {
                            0 => disk.apply_zero_range(start, length),
                            1 => disk.apply_discard(start, length),
                            _ => disk.apply_write(start, &vec![value; length as usize]),
                        };
                        under_way.push((number, write.unwrap()));
                        histories[at..at + count].iter_mut().for_each(|unit| unit.push((number, value)));
                    }
                    Step::Tell(which) if !under_way.is_empty() => {
                        let (number, write) = under_way.remove(which % under_way.len());
                        disk.acknowledge(write);
                        told.insert(number);
                    }
                    Step::Tell(_) => {}
                    Step::Submit => ticket = Some((disk.flush_ticket(), told.clone())),
                    Step::Flush => {
                        let Some((ticket, covered)) = ticket.take() else { continue };
                        disk.apply_flush(ticket).unwrap();
                        for unit in &mut histories {
                            let last = unit.iter().rposition(|(number, _)| covered.contains(number));
                            unit.drain(..last.unwrap_or(0));
                        }
                    }
                }
                let (visible, mut rng) = (units(disk.snapshot().visible()), Rng::new(seed ^ number));
                let durable = units(&disk.crash(Crash::LoseAll, &mut |_| 0));
                let kept = units(&disk.crash(Crash::KeepAll, &mut |_| 0));
                let random = units(&disk.crash(Crash::Random, &mut |n| rng.below(n)));
                prop_assert_eq!(&kept, &visible);
                for (at, unit) in histories.iter().enumerate() {
                    prop_assert_eq!(visible[at], unit[unit.len() - 1].1, "unit {} as read", at);
                    prop_assert_eq!(durable[at], unit[0].1, "unit {} as flushed", at);
                    prop_assert!(unit.iter().any(|(_, value)| *value == random[at]), "unit {at} after a crash");
                }
            }
            disk.flush().unwrap();
            let state = disk.snapshot();
            if under_way.is_empty() {
                prop_assert!(state.durable() == state.visible());
            }
        }
    }
}
