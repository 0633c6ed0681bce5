//! One opener at a time: a lock on the whole file that belongs to the open file, and who holds it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::Stat;
use rustix::time::Timespec;

/// How often a lock is tried again that nobody is seen to hold, and the pause before each time: 2 s in all.
/// The kernel keeps the open files of a process that was killed until its transfers are over.
const TRIES: u32 = 200;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Locks the whole file until the description closes: exclusive or shared (F_OFD_SETLK). On conflict an
/// error of kind [`io::ErrorKind::WouldBlock`] that names the holder as far as it can be found; a lock that
/// no process is seen to hold is waited for, 2 s at most.
pub(super) fn lock(fd: BorrowedFd<'_>, exclusive: bool, path: &Path, stat: &Stat) -> io::Result<()> {
    let mut seen = None;
    for _ in 0..TRIES {
        if taken(fd, exclusive, path)? {
            return Ok(());
        }
        seen = holder(fd, exclusive, stat);
        if seen.is_some() {
            break;
        }
        // A signal shortens the pause.
        let _ = rustix::thread::nanosleep(&PAUSE);
    }
    let holder = match seen {
        Some(pid) if pid == std::process::id() => "by this process itself".to_owned(),
        Some(pid) => format!("by process {pid}"),
        None => "by another process that cannot be seen from here".to_owned(),
    };
    let message = format!("{} is in use, locked {holder}; stop that first", path.display());
    Err(io::Error::new(io::ErrorKind::WouldBlock, message))
}

/// Tries once: whether the lock is ours now, and not somebody else's.
fn taken(fd: BorrowedFd<'_>, exclusive: bool, path: &Path) -> io::Result<bool> {
    let mut lock = whole_file(exclusive);
    // SAFETY: `lock` is a valid flock that outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if let Some(libc::EAGAIN | libc::EACCES) = error.raw_os_error() {
        return Ok(false);
    }
    // Some network and FUSE file systems know no locks: the promise cannot be kept there, so say so.
    let message = format!("cannot lock {}: {error}; open it unlocked if no one else uses it", path.display());
    Err(io::Error::new(error.kind(), message))
}

fn whole_file(exclusive: bool) -> libc::flock {
    // SAFETY: an flock of zeroes is valid: from the start, to the end, no process.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// The process that holds a conflicting lock. The kernel names it for a lock that belongs to a process;
/// one that belongs to an open file is found in /proc among those we may look at.
fn holder(fd: BorrowedFd<'_>, exclusive: bool, stat: &Stat) -> Option<u32> {
    let mut lock = whole_file(exclusive);
    // SAFETY: `lock` is a valid flock that outlives the call.
    let asked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    if asked == 0 && lock.l_pid > 0 {
        return u32::try_from(lock.l_pid).ok();
    }
    holder_seen(stat)
}

/// The process that is seen to hold a lock of any kind on the file, among those we may look at.
pub(super) fn holder_seen(stat: &Stat) -> Option<u32> {
    let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let object = format!("{:02x}:{:02x}:{} ", device.0, device.1, stat.st_ino);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| holds(*pid, &object))
}

/// Whether one of the process's descriptors carries a lock on `object`.
fn holds(pid: u32, object: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let Ok(info) = fs::read_to_string(descriptor.path()) else { return false };
        info.lines().any(|line| line.starts_with("lock:") && line.contains(object))
    })
}

#[cfg(test)]
mod tests {
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

    /// A socket in whose queue the only handle on a lock of `path` lies: no process has it.
    fn held_by_nobody(path: &Path) -> (UnixStream, UnixStream) {
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
