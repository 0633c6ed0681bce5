//! All problems of a loaded store, as a typed list.
//!
//! Every finding has a stable name ([`Finding::code`]), names its object and place (its `Display`), its
//! meaning for the data ([`Finding::meaning`]) and what a repair does about it ([`Finding::remedy`]). A
//! healthy store has no findings. A read-only load has already worked around what can be worked around;
//! [`Finding::Pending`] lists what a writing load would repair.
//!
//! [`check`] examines one load; [`examine`] reads the store from a [`Medium`], a clean one twice: once by its
//! masks, once as if there were none, so that it sees what the masks hide.

mod cause;
mod compare;
mod examine;
mod finding;
mod links;
mod lvolstore;
mod masks;
mod mend;
mod overlay;
mod words;

pub use cause::Cause;
pub use examine::{Examination, Medium, examine, examine_cut, load};
pub use finding::{Finding, Severity, Span};
pub use lvolstore::LvolFault;
pub use mend::{MendError, Mended, mend};
pub use overlay::ChangedPage;

use crate::store::Store;

/// Finds all problems of a store. A healthy one has none.
pub fn check(store: &Store) -> Vec<Finding> {
    compare::findings(store)
}
