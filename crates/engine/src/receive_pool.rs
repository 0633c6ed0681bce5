//! The memory into which streams receive that wait without a buffer.

use std::fmt;
use std::sync::Arc;

use spindle_mem::{IoBuf, OutOfBuffers, Pool};

/// Buffers of one size, from one pool, for [`Op::RecvMany`](crate::Op::RecvMany). A cloneable handle: the streams
/// that share one share the few buffers that each driver has ready, however many of them wait.
#[derive(Clone)]
pub struct ReceivePool(Arc<Inner>);

struct Inner {
    pool: Pool,
    size: usize,
}

impl ReceivePool {
    /// Buffers of `size` bytes (at least one) from `pool`.
    pub fn new(pool: Pool, size: usize) -> ReceivePool {
        ReceivePool(Arc::new(Inner { pool, size: size.clamp(1, u32::MAX as usize) }))
    }

    /// Bytes of each buffer.
    pub fn size(&self) -> usize {
        self.0.size
    }

    pub(crate) fn get(&self) -> Result<IoBuf, OutOfBuffers> {
        self.0.pool.get(self.0.size)
    }

    /// True if both are handles of the same pool.
    pub(crate) fn is(&self, other: &ReceivePool) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ReceivePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceivePool({} bytes each)", self.0.size)
    }
}
