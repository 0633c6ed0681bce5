//! One opener at a time: a lock on an open file and on its [layers](layers), and a search for the holder of a
//! lock.
//!
//! Locks belong to the open file (OFD) and cover bytes: a partition locks its part of the disk, so that other
//! partitions stay free. Layers are locked only if they can be found and opened. Nodes of other devices are
//! opened for reading, because udev reads the partition table again when a node open for writing closes;
//! their lock is a shared one, which keeps out a writer of the whole device.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::time::Timespec;

use super::layers::{self, Kind, Layer, Part};
use super::page_cache;

/// How often to retry a lock that no process seems to hold, and the pause before each time: 2 s in all. The
/// kernel keeps the open files of a killed process until its transfers are over.
const TRIES: u32 = 200;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Where sysfs and the device nodes are.
const ROOT: &str = "/";

/// Locks the whole file until its description closes, and its layers until the result drops: exclusive or
/// shared. On conflict an error of kind [`io::ErrorKind::WouldBlock`] that names the holder if it can be
/// found; if no process seems to hold the lock, this waits for it, at most 2 s.
pub(crate) fn lock(
    fd: BorrowedFd<'_>,
    exclusive: bool,
    path: &Path,
    stat: &Stat,
) -> io::Result<Vec<OwnedFd>> {
    let mut own = vec![fd.as_raw_fd()];
    let whole = Wanted { exclusive, part: Part::WHOLE };
    take(fd, whole, stat, Attempt { what: &path.display().to_string(), own: &own })?;
    let Some(device) = layers::number_of(stat) else { return Ok(Vec::new()) };
    let mut held = Vec::new();
    for layer in layers::beneath(Path::new(ROOT), device) {
        let is_own = layer.kind == Kind::Device(device);
        let others = matches!(layer.kind, Kind::Device(_)) && !is_own;
        let exclusive = exclusive && !layer.shared && !others;
        let Some((fd, below)) = open_layer(&layer, exclusive) else { continue };
        if (below.st_dev, below.st_ino) == (stat.st_dev, stat.st_ino) {
            continue;
        }
        let wanted = Wanted { exclusive: exclusive && is_writable(&fd), part: layer.part };
        let what = match is_own {
            true => path.display().to_string(),
            false => format!("{} lies on {}, which", path.display(), layer.path.display()),
        };
        own.push(fd.as_raw_fd());
        match take(fd.as_fd(), wanted, &below, Attempt { what: &what, own: &own }) {
            Ok(()) => held.push(fd),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // A file system without locks: its files cannot be locked.
            Err(_) => drop(own.pop()),
        }
    }
    Ok(held)
}

/// A lock that keeps other programs from writing to a file; see [`write_lock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteLock {
    /// The process that holds it, if visible from here.
    pub pid: Option<u32>,
}

/// The lock under which another program writes to this file or device now, or to what a device lies on, as programs
/// on this engine take it. It may be gone when the caller sees the answer.
pub fn write_lock(file: &fs::File) -> Option<WriteLock> {
    let stat = rustix::fs::fstat(file).ok()?;
    let own = || writer(file.as_fd(), Part::WHOLE, &stat);
    let below = || {
        let layers = layers::beneath(Path::new(ROOT), layers::number_of(&stat)?);
        layers.iter().find_map(|layer| {
            let (fd, stat) = open_layer(layer, false)?;
            writer(fd.as_fd(), layer.part, &stat)
        })
    };
    own().or_else(below)
}

/// The lock under which a part of a file is written.
fn writer(fd: BorrowedFd<'_>, part: Part, stat: &Stat) -> Option<WriteLock> {
    let wanted = Wanted { exclusive: false, part };
    let mut lock = wanted.flock();
    // SAFETY: `lock` is a valid flock that outlives the call.
    let asked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    let locked = asked == 0 && lock.l_type != libc::F_UNLCK as libc::c_short;
    locked.then(|| WriteLock { pid: holder(fd, wanted, stat) })
}

/// The layers below a device, locked for a program that writes to it; see [`hold`].
#[derive(Debug)]
pub struct Held {
    _layers: Vec<OwnedFd>,
}

/// Keeps other programs on this engine away from a file or device that is open for writing: the lock that an open
/// with [`locked`](crate::OpenOptions::locked) takes, until the file is closed, for its layers until the result
/// drops. Of a block device it drops the [pages](crate::drop_pages) read before. `path` is the name in errors.
///
/// # Errors
/// Of kind [`io::ErrorKind::WouldBlock`], with the holder's name, if another program has it; others if the file system
/// has no locks.
pub fn hold(file: &fs::File, path: &Path) -> io::Result<Held> {
    let stat = rustix::fs::fstat(file)?;
    let layers = lock(file.as_fd(), true, path, &stat)?;
    page_cache::write_out_above(&stat);
    page_cache::drop_pages_of(file.as_fd(), &stat);
    Ok(Held { _layers: layers })
}

/// Opens a layer; for writing if the lock is exclusive and the layer may be written.
pub(super) fn open_layer(layer: &Layer, exclusive: bool) -> Option<(OwnedFd, Stat)> {
    let open = |access| {
        rustix::fs::open(&layer.path, access | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()
    };
    let writable = exclusive.then(|| open(OFlags::RDWR)).flatten();
    let fd = writable.or_else(|| open(OFlags::RDONLY))?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let same = match layer.kind {
        Kind::Device(number) => layers::number_of(&stat) == Some(number),
        Kind::File => layers::number_of(&stat).is_none(),
    };
    same.then_some((fd, stat))
}

fn is_writable(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// What to lock, and how.
#[derive(Clone, Copy)]
struct Wanted {
    exclusive: bool,
    part: Part,
}

/// One attempt to lock a file and what it lies on.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    /// The beginning of the error message that it is in use.
    what: &'a str,
    /// The descriptors that this attempt itself has opened and locked: none of them is the holder.
    own: &'a [RawFd],
}

/// Takes one lock.
fn take(fd: BorrowedFd<'_>, wanted: Wanted, stat: &Stat, attempt: Attempt<'_>) -> io::Result<()> {
    let what = attempt.what;
    let mut seen = None;
    for _ in 0..TRIES {
        if taken(fd, wanted, what)? {
            return Ok(());
        }
        seen = holder(fd, wanted, stat);
        if seen.is_some() {
            break;
        }
        // A signal shortens the pause.
        let _ = rustix::thread::nanosleep(&PAUSE);
    }
    let holder = match seen {
        Some(pid) if pid == std::process::id() => {
            let opened = opened_as(pid, stat, attempt.own);
            format!("by this process itself{opened}; close it here first")
        }
        Some(pid) => format!("by process {pid}{}; stop that first", opened_as(pid, stat, &[])),
        None => "by another process that cannot be seen from here; stop that first".to_owned(),
    };
    let message = format!("{what} is in use, locked {holder}");
    Err(io::Error::new(io::ErrorKind::WouldBlock, message))
}

/// Tries once; true if this process has the lock now.
fn taken(fd: BorrowedFd<'_>, wanted: Wanted, what: &str) -> io::Result<bool> {
    let mut lock = wanted.flock();
    // SAFETY: `lock` is a valid flock that outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if let Some(libc::EAGAIN | libc::EACCES) = error.raw_os_error() {
        return Ok(false);
    }
    // Some network and FUSE file systems have no locks: the promise cannot be kept there, so report it.
    let message = format!("cannot lock {what}: {error}; open it unlocked if no one else uses it");
    Err(io::Error::new(error.kind(), message))
}

impl Wanted {
    fn flock(self) -> libc::flock {
        let Part { start, length } = self.part;
        // SAFETY: an flock of zeroes is valid: from the start, to the end, no process.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = if self.exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // Values that do not fit are beyond any device.
        lock.l_start = libc::off_t::try_from(start).unwrap_or(libc::off_t::MAX);
        lock.l_len = libc::off_t::try_from(length).unwrap_or(0);
        lock
    }
}

/// The process that holds a conflicting lock. The kernel names it for a lock that belongs to a process; the
/// holder of an open file's lock is searched for in /proc, among visible processes.
fn holder(fd: BorrowedFd<'_>, wanted: Wanted, stat: &Stat) -> Option<u32> {
    let mut lock = wanted.flock();
    // SAFETY: `lock` is a valid flock that outlives the call.
    let asked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    if asked == 0 && lock.l_pid > 0 {
        return u32::try_from(lock.l_pid).ok();
    }
    holder_seen(stat)
}

/// A visible process that holds a lock of any kind on the file.
pub(super) fn holder_seen(stat: &Stat) -> Option<u32> {
    let object = object(stat);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| locked_by(*pid).any(|(_, locks)| locks.contains(&object)))
}

/// The file's identity in the kernel's list of locks.
fn object(stat: &Stat) -> String {
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    format!("{major:02x}:{minor:02x}:{} ", stat.st_ino)
}

/// The descriptors of a process that carry locks, as links, and those locks as the kernel lists them.
fn locked_by(pid: u32) -> impl Iterator<Item = (PathBuf, String)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    descriptors.filter_map(move |descriptor| {
        let info = fs::read_to_string(descriptor.path()).ok()?;
        let locks: Vec<&str> = info.lines().filter(|line| line.starts_with("lock:")).collect();
        let link = Path::new(&format!("/proc/{pid}/fd")).join(descriptor.file_name());
        (!locks.is_empty()).then(|| (link, locks.join("\n")))
    })
}

/// The name under which a process has opened a file that it locked: the device that lies on the file, or the
/// path that the process opened. " as PATH", or nothing if unknown. The descriptors in `but` are left out.
fn opened_as(pid: u32, stat: &Stat, but: &[RawFd]) -> String {
    let object = object(stat);
    let lies_on_it = |link: &PathBuf| {
        let opened = rustix::fs::stat(link).ok()?;
        let layers = layers::beneath(Path::new(ROOT), layers::number_of(&opened)?);
        let same = |layer: &Layer| {
            let below = rustix::fs::stat(&layer.path).ok();
            below.is_some_and(|below| (below.st_dev, below.st_ino) == (stat.st_dev, stat.st_ino))
        };
        layers.iter().any(same).then_some(())
    };
    let counts = |link: &Path| {
        let number = link.file_name().and_then(|name| name.to_str()?.parse::<RawFd>().ok());
        number.is_none_or(|number| !but.contains(&number))
    };
    let locked: Vec<(PathBuf, String)> = locked_by(pid).filter(|(link, _)| counts(link)).collect();
    let itself = || locked.iter().find(|(_, locks)| locks.contains(&object)).map(|(link, _)| link);
    let others = locked.iter().filter(|(_, locks)| !locks.contains(&object)).map(|(link, _)| link);
    let device = others.into_iter().find(|link| lies_on_it(link).is_some());
    let path = device.or_else(itself).and_then(|link| fs::read_link(link).ok());
    path.map_or(String::new(), |path| format!(" as {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn opened(path: &Path) -> (File, Stat) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        (file, stat)
    }

    /// A socket whose queue holds the only handle on a lock of `path`: no process has it.
    pub(crate) fn held_by_nobody(path: &Path) -> (UnixStream, UnixStream) {
        let (file, stat) = opened(path);
        lock(file.as_fd(), true, path, &stat).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let handles = [file.as_fd()];
        assert!(message.push(SendAncillaryMessage::ScmRights(&handles)));
        sendmsg(&near, &[IoSlice::new(b"x")], &mut message, SendFlags::empty()).unwrap();
        (near, far)
    }

    #[test]
    fn a_lock_that_no_process_holds_any_more_is_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let held = held_by_nobody(path.path());
        let (file, stat) = opened(path.path());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = rustix::thread::nanosleep(&PAUSE);
                drop(held);
            });
            lock(file.as_fd(), true, path.path(), &stat).unwrap();
        });
    }

    #[test]
    fn a_lock_whose_holder_stays_and_cannot_be_seen_is_refused() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let held = held_by_nobody(path.path());
        let (file, stat) = opened(path.path());
        let refused = lock(file.as_fd(), true, path.path(), &stat).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(refused.to_string().contains("cannot be seen"), "{refused}");
        drop(held);
    }
}
