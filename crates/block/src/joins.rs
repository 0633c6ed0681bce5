//! Requests that were split and wait for their pieces.
//!
//! Owned by the thread's lane table. A piece takes the front of its parent's range and buffers; when
//! all pieces are back the buffers are put together again in the order they were cut, so a parent that
//! had one buffer has that one buffer back. Cutting or joining a single [`IoBuf`](spindle_mem::IoBuf)
//! allocates nothing; a list of buffers is cut by making another list. Not promised: an order in which
//! pieces complete. The first error to come back is the parent's.

use spindle_mem::Buffers;

use crate::{Io, IoErrorKind, Status};

/// A parent and what is known of its pieces.
#[derive(Default)]
struct Join {
    parent: Option<Io>,
    /// Pieces under way, and one more while pieces may still be cut.
    left: u32,
    status: Option<Status>,
    parts: Vec<Buffers>,
    /// Bytes of buffers in the pieces so far.
    bytes: usize,
    /// Where in the parent's buffers each piece begins.
    starts: Vec<u32>,
}

/// All parents of a thread.
#[derive(Default)]
pub(crate) struct Joins {
    joins: Vec<Join>,
    free: Vec<u32>,
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

    /// The parked parent, while pieces are cut; to be put back.
    pub(crate) fn take_parent(&mut self, key: u32) -> Io {
        self.joins[key as usize].parent.take().expect("a parent stays parked until its last piece is back")
    }

    /// Parks it again.
    pub(crate) fn put_parent(&mut self, key: u32, parent: Io) {
        self.joins[key as usize].parent = Some(parent);
    }

    /// Counts one more piece, with so many bytes; its number.
    pub(crate) fn part(&mut self, key: u32, bytes: usize) -> u32 {
        let join = &mut self.joins[key as usize];
        join.left += 1;
        join.parts.push(Buffers::None);
        join.starts.push(u32::try_from(join.bytes).unwrap_or(u32::MAX));
        join.bytes += bytes;
        u32::try_from(join.parts.len() - 1).expect("a parent has fewer than 2^32 pieces")
    }

    /// A piece is back with its buffers; the parent, if it was the last.
    pub(crate) fn child_done(&mut self, key: u32, part: u32, status: Status, buffers: Buffers) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        join.parts[part as usize] = buffers;
        if let Err(kind) = status
            && join.status.is_none()
        {
            join.status = Some(Err(match kind {
                IoErrorKind::Miscompare { offset } => {
                    IoErrorKind::Miscompare { offset: offset.saturating_add(join.starts[part as usize]) }
                }
                other => other,
            }));
        }
        self.close(key)
    }

    /// One reason less to wait; the parent, if it was the last.
    pub(crate) fn close(&mut self, key: u32) -> Option<Io> {
        let join = &mut self.joins[key as usize];
        join.left -= 1;
        if join.left > 0 {
            return None;
        }
        let mut parent = join.parent.take().expect("a parent stays parked until its last piece is back");
        // What no piece took is still the parent's, and lies behind all of them.
        let rest = parent.take_buffers();
        let mut whole = Buffers::None;
        for part in join.parts.drain(..).chain([rest]) {
            whole.append(part);
        }
        join.starts.clear();
        join.bytes = 0;
        parent.put_buffers(whole);
        parent.slot_mut().status = join.status.take().unwrap_or(Ok(()));
        self.free.push(key);
        Some(parent)
    }
}
