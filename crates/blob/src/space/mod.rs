//! Free clusters and metadata pages: what is free, what of it must be cleared, what threads hold in reserve, which
//! places of a map are being changed, and when callers are told that space runs low. Does no I/O.

mod claims;
mod free;
mod low_space;
mod reserve;
mod stale;

pub(crate) use claims::{PlaceClaim, PlaceClaims};
pub(crate) use free::Space;
pub(crate) use low_space::Watches;
pub use low_space::{LowSpace, SpaceEvent};
pub(crate) use reserve::{Fill, Fresh, Reserve};
pub(crate) use stale::Clearing;
