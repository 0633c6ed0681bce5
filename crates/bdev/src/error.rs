//! Errors of a bdev: which one, why, the remedy, and the errno that SPDK answers with.

use std::sync::Arc;

use spindle_block::OpenError;

/// Why an operation on a bdev failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum BdevError {
    /// No bdev has that name, alias or UUID. `ENODEV`.
    #[error("there is no bdev {name:?}; bdev_get_bdevs lists those there are")]
    NoSuchBdev { name: String },
    /// The bdev belongs to another module. `ENODEV`.
    #[error("bdev {name:?} belongs to module {module}, not to {wanted}; use the methods of {module}")]
    OtherModule { name: String, module: String, wanted: String },
    /// It is being removed. `ENODEV` for an open, `EBUSY` for another removal.
    #[error("bdev {name:?} is being removed; wait until it is gone")]
    BeingRemoved { name: String },
    /// It was removed. `ENODEV`.
    #[error(
        "bdev {name:?} is gone, as it was removed; close it, and open another one of its name if there is one"
    )]
    Gone { name: String },
    /// It is being removed by an earlier call. `EBUSY`.
    #[error("bdev {name:?} is being removed already; wait until it is gone")]
    RemovedTwice { name: String },
    /// The name, alias or UUID is taken. `EEXIST`.
    #[error("{name:?} is a name of bdev {by:?} already; choose another")]
    Exists { name: String, by: String },
    /// The module has one that waits for its base. `EEXIST`.
    #[error("module {module} already has a request for {name:?}, which waits for base {base:?}; {remedy}")]
    AskedFor { name: Box<str>, module: &'static str, base: Box<str>, remedy: Box<str> },
    /// A claim keeps others from writing. `EPERM`.
    #[error("bdev {name:?} is claimed ({kind}) by {holder}; open it read-only, or have {holder} release it")]
    Claimed { name: String, kind: &'static str, holder: String },
    /// A claim requires that there are no other writers, and there are. `EPERM`.
    #[error("bdev {name:?} cannot be claimed ({kind}): {by} has it open for writing; have that closed first")]
    OpenForWriting { name: String, kind: &'static str, by: String },
    /// The module has no bdevs on that base, nor waits for it. `ENOENT`.
    #[error(
        "module {module} has no bdevs on {key:?}, existing or waiting; give the base that they were created on"
    )]
    NotOnBase { key: String, module: &'static str },
    /// An invalid name, size or option. `EINVAL`.
    #[error("{what}: {why}")]
    Argument { what: String, why: String },
    /// The bdev is in use and cannot change now. `EBUSY`.
    #[error("bdev {name:?}: {why}")]
    Busy { name: String, why: String },
    /// The device cannot be made or opened. The errno is the system's, if it gave one.
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
    /// The module's own reason and errno.
    #[error("{what}: {why}")]
    Module { what: String, why: String, errno: i32 },
}

/// Linux errnos (`EPERM`, `ENOENT`, ...), which SPDK answers negated.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EISDIR: i32 = 21;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENAMETOOLONG: i32 = 36;
    pub(crate) const ENOTSUP: i32 = 95;
    pub(crate) const ESHUTDOWN: i32 = 108;
}

impl BdevError {
    /// The Linux errno with which SPDK's interfaces answer (negated there).
    pub fn errno(&self) -> i32 {
        match self {
            BdevError::NoSuchBdev { .. }
            | BdevError::OtherModule { .. }
            | BdevError::BeingRemoved { .. }
            | BdevError::Gone { .. }
            | BdevError::NoRegistry => errno::ENODEV,
            BdevError::RemovedTwice { .. } | BdevError::Busy { .. } => errno::EBUSY,
            BdevError::Exists { .. } | BdevError::AskedFor { .. } => errno::EEXIST,
            BdevError::Claimed { .. } | BdevError::OpenForWriting { .. } => errno::EPERM,
            BdevError::NotOnBase { .. } => errno::ENOENT,
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

/// The errno in an error of the system, or in its source; that of its kind if it has none.
pub fn errno_of_io(error: &std::io::Error) -> i32 {
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
        std::io::ErrorKind::InvalidFilename => errno::ENAMETOOLONG,
        std::io::ErrorKind::PermissionDenied => 13,
        std::io::ErrorKind::AlreadyExists => errno::EEXIST,
        std::io::ErrorKind::AddrInUse => 98,
        std::io::ErrorKind::AddrNotAvailable => 99,
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
