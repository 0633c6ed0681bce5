//! One client: a task on one reactor, from the greeting to the last reply.
//!
//! The task owns the socket, the requests under way and the channel of the device; it lives and dies on the
//! thread that it was placed on. It ends only when all of its requests have.

mod control;
mod handshake;
mod input;
mod outbox;
mod perform;
mod session;
mod slots;
mod stream;
mod transmission;

use spindle_mem::{IoBuf, Pool};

pub(crate) use control::{Control, Stop};
pub(crate) use handshake::run;
pub(crate) use transmission::CONNECTION_LIMIT;

/// A buffer of the pool, or where its budget has no room, one of its own: what connections may hold is
/// counted elsewhere, and the pool only keeps what was used.
fn buffer(pool: &Pool, len: usize) -> IoBuf {
    pool.get(len).unwrap_or_else(|_| IoBuf::zeroed(len))
}
