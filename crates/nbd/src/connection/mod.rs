//! One client: a task on one reactor, from the greeting to the last reply.
//!
//! The task owns the socket, the requests under way and the device's channel; it lives and dies on the thread
//! where it was placed. It ends only when all of its requests have, or were given up.

mod buffer;
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

pub(crate) use handshake::run;

use buffer::buffer;
