//! `spindle blob`: a store on an image file or block device, offline.
//!
//! The commands in here never write to the image: they open it with `O_RDONLY` and show what a load that
//! may write would leave, its repairs applied in memory. One module per command; what they share:
//! [`image`] reads, [`source`] loads, [`select`] finds the blob that is meant, [`extents`] says where its
//! bytes lie.

mod describe;
mod dump;
mod export;
mod extents;
mod external;
mod image;
mod info;
mod ls;
mod output_file;
mod select;
mod source;

use super::failure::Failure;

/// The commands on a store.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show the store: geometry, space, whether it is clean, what a writing load would repair
    Info(info::Info),
    /// List the blobs
    Ls(ls::Ls),
    /// Decode every metadata page
    Dump(dump::Dump),
    /// Copy the contents of a blob into a file
    Export(export::Export),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Info(info) => info.run(),
        Command::Ls(ls) => ls.run(),
        Command::Dump(dump) => dump.run(),
        Command::Export(export) => export.run(),
    }
}
