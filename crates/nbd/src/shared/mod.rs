//! What all threads of a server share: its lists, and what of a connection others than its own thread may reach.

mod connections;
mod control;
mod end;
mod exported;
mod info;
mod lists;
mod options;
mod placing;
mod visits;
mod waiting;

pub(crate) use connections::Which;
pub(crate) use control::{Control, Stop};
pub(crate) use end::End;
pub(crate) use exported::Exported;
pub use info::{ConnectionInfo, ExportInfo, ListenerInfo};
pub(crate) use lists::{Accepting, Shared};
pub use options::Options;
pub(crate) use visits::Turn;
