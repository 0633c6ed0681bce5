//! Requests that were split and wait for their pieces.
//!
//! Owned by the thread's lane table. A piece takes the front of its parent's range and buffers; when all
//! pieces are back, the buffers are joined in the order they were cut, so a parent that had one buffer, or a
//! list, gets the same back. Once warm, cutting and joining allocate nothing: lists of pieces are reused. Not
//! promised: an order in which pieces complete. The first error to come back is the parent's.

use spindle_mem::{Buffers, IoBuf};

use crate::{Io, IoErrorKind, Status};

/// A piece of a parent.
#[derive(Default)]
struct Part {
    /// Its buffers, when they are back.
    buffers: Buffers,
    /// Where it begins in the parent's buffers.
    start: u32,
    /// Set if its end cut a run of the parent's buffers in two.
    cut: bool,
}

/// A parent and the state of its pieces.
#[derive(Default)]
struct Join {
    parent: Option<Io>,
    /// Pieces under way, plus one while pieces may still be cut.
    left: u32,
    status: Option<Status>,
    parts: Vec<Part>,
    /// Bytes of buffers in the pieces so far.
    bytes: usize,
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
    /// Parks `parent`; the caller may cut pieces until it calls [`close`](Self::close).
    pub(crate) fn open(&mut self, parent: Io) -> u32 {
        let key = self.free.pop().unwrap_or_else(|| {
            self.joins.push(Join::default());
            u32::try_from(self.joins.len() - 1).expect("fewer than 2^32 requests fit in memory")
        });
        let join = &mut self.joins[key as usize];
        join.parent = Some(parent);
        join.left = 1;
        join.status = None;
        key
    }

    /// Takes the parked parent out while pieces are cut; return it with `put_parent`.
    pub(crate) fn take_parent(&mut self, key: u32) -> Io {
        self.joins[key as usize].parent.take().expect("a parent stays parked until its last piece is back")
    }

    /// Parks it again.
    pub(crate) fn put_parent(&mut self, key: u32, parent: Io) {
        self.joins[key as usize].parent = Some(parent);
    }

    /// Cuts off the next `count` of the `left` blocks for which the parent has buffers. Returns the number of
    /// the piece and its buffers.
    #[inline]
    pub(crate) fn cut(&mut self, key: u32, parent: &mut Io, count: u64, left: u64) -> (u32, Buffers) {
        let join = &mut self.joins[key as usize];
        let bytes = parent.buffers().len();
        let (buffers, cut) = if bytes == 0 || count == left {
            (parent.take_buffers(), false)
        } else {
            // The buffers hold exactly the blocks left, which gives the size of a block.
            let at = (bytes as u64 / left * count) as usize;
            parent.buffers_mut().split_front(at, &mut self.lists)
        };
        let start = u32::try_from(join.bytes).unwrap_or(u32::MAX);
        join.left += 1;
        join.bytes += buffers.len();
        join.parts.push(Part { buffers: Buffers::None, start, cut });
        let number = u32::try_from(join.parts.len() - 1).expect("a parent has fewer than 2^32 pieces");
        (number, buffers)
    }

    /// Stores a piece that came back, with its buffers; returns the parent if it was the last.
    pub(crate) fn child_done(&mut self, key: u32, part: u32, status: Status, buffers: Buffers) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        join.parts[part as usize].buffers = buffers;
        if let Err(kind) = status
            && join.status.is_none()
        {
            join.status = Some(Err(match kind {
                IoErrorKind::Miscompare { offset } => {
                    IoErrorKind::Miscompare { offset: offset.saturating_add(join.parts[part as usize].start) }
                }
                other => other,
            }));
        }
        self.close(key)
    }

    /// Ends the cutting; returns the parent if all pieces are back.
    pub(crate) fn close(&mut self, key: u32) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        join.left -= 1;
        if join.left > 0 {
            return None;
        }
        let mut parent = join.parent.take().expect("a parent stays parked until its last piece is back");
        // Blocks that no piece took are still the parent's, behind all pieces.
        let rest = parent.take_buffers();
        let (mut whole, mut cut) = (Buffers::None, false);
        for part in join.parts.drain(..) {
            whole.rejoin(part.buffers, cut, &mut self.lists);
            cut = part.cut;
        }
        whole.rejoin(rest, cut, &mut self.lists);
        join.bytes = 0;
        parent.put_buffers(whole);
        parent.slot_mut().status = join.status.take().unwrap_or(Ok(()));
        self.free.push(key);
        Some(parent)
    }
}
