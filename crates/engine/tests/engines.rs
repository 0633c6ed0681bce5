//! The common suite over every engine: files, time and waking, sockets, cancelling, overflow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use suite::{suite, with_every_test};

with_every_test!(suite!(#[cfg(test)] io_uring, [EngineKind::IoUring];));
with_every_test!(suite!(#[cfg(test)] epoll, [EngineKind::Epoll];));
with_every_test!(suite!(#[cfg(test)] sim, (0..20).map(EngineKind::Sim);));
