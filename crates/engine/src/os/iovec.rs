//! Scattered reads and writes: the one place where buffers become pointers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use spindle_mem::Buffers;

/// The most slices the kernel takes at once.
const MOST: usize = libc::UIO_MAXIOV as usize;

/// A reused list of pointers into buffers. Each fill replaces the list; the pointers are valid while the
/// buffers live and are not accessed.
#[derive(Default)]
pub(crate) struct IoVecs(Vec<libc::iovec>);

impl IoVecs {
    /// The buffers from byte `skip` on, for the kernel to fill. At most 1024 slices.
    pub(crate) fn for_filling(&mut self, buffers: &mut Buffers, skip: usize) -> &mut [libc::iovec] {
        self.set(buffers.iter_mut().map(|slice| (slice.as_mut_ptr(), slice.len())), skip)
    }

    /// The buffers from byte `skip` on, for the kernel to read. At most 1024 slices.
    pub(crate) fn for_taking(&mut self, buffers: &Buffers, skip: usize) -> &mut [libc::iovec] {
        self.set(buffers.iter().map(|slice| (slice.as_ptr().cast_mut(), slice.len())), skip)
    }

    fn set(&mut self, slices: impl Iterator<Item = (*mut u8, usize)>, mut skip: usize) -> &mut [libc::iovec] {
        self.0.clear();
        for (start, length) in slices {
            let passed = skip.min(length);
            skip -= passed;
            if passed < length && self.0.len() < MOST {
                let iov_base = start.wrapping_add(passed).cast();
                self.0.push(libc::iovec { iov_base, iov_len: length - passed });
            }
        }
        &mut self.0
    }
}

/// Converts a system call's result, and repeats the call if a signal interrupted it.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Reads at `offset` into the buffers from byte `skip` on. May be short.
pub(crate) fn read_at(
    fd: BorrowedFd<'_>,
    buffers: &mut Buffers,
    skip: usize,
    offset: u64,
    vecs: &mut IoVecs,
) -> io::Result<usize> {
    let list = vecs.for_filling(buffers, skip);
    // SAFETY: the list points into `buffers`, borrowed mutably until the call has returned.
    retried(|| unsafe { libc::preadv(fd.as_raw_fd(), list.as_ptr(), list.len() as i32, at(offset)) })
}

/// Writes the buffers from byte `skip` on at `offset`. May be short.
pub(crate) fn write_at(
    fd: BorrowedFd<'_>,
    buffers: &Buffers,
    skip: usize,
    offset: u64,
    vecs: &mut IoVecs,
) -> io::Result<usize> {
    let list = vecs.for_taking(buffers, skip);
    // SAFETY: the list points into `buffers`, borrowed until the call has returned; the kernel only reads.
    retried(|| unsafe { libc::pwritev(fd.as_raw_fd(), list.as_ptr(), list.len() as i32, at(offset)) })
}

/// Receives into the buffers without blocking. 0: the stream has ended.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffers: &mut Buffers, vecs: &mut IoVecs) -> io::Result<usize> {
    let mut message = message(vecs.for_filling(buffers, 0));
    // SAFETY: the message points at the list, which points into `buffers`, borrowed mutably until the
    // call has returned; every other field is null or zero.
    retried(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) })
}

/// Sends the buffers from byte `skip` on without blocking. May be short. Never raises SIGPIPE.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    buffers: &Buffers,
    skip: usize,
    vecs: &mut IoVecs,
) -> io::Result<usize> {
    let message = message(vecs.for_taking(buffers, skip));
    // SAFETY: as in `receive`; the kernel only reads the buffers.
    retried(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// A message that carries the list and nothing else. It points at the list.
pub(crate) fn message(list: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a message header of zeroes and null pointers is valid: no name, no control data, no slices.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = list.as_mut_ptr();
    message.msg_iovlen = list.len();
    message
}

/// Offsets past the kernel's signed range come out negative and are refused by it (EINVAL).
fn at(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(-1)
}
