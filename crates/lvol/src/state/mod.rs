//! The state of the module, its stores and their volumes, on which all else works.

mod lacks;
mod locked;
mod lvol;
mod shared;
mod store;
mod volumes;

pub(crate) use lacks::Lacks;
pub(crate) use locked::locked;
pub use lvol::Lvol;
pub(crate) use lvol::{Busy, LvolInner, lvol_of};
pub use shared::Lvols;
pub(crate) use shared::Shared;
pub use store::LvolStore;
pub(crate) use store::StoreInner;
