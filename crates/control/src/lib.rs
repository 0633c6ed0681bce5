//! The control plane: SPDK's RPC methods, and the life of the application that serves them.
//!
//! A [`Control`] is the context of handlers; [`methods::table`] has all methods, one file for each group, and
//! a program that embeds the daemon adds its own to that table. [`Daemon`] starts the server and ends it in
//! order. Everything lives on the app thread of one runtime; nothing blocks it.

#![forbid(unsafe_code)]

mod address;
mod base64;
mod control;
mod core_locks;
mod daemon;
mod log;
mod memory_nodes;
pub mod methods;
mod open_files;
mod outlet;
mod pattern;
mod reference;
mod replay;
mod settings;
mod spdk;
mod start_error;
mod values;

pub use address::{parse_address, uri};
pub use control::Control;
pub use core_locks::{CORE_LOCKS, CoreTaken};
pub use daemon::{Daemon, DaemonOptions, Ended};
pub use log::{Level, Log, LogError, LogForm, LogOptions};
pub use open_files::raise_open_files;
pub use reference::reference;
pub use replay::ConfigFile;
pub use start_error::StartError;
pub use values::refused;
