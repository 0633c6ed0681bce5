//! What can go wrong with a bdev: which one, why, what to do, and the errno that SPDK answers with.

use std::sync::Arc;

use spindle_block::OpenError;

/// Why an operation on a bdev failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum BdevError {
    /// No bdev has that name, alias or UUID. `ENODEV`.
    #[error("there is no bdev {name:?}; list the bdevs for the names there are")]
    NoSuchBdev { name: String },
    /// The bdev is not one of that module's. `ENODEV`.
    #[error("bdev {name:?} belongs to module {module}, not to {wanted}; use the methods of {module}")]
    OtherModule { name: String, module: String, wanted: String },
    /// It is just being removed. `ENODEV` for who opens it, `EBUSY` for who removes it again.
    #[error("bdev {name:?} is being removed; wait until it is gone")]
    BeingRemoved { name: String },
    /// It is just being removed, by an earlier call. `EBUSY`.
    #[error("bdev {name:?} is being removed already; wait until it is gone")]
    RemovedTwice { name: String },
    /// The name, alias or UUID is taken. `EEXIST`.
    #[error("{name:?} is a name of bdev {by:?} already; choose another")]
    Exists { name: String, by: String },
    /// A claim keeps others from writing. `EPERM`.
    #[error("bdev {name:?} is claimed ({kind}) by {holder}; open it read-only, or have {holder} release it")]
    Claimed { name: String, kind: &'static str, holder: String },
    /// A claim needs to be the only writer, and is not. `EPERM`.
    #[error(
        "bdev {name:?} cannot be claimed ({kind}): {writers} descriptors are open for writing; close them"
    )]
    OpenForWriting { name: String, kind: &'static str, writers: usize },
    /// A name, size or option that cannot be. `EINVAL`.
    #[error("{what}: {why}")]
    Argument { what: String, why: String },
    /// The bdev is in use and cannot change now. `EBUSY`.
    #[error("bdev {name:?}: {why}")]
    Busy { name: String, why: String },
    /// The device cannot be made or opened. The errno is the system's where it gave one.
    #[error(transparent)]
    Open(Arc<OpenError>),
    /// Descriptors belong to Spindle threads. `ENOTSUP`.
    #[error("bdev {name:?} is opened on a Spindle thread; call this inside Runtime::run or Thread::run")]
    NotOnThread { name: String },
    /// The runtime has no registry. `ENODEV`.
    #[error("this runtime has no bdev registry; call Registry::start on its app thread first")]
    NoRegistry,
    /// The registry's thread is gone: the runtime stops. `ESHUTDOWN`.
    #[error("the runtime is stopping, and its bdevs with it")]
    Stopping,
    /// The module says why, and which errno that is.
    #[error("{what}: {why}")]
    Module { what: String, why: String, errno: i32 },
}

/// `EPERM`, `ENOENT`, ... of Linux, as SPDK answers them with a minus.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EISDIR: i32 = 21;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOTSUP: i32 = 95;
    pub(crate) const ESHUTDOWN: i32 = 108;
}

impl BdevError {
    /// The errno of Linux that SPDK's interfaces answer with (there with a minus).
    pub fn errno(&self) -> i32 {
        match self {
            BdevError::NoSuchBdev { .. }
            | BdevError::OtherModule { .. }
            | BdevError::BeingRemoved { .. }
            | BdevError::NoRegistry => errno::ENODEV,
            BdevError::RemovedTwice { .. } | BdevError::Busy { .. } => errno::EBUSY,
            BdevError::Exists { .. } => errno::EEXIST,
            BdevError::Claimed { .. } | BdevError::OpenForWriting { .. } => errno::EPERM,
            BdevError::Argument { .. } => errno::EINVAL,
            BdevError::Open(error) => errno_of_open(error),
            BdevError::NotOnThread { .. } => errno::ENOTSUP,
            BdevError::Stopping => errno::ESHUTDOWN,
            BdevError::Module { errno, .. } => *errno,
        }
    }

    pub(crate) fn argument(what: impl Into<String>, why: impl Into<String>) -> BdevError {
        BdevError::Argument { what: what.into(), why: why.into() }
    }
}

fn errno_of_open(error: &OpenError) -> i32 {
    match error {
        OpenError::System { source, .. } => errno_of_io(source),
        OpenError::Busy { .. } => errno::EBUSY,
        OpenError::Geometry { .. } | OpenError::TooDeep { .. } => errno::EINVAL,
        OpenError::NotOnThread { .. } => errno::ENOTSUP,
        _ => errno::EIO,
    }
}

/// The number in an error of the system, or in what it was made of.
fn errno_of_io(error: &std::io::Error) -> i32 {
    if let Some(errno) = error.raw_os_error() {
        return errno;
    }
    let mut source = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = source {
        if let Some(errno) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return errno;
        }
        source = inner.source();
    }
    match error.kind() {
        std::io::ErrorKind::NotFound => 2,
        std::io::ErrorKind::PermissionDenied => 13,
        std::io::ErrorKind::OutOfMemory => errno::ENOMEM,
        std::io::ErrorKind::ResourceBusy | std::io::ErrorKind::WouldBlock => errno::EBUSY,
        std::io::ErrorKind::IsADirectory => errno::EISDIR,
        std::io::ErrorKind::InvalidInput => errno::EINVAL,
        std::io::ErrorKind::Unsupported => errno::ENOTSUP,
        _ => errno::EIO,
    }
}

impl From<OpenError> for BdevError {
    fn from(error: OpenError) -> BdevError {
        BdevError::Open(Arc::new(error))
    }
}
