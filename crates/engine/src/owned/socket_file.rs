//! A Unix socket's path with one owner: the lock file beside it, and cleaning up after a killed owner.
//!
//! The lock is a flock on `PATH.lock`, as SPDK's applications take it, so that both kinds of program see each
//! other. Both files are removed when the owner drops, by a worker thread, as removing a file may take long.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::lock;
use super::reworded::reworded;

/// The owner of a Unix socket's path. Dropping it removes the socket's file, if it is the one made under this
/// lock, and then the lock file.
pub(crate) struct SocketFile {
    path: PathBuf,
    lock_path: PathBuf,
    /// Released last.
    _lock: OwnedFd,
    /// Device and inode of the socket's file, once bound.
    bound: Option<(u64, u64)>,
}

impl SocketFile {
    /// Takes the path for this process: locks `PATH.lock`, and removes a socket without a listener.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another process holds the lock or listens there, with its process id
    /// if known; [`io::ErrorKind::AlreadyExists`] if the path is not a socket.
    pub(crate) fn claim(path: &Path) -> io::Result<SocketFile> {
        let mut lock_path = path.as_os_str().to_owned().into_vec();
        lock_path.extend_from_slice(b".lock");
        let lock_path = PathBuf::from(std::ffi::OsString::from_vec(lock_path));
        let lock = locked(path, &lock_path)?;
        let claimed = SocketFile { path: path.to_owned(), lock_path, _lock: lock, bound: None };
        claimed.remove_stale()?;
        Ok(claimed)
    }

    /// Notes that the socket's file was made: it is removed with the owner.
    pub(crate) fn bound(&mut self) -> io::Result<()> {
        let file = fs::symlink_metadata(&self.path)?;
        self.bound = Some((file.dev(), file.ino()));
        Ok(())
    }

    fn remove_stale(&self) -> io::Result<()> {
        let path = &self.path;
        let file = match fs::symlink_metadata(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(named(&format!("cannot look at {}", path.display()), error)),
        };
        if !file.file_type().is_socket() {
            let message =
                format!("{} exists and is not a socket; remove it or use another path", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        if let Some(server) = server(path)? {
            let message = format!(
                "{} is in use: another program listens there{server}; stop it or use another path",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        fs::remove_file(path)
            .map_err(|error| named(&format!("cannot remove the stale {}", path.display()), error))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |file: fs::Metadata| Some((file.dev(), file.ino())) == self.bound;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // The next owner takes over a file that cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// The lock file, open and locked. An ending owner may remove it between the opening and the locking: then
/// try again.
fn locked(path: &Path, lock_path: &Path) -> io::Result<OwnedFd> {
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = open(lock_path, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| cannot_create(lock_path, errno))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(path, &file)),
            Err(errno) => return Err(named(&format!("cannot lock {}", lock_path.display()), errno.into())),
        }
        let held = fstat(&file)?;
        let current = fs::symlink_metadata(lock_path);
        if current.is_ok_and(|current| (current.dev(), current.ino()) == (held.st_dev, held.st_ino)) {
            return Ok(file);
        }
    }
}

fn in_use(path: &Path, lock: &OwnedFd) -> io::Error {
    let holder = fstat(lock).ok().and_then(|stat| lock::holder_seen(&stat));
    let by = match holder {
        Some(pid) if pid == std::process::id() => "by this process itself".to_owned(),
        Some(pid) => format!("by process {pid}{}", program(pid)),
        None => "by another process".to_owned(),
    };
    let message = format!("{} is in use {by}; stop it or use another path", path.display());
    io::Error::new(io::ErrorKind::AddrInUse, message)
}

/// The name of a process, in brackets; empty if it is not visible.
fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| String::new(), |name| format!(" ({})", name.trim_end()))
}

/// The program that listens at the socket, if known; none if there is none. A killed one may seem to listen
/// for a moment: the kernel keeps its sockets until its operations have been cancelled.
fn server(path: &Path) -> io::Result<Option<String>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(probe.as_fd(), &SocketAddrUnix::new(path)?) {
        // Its backlog is full.
        Err(Errno::AGAIN) => Ok(Some(String::new())),
        Err(_) => Ok(None),
        Ok(()) => {
            let Ok(peer) = sockopt::socket_peercred(&probe) else { return Ok(Some(String::new())) };
            let pid = peer.pid.as_raw_nonzero().get() as u32;
            Ok(lives(pid).then(|| format!(", process {pid}{}", program(pid))))
        }
    }
}

/// True if a process exists and has not ended, or is not visible.
fn lives(pid: u32) -> bool {
    let gone =
        |error: io::Error| error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/stat").exists();
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(error) => !gone(error),
    }
}

/// With the remedy, where it is the folder that is missing or closed.
fn cannot_create(lock_path: &Path, errno: Errno) -> io::Error {
    let folder = lock_path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
    let remedy = match errno {
        Errno::NOENT => format!("; make the folder {folder} or use another path"),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            format!("; use a path in a folder that you may write to, which {folder} is not")
        }
        _ => String::new(),
    };
    let error = io::Error::from(errno);
    reworded(&error, format!("cannot create {}: {error}{remedy}", lock_path.display()))
}

fn named(what: &str, error: io::Error) -> io::Error {
    reworded(&error, format!("{what}: {error}"))
}
