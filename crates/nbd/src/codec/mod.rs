//! The NBD protocol without input or output: bytes in, checked requests and encoded replies out.
//!
//! [`Negotiation`] is the fixed newstyle handshake, [`Request::parse`] and [`Rules::check`] decode the
//! transmission phase, [`reply`] encodes its answers. Every value here belongs to one connection and holds no
//! handle. No input panics, and at most [`MAX_OPTION`] bytes of it are kept. Source: the protocol document
//! (NetworkBlockDevice/nbd, `doc/proto.md`). Extended headers are not offered. TLS is
//! the owner's: [`Advance::StartTls`] says when it begins.

mod context;
mod error;
mod negotiation;
mod offer;
mod option;
mod option_reply;
pub mod reply;
mod request;
mod rules;
mod text;

pub use context::{Context, Contexts};
pub use error::{ErrorCode, Violation};
pub use negotiation::{Advance, Agreed, Encryption, Negotiation, Query, Refusal};
pub use offer::{BlockSizes, Offer, TransmissionFlags};
pub use option::MAX_OPTION;
pub use request::{CommandFlags, REQUEST_LEN, Request};
pub use rules::{Checked, Command, Rules};
pub use text::shortened;

/// Longest name of an export, and longest query for a metadata context, in bytes.
pub const MAX_STRING: usize = 4096;

/// The most bytes in one read or write.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// The most extents in one reply to a block status request.
pub const MAX_EXTENTS: usize = 16 << 10;
