//! `spindle blob`: a store on an image file or block device, offline. One module per command.
//!
//! The commands that read never write to the image: they open it with `O_RDONLY` and show what a writing load
//! would leave, with its repairs applied in memory. Shared modules: [`image`] reads, [`source`] loads,
//! [`select`] finds a blob.
//!
//! The commands that write use the real Blobstore: [`foreground`] gives them a thread and handles signals,
//! [`session`] locks the image, loads the store and unloads it even if the work fails.

mod check;
mod clone;
mod create;
mod describe;
mod dump;
mod export;
mod external;
mod foreground;
mod grow;
mod image;
mod import;
mod in_use;
mod inflate;
mod info;
mod init;
mod input;
mod limit;
mod ls;
mod lvol;
mod mending;
mod naming;
mod output_file;
mod parents;
mod reading;
mod resize;
mod rm;
mod select;
mod served;
mod session;
mod set_parent;
mod signature;
mod snapshot;
mod source;
mod super_blob;
mod undo;
mod undo_file;
mod unfinished;
mod xattr;

use super::failure::Failure;
use reading::attended;

/// The commands on a store.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show the store: geometry, space, whether it is clean, what a load for writing would repair
    Info(info::Info),
    /// List the blobs
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Decode every metadata page
    Dump(dump::Dump),
    /// Copy the contents of a blob into a file
    Export(export::Export),
    /// Create a store; the contents of IMAGE are lost
    Init(Box<init::Init>),
    /// Create a blob and print its id
    Create(create::Create),
    /// Copy a file into a blob
    Import(import::Import),
    /// Remove a blob. The only clone of a snapshot keeps its contents
    #[command(visible_alias = "delete")]
    Rm(rm::Rm),
    /// Change the size of a blob
    Resize(resize::Resize),
    /// List, get, set or remove a blob's xattrs
    Xattr(xattr::Xattr),
    /// Create a snapshot: a read-only blob with the present contents of a blob. Print its id
    Snapshot(snapshot::Snapshot),
    /// Create a clone: a blob with the contents of a snapshot, which can be written. Print its id
    Clone(clone::Clone),
    /// Allocate all clusters of a blob and copy its contents, so that it has no parent
    Inflate(inflate::Inflate),
    /// Copy the clusters of a blob's parent, so that the grandparent becomes its parent
    Decouple(inflate::Inflate),
    /// Make another snapshot of the same size the parent of a thin blob
    SetParent(set_parent::SetParent),
    /// Show or set the super blob, which programs look for first
    Super(super_blob::SuperBlob),
    /// Use the space that was added to the file or device
    Grow(grow::Grow),
    /// Report problems of the store and what they mean; repair them
    ///
    /// The exit code is 0 without problems (or with only those that the next load for writing repairs), 4 with
    /// problems, 1 if the store could not be checked.
    Check(check::Check),
    /// Undo a repair
    Undo(undo::Undo),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Info(info) => attended("info", || info.run()),
        Command::Ls(ls) => attended("ls", || ls.run()),
        Command::Dump(dump) => attended("dump", || dump.run()),
        Command::Export(export) => attended("export", || export.run()),
        Command::Init(init) => init.run(),
        Command::Create(create) => create.run(),
        Command::Import(import) => import.run(),
        Command::Rm(rm) => rm.run(),
        Command::Resize(resize) => resize.run(),
        Command::Xattr(xattr) => xattr.run(),
        Command::Snapshot(snapshot) => snapshot.run(),
        Command::Clone(clone) => clone.run(),
        Command::Inflate(inflate) => inflate.run(),
        Command::Decouple(decouple) => decouple.run_decouple(),
        Command::SetParent(parent) => parent.run(),
        Command::Super(blob) => blob.run(),
        Command::Grow(grow) => grow.run(),
        Command::Check(check) => check.run(),
        Command::Undo(undo) => undo.run(),
    }
}
