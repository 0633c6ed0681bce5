//! The NBD protocol without input or output: bytes in, checked requests and encoded replies out.
//!
//! [`Negotiation`] is the fixed newstyle handshake, [`Request::parse`] and [`Rules::check`] decode the
//! transmission phase, [`reply`] encodes its answers. Every value here belongs to one connection and holds no
//! handle. No input panics, and at most [`MAX_OPTION`] bytes of it are kept. Source: the protocol document
//! (NetworkBlockDevice/nbd, `doc/proto.md`). Extended headers are not offered. TLS is
//! the owner's: [`Advance::StartTls`] says when it begins.

mod context;
mod error;
mod limits;
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
pub use limits::{MAX_EXTENTS, MAX_PAYLOAD, MAX_STRING};
pub use negotiation::{Advance, Agreed, Encryption, Negotiation, Query, Refusal};
pub use offer::{BlockSizes, Offer, TransmissionFlags};
pub use option::MAX_OPTION;
pub use request::{CommandFlags, REQUEST_LEN, Request};
pub use rules::{Checked, Command, Rules};
pub use text::shortened;
