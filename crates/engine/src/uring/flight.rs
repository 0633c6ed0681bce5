//! One operation between its submission and its completion: the entry it needs next, and the meaning of the
//! kernel's result.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};
use rustix::event::PollFlags;
use rustix::net::SocketAddrAny;
use spindle_mem::Buffers;

use crate::engine_id::EngineId;
use crate::os::{IoVecs, files, iovec, readiness, sockets};
use crate::{Op, Output, Socket, Token};

/// The most bytes the kernel moves in one call.
const MOST: usize = 0x7fff_f000;

/// What the kernel may read or write besides the buffers. Boxed, so that it does not move while the table of
/// flights grows; reused, so that a warm driver does not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    vecs: IoVecs,
    message: Option<libc::msghdr>,
    address: Option<SocketAddrAny>,
}

/// Scratch of finished flights, for the next ones.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "the kernel holds the address of what is in the box")]
pub(super) struct Spare(Vec<Box<Scratch>>);

impl Spare {
    pub(super) fn keep(&mut self, scratch: Option<Box<Scratch>>) {
        self.0.extend(scratch);
    }
}

/// An operation under way.
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) op: Op,
    /// The kernel's identifier for it: serial number and key; the serial number is not reused soon.
    pub(super) user_data: u64,
    /// Bytes moved so far.
    done: usize,
    /// Its entry's number in the ring's overflow queue, if it went there.
    pub(super) queued: Option<u64>,
    /// Set if it was cancelled: the rest is not submitted.
    pub(super) cancelled: bool,
    /// Set while its entry posts no completion if it sends everything.
    pub(super) quiet: bool,
    /// For a receive of many: the group of its buffers, if the kernel picks them.
    pub(super) group: Option<u16>,
    /// True if the kernel continues it without a new entry.
    pub(super) goes_on: bool,
    /// For a send without copying: the notices to come, whether it copies instead, and its result.
    pub(super) notices: u32,
    pub(super) copies: bool,
    pub(super) outcome: Option<io::Result<Output>>,
    /// True if the next send of its stream has been started.
    pub(super) passed_on: bool,
    pub(super) scratch: Option<Box<Scratch>>,
    /// The socket that a connect makes.
    connecting: Option<Socket>,
}

/// The meaning of the kernel's result.
pub(super) enum Step {
    Done(io::Result<Output>),
    /// There is more to move: submit the next entry.
    Again,
}

impl Flight {
    pub(super) fn new(token: Token, op: Op, user_data: u64) -> Flight {
        Flight {
            token,
            op,
            user_data,
            done: 0,
            queued: None,
            cancelled: false,
            quiet: false,
            group: None,
            goes_on: false,
            notices: 0,
            copies: false,
            outcome: None,
            passed_on: false,
            scratch: None,
            connecting: None,
        }
    }

    /// The entry to submit next. It points into this flight's buffers and scratch and into nothing else.
    pub(super) fn entry(&mut self, spare: &mut Spare, engine_id: &EngineId) -> io::Result<Entry> {
        let done = self.done;
        let room = Room { slot: &mut self.scratch, spare };
        let entry = match &mut self.op {
            Op::Read { file, offset, buffers } => {
                read(as_fd(file.fd()?), offset.saturating_add(done as u64), buffers, done, room)
            }
            Op::Write { file, offset, buffers } => {
                write(as_fd(file.fd()?), offset.saturating_add(done as u64), buffers, done, room)
            }
            Op::Flush { file } => opcode::Fsync::new(as_fd(file.fd()?)).flags(FsyncFlags::DATASYNC).build(),
            Op::Recv { socket, buffers } => receive(as_fd(socket.fd()?), buffers, room),
            Op::Send { socket, buffers } | Op::SendQuietly { socket, buffers } => {
                let how = if self.quiet { libc::MSG_DONTWAIT } else { 0 };
                let entry = send(as_fd(socket.fd()?), buffers, done, room, how);
                if self.quiet { entry.flags(Flags::SKIP_SUCCESS) } else { entry }
            }
            Op::SendZeroCopy { socket, buffers } if self.copies => {
                send(as_fd(socket.fd()?), buffers, done, room, 0)
            }
            Op::SendZeroCopy { socket, buffers } => send_zero_copy(as_fd(socket.fd()?), buffers, done, room),
            Op::RecvMany { socket, .. } => match self.group {
                Some(group) => opcode::RecvMulti::new(as_fd(socket.fd()?), group).build(),
                None => opcode::PollAdd::new(as_fd(socket.fd()?), u32::from(PollFlags::IN.bits())).build(),
            },
            Op::AcceptMany { listener } if self.goes_on => {
                opcode::AcceptMulti::new(as_fd(listener.fd()?)).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::PollMany { fd, interest } => {
                let wanted = u32::from(readiness::wanted(*interest).bits());
                opcode::PollAdd::new(as_fd(fd.as_fd()), wanted).multi(self.goes_on).build()
            }
            Op::Accept { listener } | Op::AcceptMany { listener } => {
                let (no_address, no_len) = (ptr::null_mut(), ptr::null_mut());
                opcode::Accept::new(as_fd(listener.fd()?), no_address, no_len)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Op::Connect { address } => {
                let (fd, kernel) = sockets::stream_for(address, true)?;
                let socket = self.connecting.insert(Socket::from_fd(fd, engine_id));
                let kernel = room.get().address.insert(kernel);
                opcode::Connect::new(as_fd(socket.fd()?), kernel.as_ptr().cast(), kernel.addr_len()).build()
            }
            Op::Poll { fd, interest } => {
                opcode::PollAdd::new(as_fd(fd.as_fd()), u32::from(readiness::wanted(*interest).bits()))
                    .build()
            }
            other => unreachable!("'{}' does not go through the ring", other.name()),
        };
        Ok(entry.user_data(self.user_data))
    }

    /// Handles the kernel's result.
    pub(super) fn on_result(&mut self, result: i32, engine_id: &EngineId) -> Step {
        // The stream did not take all of it at once: the rest goes as any other send.
        self.quiet = false;
        let Ok(count) = usize::try_from(result) else {
            return match -result {
                libc::ECANCELED => Step::Done(Err(interrupted())),
                libc::EINTR | libc::EAGAIN if self.cancelled => Step::Done(Err(interrupted())),
                libc::EINTR | libc::EAGAIN => Step::Again,
                errno => {
                    let error = io::Error::from_raw_os_error(errno);
                    Step::Done(Err(match &self.op {
                        Op::Connect { address } => sockets::cannot_connect(address, error),
                        _ => error,
                    }))
                }
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
            Op::Write { buffers, .. }
            | Op::Send { buffers, .. }
            | Op::SendQuietly { buffers, .. }
            | Op::SendZeroCopy { buffers, .. } => {
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
            Op::Accept { .. } | Op::AcceptMany { .. } => {
                let socket = Socket::from_fd(accepted(result), engine_id);
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
            Op::Poll { .. } | Op::PollMany { .. } => {
                let told = PollFlags::from_bits_truncate(count as u16);
                Step::Done(Ok(Output::Ready(readiness::told(told))))
            }
            _ => Step::Done(Ok(Output::Done)),
        }
    }

    /// The length of its buffers.
    pub(super) fn length(&self) -> usize {
        match &self.op {
            Op::SendQuietly { buffers, .. } | Op::SendZeroCopy { buffers, .. } => buffers.len(),
            _ => 0,
        }
    }

    fn again(&self) -> Step {
        if self.cancelled { Step::Done(Err(interrupted())) } else { Step::Again }
    }
}

/// Where a flight's scratch is or will be.
struct Room<'a> {
    slot: &'a mut Option<Box<Scratch>>,
    spare: &'a mut Spare,
}

impl<'a> Room<'a> {
    /// The flight's scratch: its own, a used one, or a new one.
    fn get(self) -> &'a mut Scratch {
        self.slot.get_or_insert_with(|| self.spare.0.pop().unwrap_or_default())
    }
}

fn read(fd: Fd, at: u64, buffers: &mut Buffers, done: usize, room: Room<'_>) -> Entry {
    if let Buffers::One(one) = buffers {
        let (start, length) = rest_mut(one, done);
        return opcode::Read::new(fd, start, length).offset(at).build();
    }
    let list = room.get().vecs.for_filling(buffers, done);
    opcode::Readv::new(fd, list.as_ptr(), list.len() as u32).offset(at).build()
}

fn write(fd: Fd, at: u64, buffers: &Buffers, done: usize, room: Room<'_>) -> Entry {
    if let Buffers::One(one) = buffers {
        let (start, length) = rest(one, done);
        return opcode::Write::new(fd, start, length).offset(at).build();
    }
    let list = room.get().vecs.for_taking(buffers, done);
    opcode::Writev::new(fd, list.as_ptr(), list.len() as u32).offset(at).build()
}

fn receive(fd: Fd, buffers: &mut Buffers, room: Room<'_>) -> Entry {
    if let Buffers::One(one) = buffers {
        let (start, length) = rest_mut(one, 0);
        return opcode::Recv::new(fd, start, length).build();
    }
    let scratch = room.get();
    let message = iovec::message(scratch.vecs.for_filling(buffers, 0));
    opcode::RecvMsg::new(fd, scratch.message.insert(message)).build()
}

fn send(fd: Fd, buffers: &Buffers, done: usize, room: Room<'_>, how: i32) -> Entry {
    // The kernel continues as long as it can; the rest is submitted again.
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | how;
    if let Buffers::One(one) = buffers {
        let (start, length) = rest(one, done);
        return opcode::Send::new(fd, start, length).flags(flags).build();
    }
    let scratch = room.get();
    let message = iovec::message(scratch.vecs.for_taking(buffers, done));
    opcode::SendMsg::new(fd, ptr::from_mut(scratch.message.insert(message))).flags(flags as u32).build()
}

fn send_zero_copy(fd: Fd, buffers: &Buffers, done: usize, room: Room<'_>) -> Entry {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    if let Buffers::One(one) = buffers {
        let (start, length) = rest(one, done);
        return opcode::SendZc::new(fd, start, length).flags(flags).build();
    }
    let scratch = room.get();
    let message = iovec::message(scratch.vecs.for_taking(buffers, done));
    opcode::SendMsgZc::new(fd, ptr::from_mut(scratch.message.insert(message))).flags(flags as u32).build()
}

fn as_fd(fd: BorrowedFd<'_>) -> Fd {
    Fd(fd.as_raw_fd())
}

/// Takes ownership of the descriptor that an accept returned.
fn accepted(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for this operation just now; nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "cancelled")
}

fn rest(bytes: &[u8], done: usize) -> (*const u8, u32) {
    let rest = &bytes[done..];
    (rest.as_ptr(), rest.len().min(MOST) as u32)
}

fn rest_mut(bytes: &mut [u8], done: usize) -> (*mut u8, u32) {
    let rest = &mut bytes[done..];
    (rest.as_mut_ptr(), rest.len().min(MOST) as u32)
}
