//! Replies that wait to be sent, as one list of buffers.
//!
//! Heads of replies are packed into separate buffers; data is not copied. Belongs to the connection's task.

use spindle_mem::{Buffers, IoBuf, Pool};

use super::buffer;

/// Bytes of a buffer for heads.
const HEADS: usize = 4096;

/// The replies of a connection that are not sent yet.
pub(crate) struct Outbox {
    pool: Pool,
    /// Space for heads; its first `filled` bytes are not in `parts` yet.
    room: Option<IoBuf>,
    filled: usize,
    parts: Vec<IoBuf>,
    /// Kept for its capacity.
    spare: Vec<IoBuf>,
}

impl Outbox {
    pub(crate) fn new(pool: Pool) -> Outbox {
        Outbox { pool, room: None, filled: 0, parts: Vec::new(), spare: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0 && self.parts.is_empty()
    }

    /// Adds bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > HEADS {
            self.cut();
            self.parts.push(IoBuf::copy_from(bytes));
            return;
        }
        if self.room.as_ref().is_none_or(|room| room.len() - self.filled < bytes.len()) {
            self.cut();
            self.room = Some(buffer(&self.pool, HEADS));
        }
        if let Some(room) = &mut self.room {
            room[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// Adds data as it is.
    pub(crate) fn put_data(&mut self, data: IoBuf) {
        self.cut();
        self.parts.push(data);
    }

    /// Moves the heads made so far to the list.
    fn cut(&mut self) {
        if self.filled > 0
            && let Some(room) = &mut self.room
        {
            self.parts.push(room.split_to(self.filled));
            self.filled = 0;
        }
    }

    /// All replies that wait to be sent; at most one list is lent at a time.
    pub(crate) fn take(&mut self) -> Buffers {
        self.cut();
        if self.parts.len() == 1
            && let Some(only) = self.parts.pop()
        {
            return Buffers::One(only);
        }
        Buffers::Many(std::mem::replace(&mut self.parts, std::mem::take(&mut self.spare)))
    }

    /// Takes back a list that was sent.
    pub(crate) fn give_back(&mut self, buffers: Buffers) {
        if let Buffers::Many(mut parts) = buffers {
            parts.clear();
            self.spare = parts;
        }
    }

    /// True if [`rest`](Self::rest) would free anything.
    pub(crate) fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// Frees memory that a connection without requests does not need.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.room = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_lie_together_and_data_between_them() {
        let pool = Pool::new("test", 1 << 20);
        let mut outbox = Outbox::new(pool.clone());
        for _ in 0..3 {
            outbox.put(b"ab");
            outbox.put(b"c");
            outbox.put_data(IoBuf::copy_from(b"data"));
            outbox.put(b"d");
            let list = outbox.take();
            assert_eq!(list.to_vec(), b"abcdatad");
            assert_eq!(list.parts().len(), 3);
            assert!(outbox.is_empty());
            outbox.give_back(list);
            outbox.put(b"only");
            assert!(matches!(outbox.take(), Buffers::One(one) if *one == *b"only"));
        }
        outbox.rest();
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn heads_go_on_in_the_next_buffer_and_long_ones_have_their_own() {
        let mut outbox = Outbox::new(Pool::new("test", 1 << 20));
        let mut expected = Vec::new();
        for n in 0..1000u32 {
            outbox.put(&n.to_be_bytes().repeat(7));
            expected.extend(n.to_be_bytes().repeat(7));
        }
        outbox.put(&[7; 5000]);
        expected.extend([7; 5000]);
        assert_eq!(outbox.take().to_vec(), expected);
    }
}
