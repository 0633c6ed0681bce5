//! Buffers for I/O: uniquely owned, pooled, shared.
