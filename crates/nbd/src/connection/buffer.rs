//! The buffers of a connection: of the pool or, if its budget has no room, separate ones. Connections are limited elsewhere, and
//! the pool only keeps buffers for reuse.

use spindle_mem::{IoBuf, OutOfMemory, Pool};

/// A buffer of the connection itself, of one of a few sizes.
pub(super) fn buffer(pool: &Pool, len: usize) -> IoBuf {
    pool.get(len).unwrap_or_else(|_| IoBuf::zeroed(len))
}

/// A buffer whose length a client chose.
pub(super) fn buffer_for_client(pool: &Pool, len: usize) -> Result<IoBuf, OutOfMemory> {
    pool.get(len).or_else(|_| IoBuf::try_zeroed(len))
}
