//! Which requests must be cut in front of a lane: transfers larger than its device takes, across its boundary or its
//! write unit, or in more or longer runs of memory than it takes; unmaps, zeroing and copies of more blocks than it takes.
//!
//! Part of the lane's state. The pieces come to the lane as separate requests: gate, ranges, limits and statistics
//! see them, as in SPDK, and not the whole. The whole waits for them with the requests that were split. Requests
//! for a lane whose device sets no limit never come here.

use spindle_mem::{Buffers, IoBuf};

use crate::{Geometry, Io, IoErrorKind, Operation};

/// The runs of memory that a device takes in one transfer.
#[derive(Clone, Copy)]
struct Runs {
    most: u32,
    bytes: u64,
}

/// Operations on ranges without data, each with a limit of its own.
const RANGES: [Operation; 3] = [Operation::Unmap, Operation::WriteZeroes, Operation::Copy];

/// The largest pieces that a device takes.
#[derive(Clone, Copy)]
pub(crate) struct Cutting {
    most: u64,
    /// Blocks of an unmap, of zeroing and of a copy.
    ranges: [u64; 3],
    /// 0 for none.
    boundary: u64,
    /// 1 for none. For writes it stands in place of the boundary.
    write_unit: u64,
    runs: Option<Runs>,
    block_shift: u32,
}

/// What to do with a request before its lane gets it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passes,
    Cut,
    Refused(IoErrorKind),
}

impl Cutting {
    /// None if the device takes any transfer.
    pub(crate) fn of(geometry: &Geometry) -> Option<Cutting> {
        let boundary = if geometry.cuts_at_boundary() { u64::from(geometry.boundary()) } else { 0 };
        let (most, bytes) = (geometry.max_segments(), geometry.max_segment_bytes());
        let cutting = Cutting {
            most: u64::from(geometry.max_transfer()),
            ranges: RANGES.map(|operation| u64::from(geometry.most_of(operation))),
            boundary,
            write_unit: u64::from(geometry.write_unit()),
            runs: (most != u32::MAX || bytes != u32::MAX).then_some(Runs { most, bytes: u64::from(bytes) }),
            block_shift: geometry.block_shift(),
        };
        let whole = geometry.max_transfer() == u32::MAX && boundary == 0;
        let ranges = cutting.ranges.iter().any(|most| *most != u64::from(u32::MAX));
        (!whole || ranges || cutting.write_unit > 1 || cutting.runs.is_some()).then_some(cutting)
    }

    /// Blocks of the piece that begins at block `start`, of `left` that are left: 0 if none can be made. `memory` is
    /// the memory from there on.
    fn piece_in(&self, operation: Operation, start: u64, left: u64, memory: &Memory<'_>) -> u64 {
        let unit = if operation == Operation::Write { self.write_unit } else { 1 };
        let boundary = if unit > 1 { unit } else { self.boundary };
        let most = left.min(self.most);
        let most = match start.checked_rem(boundary) {
            Some(behind) => most.min(boundary - behind),
            None => most,
        };
        let Some(runs) = self.runs else { return most };
        let blocks = memory.fit(runs, most << self.block_shift) >> self.block_shift;
        blocks - blocks % unit
    }

    /// The most blocks of a request without data; `None` for one that is not cut or moves data.
    fn most_of_range(&self, operation: Operation) -> Option<u64> {
        let at = RANGES.iter().position(|known| *known == operation)?;
        // The largest number stands for no limit.
        (self.ranges[at] != u64::from(u32::MAX)).then_some(self.ranges[at])
    }

    /// As above, for the first piece of what is left of a request.
    pub(crate) fn piece(&self, operation: Operation, start: u64, left: u64, rest: &Buffers) -> u64 {
        if let Some(most) = self.most_of_range(operation) {
            return left.min(most);
        }
        self.piece_in(operation, start, left, &Memory { parts: rest.parts(), used: 0 })
    }

    /// The longest run of a piece.
    pub(crate) fn run_bytes(&self) -> Option<usize> {
        self.runs.map(|runs| usize::try_from(runs.bytes).unwrap_or(usize::MAX))
    }

    /// Checks a request before anything is done with it. One with a part that cannot be made to fit is refused as a
    /// whole.
    pub(crate) fn look(&self, io: &Io) -> Verdict {
        let (operation, start, count) = (io.operation(), io.start(), io.count());
        if !matches!(operation, Operation::Read | Operation::Write | Operation::Compare) {
            let cut = self.most_of_range(operation).is_some_and(|most| count > most);
            return if cut { Verdict::Cut } else { Verdict::Passes };
        }
        let unit = if operation == Operation::Write { self.write_unit } else { 1 };
        if !start.is_multiple_of(unit) || !count.is_multiple_of(unit) {
            let blocks = u32::try_from(self.write_unit).unwrap_or(u32::MAX);
            return Verdict::Refused(IoErrorKind::WriteUnit { blocks });
        }
        let mut memory = Memory { parts: io.buffers().parts(), used: 0 };
        let Some(runs) = self.runs else {
            return match self.piece_in(operation, start, count, &memory) < count {
                true => Verdict::Cut,
                false => Verdict::Passes,
            };
        };
        let mut done = 0;
        while done < count {
            let piece = self.piece_in(operation, start + done, count - done, &memory);
            if piece == 0 {
                return Verdict::Refused(IoErrorKind::Segments { most: runs.most });
            }
            if piece == count && memory.parts.iter().all(|part| part.len() as u64 <= runs.bytes) {
                return Verdict::Passes;
            }
            memory.pass((piece << self.block_shift) as usize);
            done += piece;
        }
        Verdict::Cut
    }
}

/// Memory from some byte on.
struct Memory<'a> {
    parts: &'a [IoBuf],
    /// Bytes of the first part that lie before that byte.
    used: usize,
}

impl Memory<'_> {
    /// How many of `wanted` bytes lie in as many runs as a device takes.
    fn fit(&self, runs: Runs, wanted: u64) -> u64 {
        let (mut fit, mut left, mut used) = (0, runs.most, self.used);
        for part in self.parts {
            let mut bytes = (part.len() - used) as u64;
            used = 0;
            while bytes > 0 && fit < wanted {
                if left == 0 {
                    return fit;
                }
                left -= 1;
                let run = bytes.min(runs.bytes).min(wanted - fit);
                fit += run;
                bytes -= run;
            }
        }
        // A request with less memory than its range needs is refused elsewhere.
        wanted
    }

    fn pass(&mut self, bytes: usize) {
        let mut left = self.used + bytes;
        while let [first, rest @ ..] = self.parts
            && left >= first.len()
        {
            left -= first.len();
            self.parts = rest;
        }
        self.used = if self.parts.is_empty() { 0 } else { left };
    }
}
