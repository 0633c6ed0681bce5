//! One opener at a time: a lock on the whole file that belongs to the open file, and who holds it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::Stat;

/// Locks the whole file until the description closes: exclusive or shared (F_OFD_SETLK). On conflict an
/// error of kind [`io::ErrorKind::WouldBlock`] that names the holder as far as it can be found.
pub(super) fn lock(fd: BorrowedFd<'_>, exclusive: bool, path: &Path, stat: &Stat) -> io::Result<()> {
    let mut lock = whole_file(exclusive);
    // SAFETY: `lock` is a valid flock that outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => {}
        // Some network and FUSE file systems know no locks: the promise cannot be kept there, so say so.
        _ => {
            let message =
                format!("cannot lock {}: {error}; open it unlocked if no one else uses it", path.display());
            return Err(io::Error::new(error.kind(), message));
        }
    }
    let holder = match holder(fd, exclusive, stat) {
        Some(pid) if pid == std::process::id() => "by this process itself".to_owned(),
        Some(pid) => format!("by process {pid}"),
        None => "by another process that cannot be seen from here".to_owned(),
    };
    let message = format!("{} is in use, locked {holder}; stop that first", path.display());
    Err(io::Error::new(io::ErrorKind::WouldBlock, message))
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
