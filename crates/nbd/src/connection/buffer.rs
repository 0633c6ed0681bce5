//! The buffers of a connection.

use spindle_mem::{IoBuf, Pool};

/// A buffer of the pool or, if its budget has no room, a separate one: connections are limited elsewhere, and
/// the pool only keeps buffers for reuse.
pub(super) fn buffer(pool: &Pool, len: usize) -> IoBuf {
    pool.get(len).unwrap_or_else(|_| IoBuf::zeroed(len))
}
