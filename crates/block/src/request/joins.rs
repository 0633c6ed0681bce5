//! Requests that were split and wait for their pieces.
//!
//! Owned by the thread's lane table. A piece takes the front of its parent's range and buffers; as pieces
//! come back, their buffers are joined in the order they were cut, so a parent that had one buffer, or a
//! list, gets the same back. Once warm, cutting and joining allocate nothing: lists of pieces are reused. Not
//! promised: an order in which pieces complete. The first error to come back is the parent's. While pieces may still be
//! cut, the parent is in its [`Split`](crate::Split); then it is parked here until the last piece is back.

use spindle_mem::{Buffers, IoBuf};

use crate::request::io::Slot;
use crate::{Io, IoErrorKind, Status};

/// A piece's place in its parent; carried by the piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// The byte of the parent's buffers where it begins.
    pub(crate) offset: u32,
    /// Set if its end cut a run of the parent's buffers in two.
    pub(crate) cut: bool,
    /// Set if it only reads its parent's buffers, which stay where they are.
    pub(crate) shares: bool,
    /// Set if it passes held ranges as its parent does.
    pub(crate) passes: bool,
    /// Where its runs were cut because its device takes no longer ones: a bit for each run that goes on in the next.
    pub(crate) runs: u64,
}

/// The buffers of a piece that came back before one that was cut before it, or before the parent was parked.
struct Early {
    buffers: Buffers,
    cut: bool,
}

/// A parent and the state of its pieces.
struct Join {
    /// `None` while pieces may still be cut.
    parent: Option<Io>,
    /// Pieces under way, plus one while pieces may still be cut.
    left: u32,
    status: Status,
    /// The parent's buffers from which nothing has been cut off yet.
    rest: Buffers,
    /// Number of pieces, from the first on, whose buffers are back in the parent.
    joined: u32,
    /// Set if the following part was cut off within a run.
    cut: bool,
    /// By piece number.
    early: Vec<Option<Early>>,
}

impl Join {
    fn new() -> Join {
        let (rest, early) = (Buffers::None, Vec::new());
        Join { parent: None, left: 0, status: Ok(()), rest, joined: 0, cut: false, early }
    }

    /// Notes a failed piece, at a byte of its own buffers if known.
    #[cold]
    fn fail(&mut self, kind: IoErrorKind, place: Place) {
        if self.status.is_ok() {
            self.status = Err(match kind {
                IoErrorKind::Miscompare { offset } => {
                    IoErrorKind::Miscompare { offset: offset.saturating_add(place.offset) }
                }
                other => other,
            });
        }
    }

    /// Puts the buffers of a piece back into their place.
    #[inline]
    fn put_back(&mut self, part: u32, buffers: &mut Buffers, cut: bool, lists: &mut Vec<Vec<IoBuf>>) {
        match &mut self.parent {
            Some(parent) if part == self.joined => {
                let behind_cut = std::mem::replace(&mut self.cut, cut);
                parent.buffers_mut().rejoin(buffers, behind_cut, lists);
                self.joined += 1;
            }
            _ => self.keep(part, Early { buffers: std::mem::take(buffers), cut }),
        }
    }

    #[inline(never)]
    fn keep(&mut self, part: u32, early: Early) {
        let part = part as usize;
        if self.early.len() <= part {
            self.early.resize_with(part + 1, || None);
        }
        self.early[part] = Some(early);
    }

    #[inline(never)]
    fn append_early(&mut self, lists: &mut Vec<Vec<IoBuf>>) {
        let Some(parent) = &mut self.parent else { return };
        while let Some(Early { mut buffers, cut }) =
            self.early.get_mut(self.joined as usize).and_then(Option::take)
        {
            let behind_cut = std::mem::replace(&mut self.cut, cut);
            parent.buffers_mut().rejoin(&mut buffers, behind_cut, lists);
            self.joined += 1;
        }
    }
}

/// All parents of a thread.
#[derive(Default)]
pub(crate) struct Joins {
    joins: Vec<Join>,
    free: Vec<u32>,
    /// Empty lists of buffers, kept for their capacity.
    lists: Vec<Vec<IoBuf>>,
}

impl Joins {
    /// Takes the buffers of `parent`; the caller may cut pieces until it calls [`close`](Self::close).
    #[inline]
    pub(crate) fn open(&mut self, parent: &mut Io) -> u32 {
        let key = self.free.pop().unwrap_or_else(|| self.grow());
        let join = &mut self.joins[key as usize];
        join.rest = parent.take_buffers();
        join.left = 1;
        key
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.joins.push(Join::new());
        u32::try_from(self.joins.len() - 1).expect("fewer than 2^32 requests fit in memory")
    }

    /// Cuts one more piece: moves `bytes` bytes of buffers to it; returns whether that cut a run in two.
    #[inline]
    pub(crate) fn cut(&mut self, key: u32, bytes: usize, buffers: &mut Buffers) -> bool {
        let join = &mut self.joins[key as usize];
        join.left += 1;
        join.rest.split_front(bytes, buffers, &mut self.lists)
    }

    /// Cuts the runs of a piece that are longer than `most` bytes.
    pub(crate) fn cut_runs(&mut self, piece: &mut Slot, most: usize) {
        piece.place.runs = piece.buffers.cut_runs(most, &mut self.lists);
    }

    /// The parent's buffers that no piece has taken yet.
    pub(crate) fn rest(&self, key: u32) -> &Buffers {
        &self.joins[key as usize].rest
    }

    /// Adds a piece that shares the rest of the parent's buffers, read-only.
    pub(crate) fn share(&mut self, key: u32, buffers: &mut Buffers) {
        let join = &mut self.joins[key as usize];
        join.left += 1;
        *buffers = join.rest.share(&mut self.lists);
    }

    /// The request that pieces were cut off, once no more are.
    pub(crate) fn parent(&self, key: u32) -> Option<&Slot> {
        self.joins.get(key as usize)?.parent.as_ref().map(Io::slot)
    }

    /// Handles a piece that is back: returns its buffers to the parent, and the parent if it was the last.
    #[inline]
    pub(crate) fn child_done(&mut self, key: u32, part: u32, piece: &mut Slot) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        if let Err(kind) = piece.status {
            join.fail(kind, piece.place);
        }
        if piece.place.runs != 0 {
            piece.buffers.join_runs(piece.place.runs, &mut self.lists);
        }
        match piece.place.shares {
            true => piece.buffers.clear(&mut self.lists),
            false => join.put_back(part, &mut piece.buffers, piece.place.cut, &mut self.lists),
        }
        join.left -= 1;
        if join.left > 0 { None } else { self.end(key) }
    }

    /// Ends the cutting, and parks the parent; returns it if all pieces are back.
    #[inline]
    pub(crate) fn close(&mut self, key: u32, parent: Io) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        join.parent = Some(parent);
        join.left -= 1;
        if join.left > 0 { None } else { self.end(key) }
    }

    /// As [`close`](Self::close), for a parent that fails, however its pieces end.
    #[cold]
    pub(crate) fn close_failed(&mut self, key: u32, parent: Io, kind: IoErrorKind) -> Option<Io> {
        self.joins[key as usize].status = Err(kind);
        self.close(key, parent)
    }

    #[inline]
    fn end(&mut self, key: u32) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        if !join.early.is_empty() {
            join.append_early(&mut self.lists);
            join.early.clear();
        }
        let mut parent = join.parent.take()?;
        if !matches!(join.rest, Buffers::None) {
            // Buffers that no piece took come after all pieces.
            let mut rest = std::mem::take(&mut join.rest);
            parent.buffers_mut().rejoin(&mut rest, join.cut, &mut self.lists);
        }
        parent.slot_mut().status = std::mem::replace(&mut join.status, Ok(()));
        (join.joined, join.cut) = (0, false);
        self.free.push(key);
        Some(parent)
    }
}
