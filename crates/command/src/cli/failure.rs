//! Why a command failed, for its user: one sentence that names the object and the remedy.

use super::text::{named, printable};
use spindle_blob::BlobError;
use spindle_block::{IoError, IoErrorKind, OpenError};
use spindle_format::BlobId;
use spindle_format::loader::LoadError;
use spindle_format::resolve::ResolveError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The reader of standard output has closed it. Ends the command, but not as a failure.
    #[error("standard output was closed")]
    OutputClosed,
    /// Standard output could not be written for another reason.
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
    /// The command's work was done, but its output could not be written.
    #[error("{done}, but standard output cannot be written: {error}")]
    Untold {
        /// The work: "made blob 0x100000000".
        done: String,
        error: io::Error,
    },
    /// A file or device could not be used.
    #[error("{} cannot be {action}: {}", shown(path), with_remedy(error))]
    File {
        /// The attempt: "opened", "read at byte 4096".
        action: String,
        path: PathBuf,
        error: io::Error,
    },
    /// A path that cannot hold a store.
    #[error("{} is {what}: name an image file or a block device", shown(path))]
    NotAnImage { path: PathBuf, what: &'static str },
    /// The image holds no store that can be loaded.
    #[error("{}: {error}", shown(path))]
    Load { path: PathBuf, error: LoadError },
    /// The image holds something else than a store.
    #[error("{} is not a Blobstore: {found}", shown(path))]
    NoStore { path: PathBuf, found: String },
    /// No blob has this id or name.
    #[error("no blob of {} is called {}{near}", shown(path), named(asked))]
    NoSuchBlob { path: PathBuf, asked: Vec<u8>, near: String },
    /// The text looks like an id, but is only the name of a blob.
    #[error(
        "{} is read as an id, and {} has no such blob; the blob of that name is {blob}: give this id",
        named(asked),
        shown(path)
    )]
    NotAnId { path: PathBuf, asked: Vec<u8>, blob: BlobId },
    /// More than one blob has this id or name.
    #[error("{} means more than one blob of {}: {candidates}; give an id: {ids}", named(asked), shown(path))]
    AmbiguousBlob { path: PathBuf, asked: Vec<u8>, candidates: String, ids: String },
    /// The selected blob is damaged.
    #[error("blob {blob} of {} is damaged and cannot be read: {errors}", shown(path))]
    DamagedBlob { path: PathBuf, blob: BlobId, errors: String },
    /// The contents of a blob cannot be found.
    #[error("{}: {error}", shown(path))]
    Resolve { path: PathBuf, error: ResolveError },
    /// A blob claims to be larger than any file.
    #[error("blob {blob} has {clusters} clusters, more than a file can hold: it cannot be exported")]
    BlobTooLarge { blob: BlobId, clusters: u64 },
    /// Part of the contents is on an external snapshot that was not given.
    #[error(
        "blob {blob} is a clone of the external snapshot {id}, which was not given: add --esnap {id}=FILE"
    )]
    MissingExternal { blob: BlobId, id: String },
    /// The output is there already.
    #[error("{} is there already: choose another name, or --force to replace it", shown(path))]
    Exists { path: PathBuf },
    /// The output is the input.
    #[error("{} is the input, or shares bytes with it: choose another output", shown(path))]
    OutputIsInput { path: PathBuf },
    /// The output is a device too small for the blob.
    #[error("{} has {found} bytes, the blob has {needed}: choose a larger device", shown(path))]
    OutputTooSmall { path: PathBuf, found: u64, needed: u64 },
    /// A new store would destroy what is there.
    #[error("{} holds {found}: --force overwrites it", shown(path))]
    Holds { path: PathBuf, found: String },
    /// The storage for a new store is in use.
    #[error("{} is in use: {by}; free it first", shown(path))]
    InUse { path: PathBuf, by: String },
    /// The input of an import cannot be read.
    #[error("{name} cannot be read at byte {at}: {error}")]
    Input { name: String, at: u64, error: io::Error },
    /// What holds the image is full, whatever is free in the store.
    #[error(
        "{} of {} bytes at offset {} of {} failed: the file system or pool that holds the image is full, not the \
         store: free space there",
        .0.operation, .0.len, .0.offset, .0.device
    )]
    HostFull(IoError),
    /// A store or blob refused the operation, or failed.
    #[error(transparent)]
    Store(BlobError),
    /// The image or device cannot be opened for writing, or is in use.
    #[error("{0}")]
    Open(String),
    /// The engine for the writing commands is not available.
    #[error("cannot run: {0}")]
    Engine(String),
    /// The operation cannot be done to this object; the text names it, the reason and the remedy.
    #[error("{0}")]
    Refused(String),
    /// A signal ended the work; the store was left in order.
    #[error("stopped by a signal before it was done")]
    Interrupted {
        /// The exit code for the signal.
        code: u8,
    },
    /// A store was checked, and something is wrong with it.
    #[error("{} has {}{}", shown(path), crate::cli::text::count(*count as u64, "finding"), and_pending(*pending))]
    Findings {
        path: PathBuf,
        /// Without those that the next load for writing repairs.
        count: usize,
        /// Findings that the next load for writing repairs.
        pending: usize,
    },
    /// A measurement could not be made.
    #[error("cannot measure: {error}")]
    Measurement {
        error: String,
        /// The exit code of the stop, if it was stopped.
        code: u8,
    },
    /// `--check` was asked for, and a figure is beyond its aim.
    #[error("misses its aim: {0}")]
    AimMissed(String),
    /// The arguments contradict each other in a way that the parser cannot see.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// A failed call on a file; `action` is the attempt, as in "cannot be opened".
    pub(crate) fn file(path: &Path, action: impl Into<String>, error: io::Error) -> Failure {
        Failure::File { action: action.into(), path: path.to_owned(), error }
    }

    /// As from a store's error, where `argument` gives the size in bytes of a blob.
    pub(crate) fn of_size(argument: &str, error: BlobError) -> Failure {
        match error {
            BlobError::Option { option: "clusters", why } => Failure::Refused(format!("{argument}: {why}")),
            error => error.into(),
        }
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            // Like fsck's: errors were found and remain.
            Failure::Findings { .. } => 4,
            Failure::Interrupted { code } | Failure::Measurement { code, .. } => *code,
            _ => 1,
        }
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Failure {
        match error {
            // With the name of the option, not of the field.
            BlobError::Option { option, why } => Failure::Refused(format!("{}: {why}", option_name(option))),
            // Where the store itself is full, its error is another one.
            BlobError::Io(error) if error.kind == IoErrorKind::NoSpace => Failure::HostFull(error),
            error => Failure::Store(error),
        }
    }
}

fn and_pending(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(", and {count} that the next load for writing repairs"),
    }
}

/// The command line option that sets a field of the library's options.
fn option_name(field: &str) -> String {
    match field {
        "xattrs" => "--xattr".into(),
        field => format!("--{}", field.replace('_', "-")),
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        BlobError::from(error).into()
    }
}

/// The engine's error about a file names it already.
impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let text = match error {
            OpenError::Busy { holder, .. } => holder,
            OpenError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!(
                    "{source}; it may be immutable (lsattr shows that, chattr -i ends it), or another user's"
                )
            }
            OpenError::System { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Failure::Open(printable(text.as_bytes()))
    }
}

/// Errors of standard output: other errors name their file through [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Output(error),
        }
    }
}

/// A system's error in words, with the remedy if one is known.
pub(crate) fn with_remedy(error: &io::Error) -> String {
    let words = without_number(error);
    match error.kind() {
        io::ErrorKind::NotFound => format!("{words}; correct the path, or make it first"),
        io::ErrorKind::PermissionDenied => {
            format!("{words}; run as a user who may do that, or change the permissions")
        }
        io::ErrorKind::IsADirectory => format!("{words}; name a file"),
        io::ErrorKind::NotADirectory => format!("{words}; name a folder"),
        io::ErrorKind::StorageFull => format!("{words}; free space on its file system"),
        io::ErrorKind::QuotaExceeded => format!("{words}; free some of the quota, or have it raised"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{words}; mount it for writing, or choose another one"),
        io::ErrorKind::FileTooLarge => format!(
            "{words}; raise the limit on file sizes (ulimit -f), or use a file system with larger files"
        ),
        _ => words,
    }
}

/// A system's error in words, without its number.
pub(crate) fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (os error ").map_or(&*text, |(words, _)| words).to_owned()
}

/// A path as text that is safe to print.
pub(crate) fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_block::Operation;

    #[test]
    fn an_error_of_the_host_says_what_to_do_about_the_host() {
        // ENOSPC, EFBIG, EROFS, EDQUOT.
        for (errno, remedy) in
            [(28, "free space"), (27, "ulimit -f"), (30, "mount it for writing"), (122, "quota")]
        {
            let error = io::Error::from_raw_os_error(errno);
            let said = Failure::file(Path::new("a.img"), "made larger", error).to_string();
            assert!(said.contains("a.img") && said.contains(remedy), "{said}");
        }
    }

    #[test]
    fn a_full_host_is_not_taken_for_a_full_store() {
        let kind = IoErrorKind::NoSpace;
        let error =
            IoError { device: "a.img".into(), operation: Operation::Write, offset: 4096, len: 512, kind };
        let said = Failure::from(error).to_string();
        assert!(said.contains("a.img") && said.contains("not the store: free space there"), "{said}");
        let store = BlobError::OutOfSpace { store: "a.img".into(), needed: 2, free: 1 };
        assert!(Failure::from(store).to_string().contains("out of space"));
    }
}
