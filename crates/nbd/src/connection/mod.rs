//! One client: a task on one reactor, from the greeting to the last reply.
//!
//! The task owns the socket, the requests under way and the device's channel; it lives and dies on the thread
//! where it was placed. It ends only when all of its requests have, or were given up.

mod control;
mod departure;
mod grace;
mod handshake;
mod input;
mod outbox;
mod perform;
mod session;
mod slots;
mod stream;
mod tls;
mod transmission;
mod wire;

use spindle_mem::{IoBuf, Pool};

pub(crate) use control::{Control, Stop};
pub(crate) use handshake::run;
pub(crate) use transmission::CONNECTION_LIMIT;

/// A buffer of the pool or, if its budget has no room, a separate one: connections are limited elsewhere, and
/// the pool only keeps buffers for reuse.
fn buffer(pool: &Pool, len: usize) -> IoBuf {
    pool.get(len).unwrap_or_else(|_| IoBuf::zeroed(len))
}
