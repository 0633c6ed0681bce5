//! The durable image, the log of unflushed writes on top of it, and the outcome of a crash.

use std::sync::Arc;

use super::image::{Image, PAGE, Page, Spare, pages};

/// The outcome of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Only what was flushed.
    LoseAll,
    /// Everything, as if flushed.
    KeepAll,
    /// Any subset of the unflushed atomic units, in any order.
    Random,
}

/// What a piece of the log writes.
#[derive(Clone)]
pub(super) enum Fill {
    /// The same bytes of this page.
    Page(Arc<Page>),
    /// Zeroes.
    Zero,
    /// The same bytes of this page, repeated over any number of pages.
    Pattern(Arc<Page>),
}

/// One write, or the part of it that lies in one page.
#[derive(Clone)]
pub(super) struct Piece {
    /// Pieces of one write share its number.
    pub(super) write: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) fill: Fill,
    /// When the submitter learnt that it completed, as a counter value; `NEVER` before that.
    pub(super) acknowledged: u64,
}

pub(super) const NEVER: u64 = u64::MAX;

impl Piece {
    fn apply(&self, offset: u64, length: u64, image: &mut Image, spare: &mut Spare) {
        match &self.fill {
            Fill::Zero => image.fill(offset, length, None, spare),
            Fill::Pattern(page) => image.fill(offset, length, Some(page), spare),
            Fill::Page(page) if length == PAGE as u64 => {
                image.put(offset / PAGE as u64, Arc::clone(page), spare);
            }
            Fill::Page(page) => {
                for (index, start, end) in pages(offset, length) {
                    image.patch(index, start, &page[start..end], spare);
                }
            }
        }
    }

    fn apply_all(&self, image: &mut Image, spare: &mut Spare) {
        self.apply(self.offset, self.length, image, spare);
    }

    fn overlaps(&self, other: &Piece) -> bool {
        self.offset < other.offset + other.length && other.offset < self.offset + self.length
    }
}

/// The complete state of a disk at one moment: the durable image and the log on top. Cloning copies the log's
/// list and shares all data.
#[derive(Clone)]
pub struct State {
    pub(super) durable: Image,
    pub(super) visible: Image,
    pub(super) log: Vec<Piece>,
    pub(super) atomic_unit: u32,
}

impl State {
    pub(super) fn new(image: Image, atomic_unit: u32) -> State {
        State { durable: image.clone(), visible: image, log: Vec::new(), atomic_unit }
    }

    /// The contents certain to be on the medium.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// The contents that reads see.
    pub fn visible(&self) -> &Image {
        &self.visible
    }

    /// Writes, zero-ranges and discards not yet durable.
    pub fn unflushed(&self) -> usize {
        self.log.chunk_by(|a, b| a.write == b.write).count()
    }

    /// The image after a crash now. `choose(n)` picks 0 to n - 1, called with n from 2 to 2^16; any
    /// source will do: a seed, a world, an enumeration.
    ///
    /// [`Crash::Random`] reaches every outcome the model allows, and often those that find bugs: each
    /// write of the log, in its order or in any, is lost, kept whole, or kept in part.
    pub fn crash(&self, crash: Crash, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        match crash {
            Crash::LoseAll => self.durable.clone(),
            // Not what reads see: after a failed flush they still see lost data.
            Crash::KeepAll => {
                let (mut image, mut spare) = (self.durable.clone(), Spare::default());
                self.log.iter().for_each(|piece| piece.apply_all(&mut image, &mut spare));
                image
            }
            Crash::Random => self.random_crash(choose),
        }
    }

    fn random_crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        let mut image = self.durable.clone();
        if self.log.is_empty() {
            return image;
        }
        let spare = &mut Spare::default();
        let mut order: Vec<usize> = (0..self.log.len()).collect();
        if order.len() > 1 && choose(2) == 1 {
            for i in (1..order.len()).rev() {
                order.swap(i, pick(choose, i + 1));
            }
        }
        // How likely a piece is lost, whole or torn, in eighths: a store usually breaks when nearly
        // everything was kept or nearly everything was lost, so those come as often as the even mix.
        let (lost, whole) = [(1, 6), (6, 1), (3, 3), (1, 1), (0, 7), (4, 4)][choose(6)];
        for piece in order.into_iter().map(|i| &self.log[i]) {
            match choose(8) {
                fate if fate < lost => {}
                fate if fate < lost + whole => piece.apply_all(&mut image, spare),
                _ => self.tear(piece, &mut image, choose, spare),
            }
        }
        image
    }

    /// Keeps a random part of a piece: units one by one, in runs if there are many.
    fn tear(
        &self,
        piece: &Piece,
        image: &mut Image,
        choose: &mut dyn FnMut(usize) -> usize,
        spare: &mut Spare,
    ) {
        let unit = u64::from(self.atomic_unit);
        let end = piece.offset + piece.length;
        let units = piece.length.div_ceil(unit);
        let longest_run = if units <= 64 { 1 } else { (units / 32).min(1 << 16) as usize };
        let mut at = piece.offset;
        while at < end {
            let run = if longest_run > 1 { 1 + choose(longest_run) as u64 } else { 1 };
            let stop = ((at / unit + run) * unit).min(end);
            if choose(2) == 1 {
                piece.apply(at, stop - at, image, spare);
            }
            at = stop;
        }
    }

    /// Adds a piece to the log and to what reads see.
    pub(super) fn push(&mut self, piece: Piece, spare: &mut Spare) {
        piece.apply_all(&mut self.visible, spare);
        self.log.push(piece);
    }

    /// Makes everything acknowledged before `ticket` durable. A write still under way stays in the log,
    /// except for parts overwritten by a later covered one: kept after that one, they could reappear. `room`
    /// is empty before and after.
    pub(super) fn flush(&mut self, ticket: u64, room: &mut Vec<Piece>, spare: &mut Spare) {
        if self.log.iter().all(|piece| piece.acknowledged < ticket) {
            return self.settle(spare);
        }
        for (at, piece) in self.log.iter().enumerate() {
            if piece.acknowledged < ticket {
                piece.apply_all(&mut self.durable, spare);
                continue;
            }
            let first = room.len();
            room.push(piece.clone());
            for over in self.log[at + 1..].iter().filter(|later| later.acknowledged < ticket) {
                cut(room, first, over);
            }
        }
        std::mem::swap(&mut self.log, room);
        room.drain(..).for_each(|piece| recycle(piece, spare));
    }

    /// Decides the fate of all unflushed writes as a crash would, while reads still see them: the effect of a
    /// failed flush.
    pub(super) fn abandon(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        self.durable = self.random_crash(choose);
        self.log.clear();
    }

    /// Makes the whole log durable, acknowledged or not: a disk without a cache, after each operation.
    pub(super) fn settle(&mut self, spare: &mut Spare) {
        for piece in self.log.drain(..) {
            piece.apply_all(&mut self.durable, spare);
            recycle(piece, spare);
        }
    }
}

/// Removes the parts that `over` overwrites from the pieces from `first` on.
fn cut(pieces: &mut Vec<Piece>, first: usize, over: &Piece) {
    for at in (first..pieces.len()).rev() {
        if !pieces[at].overlaps(over) {
            continue;
        }
        let piece = pieces.swap_remove(at);
        let (end, over_end) = (piece.offset + piece.length, over.offset + over.length);
        if over_end < end {
            pieces.push(Piece { offset: over_end, length: end - over_end, ..piece.clone() });
        }
        if piece.offset < over.offset {
            pieces.push(Piece { length: over.offset - piece.offset, ..piece });
        }
    }
}

fn recycle(piece: Piece, spare: &mut Spare) {
    if let Fill::Page(page) = piece.fill {
        spare.keep(page);
    }
}

/// Calls `choose` for any n, in steps within its range.
fn pick(choose: &mut dyn FnMut(usize) -> usize, n: usize) -> usize {
    if n <= 1 << 16 {
        return choose(n);
    }
    ((choose(1 << 16) << 16) + choose(1 << 16)) % n
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} bytes, {} unflushed)", self.durable.size(), self.unflushed())
    }
}
