//! What passes between cores: closures and values in fixed slots, the queues that carry them, and the
//! handshake that wakes a sleeping receiver.
//!
//! This crate knows no threads, reactors or engines. The lock-free parts take their primitives from one
//! module, so the same source runs under loom (`tests/loom.rs`).

mod call;
pub mod express;
mod inbox;
mod inline;
mod lines;
mod outgoing;
mod parcel;
mod parking;
mod port;
mod primitive;
mod route;
mod sleep;
pub mod spsc;
mod static_ref;

pub use call::Call;
pub use inbox::{Closed, Inbox};
pub use outgoing::Outgoing;
pub use parcel::Parcel;
pub use parking::{Parking, Unpark};
pub use port::{Port, Rings, Tagged};
pub use sleep::Sleep;
pub use static_ref::StaticRef;
