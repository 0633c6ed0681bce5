//! One operation between its submission and its completion: the entry it needs next, and what the
//! kernel's answer means for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};
use rustix::event::PollFlags;
use rustix::net::SocketAddrAny;
use spindle_mem::Buffers;

use crate::engine::Home;
use crate::os::{IoVecs, files, iovec, sockets};
use crate::{Interest, Op, Output, Socket, Token};

/// The most bytes the kernel moves in one call.
const MOST: usize = 0x7fff_f000;

/// What the kernel may read or write besides the buffers. Boxed, so that it stays where it is while the
/// table of flights grows; reused, so that a warm driver does not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    vecs: IoVecs,
    message: Option<libc::msghdr>,
    address: Option<SocketAddrAny>,
}

/// An operation under way.
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) op: Op,
    /// The number and key by which the kernel knows it; the number is not used again soon.
    pub(super) user_data: u64,
    /// Bytes moved so far.
    done: usize,
    /// It was asked to end: what is left is not submitted.
    pub(super) cancelled: bool,
    pub(super) scratch: Option<Box<Scratch>>,
    /// The socket that a connect makes.
    connecting: Option<Socket>,
}

/// What the kernel's answer means.
pub(super) enum Step {
    Done(io::Result<Output>),
    /// There is more to move: submit the next entry.
    Again,
}

impl Flight {
    pub(super) fn new(token: Token, op: Op, user_data: u64) -> Flight {
        Flight { token, op, user_data, done: 0, cancelled: false, scratch: None, connecting: None }
    }

    /// The entry to submit next. It points into this flight's buffers and scratch and into nothing else.
    pub(super) fn entry(&mut self, spare: &mut Vec<Box<Scratch>>, home: &Home) -> io::Result<Entry> {
        let done = self.done;
        let slot = &mut self.scratch;
        let entry = match &mut self.op {
            Op::Read { file, offset, buffers } => {
                let fd = Fd(file.fd()?.as_raw_fd());
                let at = offset.saturating_add(done as u64);
                match buffers {
                    Buffers::One(one) => {
                        let (start, length) = rest_mut(one, done);
                        opcode::Read::new(fd, start, length).offset(at).build()
                    }
                    many => {
                        let list = scratch(slot, spare).vecs.to_fill(many, done);
                        opcode::Readv::new(fd, list.as_ptr(), list.len() as u32).offset(at).build()
                    }
                }
            }
            Op::Write { file, offset, buffers } => {
                let fd = Fd(file.fd()?.as_raw_fd());
                let at = offset.saturating_add(done as u64);
                match buffers {
                    Buffers::One(one) => {
                        let (start, length) = rest(one, done);
                        opcode::Write::new(fd, start, length).offset(at).build()
                    }
                    many => {
                        let list = scratch(slot, spare).vecs.to_take(many, done);
                        opcode::Writev::new(fd, list.as_ptr(), list.len() as u32).offset(at).build()
                    }
                }
            }
            Op::Flush { file } => {
                let fd = Fd(file.fd()?.as_raw_fd());
                opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
            }
            Op::Recv { socket, buffers } => {
                let fd = Fd(socket.fd()?.as_raw_fd());
                match buffers {
                    Buffers::One(one) => {
                        let (start, length) = rest_mut(one, 0);
                        opcode::Recv::new(fd, start, length).build()
                    }
                    many => {
                        let scratch = scratch(slot, spare);
                        let message = iovec::message(scratch.vecs.to_fill(many, 0));
                        opcode::RecvMsg::new(fd, scratch.message.insert(message)).build()
                    }
                }
            }
            Op::Send { socket, buffers } => {
                let fd = Fd(socket.fd()?.as_raw_fd());
                // The kernel goes on by itself as long as it can; what it leaves we submit again.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                match buffers {
                    Buffers::One(one) => {
                        let (start, length) = rest(one, done);
                        opcode::Send::new(fd, start, length).flags(flags).build()
                    }
                    many => {
                        let scratch = scratch(slot, spare);
                        let message = iovec::message(scratch.vecs.to_take(many, done));
                        let message: *const libc::msghdr = scratch.message.insert(message);
                        opcode::SendMsg::new(fd, message).flags(flags as u32).build()
                    }
                }
            }
            Op::Accept { listener } => {
                let fd = Fd(listener.fd()?.as_raw_fd());
                let (nobody, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
                opcode::Accept::new(fd, nobody, nothing).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::Connect { address } => {
                let (fd, kernel) = sockets::stream_for(address, true)?;
                let socket = self.connecting.insert(Socket::from_fd(fd, home));
                let kernel = scratch(slot, spare).address.insert(kernel);
                let fd = Fd(socket.fd()?.as_raw_fd());
                opcode::Connect::new(fd, kernel.as_ptr().cast(), kernel.addr_len()).build()
            }
            Op::Poll { fd, interest } => {
                opcode::PollAdd::new(Fd(fd.as_fd().as_raw_fd()), u32::from(wanted(*interest).bits())).build()
            }
            other => unreachable!("'{}' does not go through the ring", other.name()),
        };
        Ok(entry.user_data(self.user_data))
    }

    /// Takes the kernel's answer.
    pub(super) fn on_result(&mut self, result: i32, home: &Home) -> Step {
        let Ok(count) = usize::try_from(result) else {
            return match -result {
                libc::ECANCELED => Step::Done(Err(interrupted())),
                libc::EINTR | libc::EAGAIN if self.cancelled => Step::Done(Err(interrupted())),
                libc::EINTR | libc::EAGAIN => Step::Again,
                errno => Step::Done(Err(io::Error::from_raw_os_error(errno))),
            };
        };
        match &self.op {
            Op::Read { file, buffers, .. } => {
                self.done += count;
                if count == 0 || self.done == buffers.len() || files::ends_here(file, self.done) {
                    return Step::Done(Ok(Output::Bytes(self.done)));
                }
                self.again()
            }
            Op::Write { buffers, .. } | Op::Send { buffers, .. } => {
                self.done += count;
                if self.done == buffers.len() {
                    return Step::Done(Ok(Output::Bytes(self.done)));
                }
                if count == 0 {
                    return Step::Done(Err(io::ErrorKind::WriteZero.into()));
                }
                self.again()
            }
            Op::Recv { .. } => Step::Done(Ok(Output::Bytes(count))),
            Op::Accept { .. } => {
                let socket = Socket::from_fd(accepted(result), home);
                if let Ok(fd) = socket.fd() {
                    sockets::no_delay(fd);
                }
                Step::Done(Ok(Output::Socket(socket)))
            }
            Op::Connect { .. } => {
                let socket =
                    self.connecting.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
                Step::Done(socket.map(Output::Socket))
            }
            Op::Poll { .. } => {
                let told = PollFlags::from_bits_truncate(count as u16);
                Step::Done(Ok(Output::Ready(crate::epoll::ready_for(told))))
            }
            _ => Step::Done(Ok(Output::Done)),
        }
    }

    fn again(&self) -> Step {
        if self.cancelled { Step::Done(Err(interrupted())) } else { Step::Again }
    }
}

/// The flight's scratch, a used one where there is one.
fn scratch<'a>(slot: &'a mut Option<Box<Scratch>>, spare: &mut Vec<Box<Scratch>>) -> &'a mut Scratch {
    slot.get_or_insert_with(|| spare.pop().unwrap_or_default())
}

/// Takes charge of the descriptor that an accept returned.
fn accepted(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for us just now and told it to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "cancelled")
}

fn wanted(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.readable);
    flags.set(PollFlags::OUT, interest.writable);
    flags
}

fn rest(bytes: &[u8], done: usize) -> (*const u8, u32) {
    let rest = &bytes[done..];
    (rest.as_ptr(), rest.len().min(MOST) as u32)
}

fn rest_mut(bytes: &mut [u8], done: usize) -> (*mut u8, u32) {
    let rest = &mut bytes[done..];
    (rest.as_mut_ptr(), rest.len().min(MOST) as u32)
}
