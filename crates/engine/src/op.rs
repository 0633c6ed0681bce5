//! An asynchronous operation handed to a [`Driver`](crate::Driver), and what comes back.
//!
//! An operation owns its buffers and handles until it completes: memory that the kernel may still touch
//! cannot be reached from safe code, and a cancelled operation still comes back.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use spindle_mem::{Buffers, IoBuf};

use crate::engine_id::EngineId;
use crate::{Address, Asker, File, FileInfo, Interest, Listener, OpenOptions, ReceivePool, Shutdown, Socket};

/// The submitter's identifier of an operation; the driver returns it unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One operation. Offsets and lengths are bytes. A handle of another engine gives an error
/// ([`io::ErrorKind::InvalidInput`]), never undefined behaviour.
#[derive(Debug)]
#[non_exhaustive]
pub enum Op {
    /// Opens a file or block device. Output: [`Output::File`]. When the last handle drops a worker closes it.
    Open {
        /// What to open and how.
        options: Box<OpenOptions>,
    },
    /// Reads the file's size and geometry again. Output: [`Output::Info`].
    Inspect {
        /// The file.
        file: File,
    },
    /// Reads `buffers.len()` bytes at `offset`. Output: [`Output::Bytes`], fewer than asked only where
    /// the file ends.
    Read {
        /// The file.
        file: File,
        /// Byte offset in the file.
        offset: u64,
        /// Filled on success, in order.
        buffers: Buffers,
    },
    /// Writes all of `buffers` at `offset`: everything or an error. Output: [`Output::Bytes`].
    /// Durable only after a later [`Op::Flush`].
    Write {
        /// The file.
        file: File,
        /// Byte offset in the file.
        offset: u64,
        /// Written in order.
        buffers: Buffers,
    },
    /// Makes every write of this file that had completed when this was submitted durable, with the metadata
    /// needed to read it back (fdatasync). Output: [`Output::Done`]. After a failure the state of every write
    /// since the last success is unknown.
    Flush {
        /// The file.
        file: File,
    },
    /// Finds the first `unit` bytes from `offset` on, a multiple of `unit`, that may hold data; or, for a `hole`,
    /// the first that are known to hold none. Output: [`Output::Found`], the end of the file if there are none.
    /// An error of kind [`io::ErrorKind::Unsupported`] where the system cannot tell.
    Seek {
        /// The file.
        file: File,
        /// Byte offset at which to begin.
        offset: u64,
        /// Bytes that are looked at as one.
        unit: u64,
        /// True to look for a hole.
        hole: bool,
    },
    /// Makes the range read zero, within the file's size; zeroes are written where nothing faster is
    /// offered. Output: [`Output::Done`].
    ZeroRange {
        /// The file.
        file: File,
        /// Byte offset of the range.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Tells the device that the range is unused: a hole in a file, BLKDISCARD on a block device. What it
    /// reads afterwards: [`FileInfo::discard_reads_zero`]. Output: [`Output::Done`]; where it is not
    /// supported, an error of kind [`io::ErrorKind::Unsupported`], and nothing has changed.
    Discard {
        /// The file.
        file: File,
        /// Byte offset of the range.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Binds and listens. Output: [`Output::Listener`]. A Unix socket's file stays when the listener closes;
    /// the caller must remove a stale one.
    Listen {
        /// Where to listen; TCP port 0 picks a free one, see [`Listener::address`].
        address: Box<Address>,
        /// Connections that may wait to be accepted.
        backlog: u32,
    },
    /// Binds a Unix path and listens, as its sole owner: holds a flock on `PATH.lock` as SPDK's applications
    /// do, removes a socket left by a killed process, and gives the socket the mode 0600. Both files are
    /// removed when the last handle on the listener drops. Output: [`Output::Listener`]. If there is another
    /// owner: the error [`io::ErrorKind::AddrInUse`], which names its process if known.
    ListenAlone {
        /// The socket's path.
        path: Box<PathBuf>,
        /// Connections that may wait to be accepted.
        backlog: u32,
    },
    /// Takes the next connection. Output: [`Output::Socket`].
    Accept {
        /// Where from.
        listener: Listener,
    },
    /// Takes connections as they come: one [`Output::Socket`] each, and [more](Completion::more) until it is
    /// cancelled or fails.
    AcceptMany {
        /// Where from.
        listener: Listener,
    },
    /// Connects. Output: [`Output::Socket`]. If a Unix listener's backlog is full, it refuses (epoll,
    /// simulation) or the connect waits (io_uring).
    Connect {
        /// Where to.
        address: Box<Address>,
    },
    /// Makes two stream sockets connected to each other. Output: [`Output::Pair`].
    Pair,
    /// Receives at least one byte into `buffers`, up to their length. Output: [`Output::Bytes`]; 0 means
    /// that the peer sends no more, or that there was no room to receive into.
    Recv {
        /// The socket.
        socket: Socket,
        /// Filled from the front.
        buffers: Buffers,
    },
    /// Receives bytes as they come, into buffers that are taken when they come, so that a silent stream holds none:
    /// one [`Output::Received`] each, in order, and [more](Completion::more) until the stream ends, which is an
    /// empty one. If the pool is empty when bytes come, the operation ends with an error of kind
    /// [`io::ErrorKind::OutOfMemory`]; no byte is lost, and another may be submitted once there is memory. Bytes
    /// that came before a cancellation are reported before its end.
    RecvMany {
        /// The socket.
        socket: Socket,
        /// Where the buffers come from.
        pool: ReceivePool,
    },
    /// Sends all of `buffers`: everything or an error, after earlier sends of this driver on the stream.
    /// Output: [`Output::Bytes`]. After an error or a cancellation any part may have gone out: close the
    /// stream. If the peer is gone: the error [`io::ErrorKind::BrokenPipe`], never SIGPIPE.
    Send {
        /// The socket.
        socket: Socket,
        /// Sent in order.
        buffers: Buffers,
    },
    /// As [`Op::Send`], by a sender that does not wait for the end: if the stream takes all bytes at once, that
    /// ends no sleep, and the completion is handed out with the driver's next event, or after
    /// [`Driver::hurry`](crate::Driver::hurry). So an answer and the wait for the next request are one system call.
    /// Until then the buffers are kept: at most 256 KiB of them by each driver, beyond which this is [`Op::Send`].
    SendQuietly {
        /// The socket.
        socket: Socket,
        /// Sent in order.
        buffers: Buffers,
    },
    /// As [`Op::Send`], without copying where the system can (TCP): the first completion carries the result, with
    /// [more](Completion::more) to come; the last one, [`Output::Done`], brings the buffers back when the system
    /// reads them no more, which may be when the peer has confirmed the bytes. An error comes as the last.
    SendZeroCopy {
        /// The socket.
        socket: Socket,
        /// Sent in order.
        buffers: Buffers,
    },
    /// Ends one or both directions of a stream. Output: [`Output::Done`].
    Shutdown {
        /// The socket.
        socket: Socket,
        /// Which directions.
        how: Shutdown,
    },
    /// Waits until a foreign descriptor is ready. Output: [`Output::Ready`]. Not supported in simulation
    /// ([`io::ErrorKind::Unsupported`]): a foreign descriptor does not follow the seed.
    Poll {
        /// The descriptor; stays open until the operation completes.
        fd: Arc<OwnedFd>,
        /// What to wait for.
        interest: Interest,
    },
    /// As [`Op::Poll`], each time that the descriptor may have become ready again: one [`Output::Ready`] each, and
    /// [more](Completion::more) until it is cancelled. A readiness that was reported is not reported again until
    /// something changes.
    PollMany {
        /// The descriptor; stays open until the operation completes.
        fd: Arc<OwnedFd>,
        /// What to wait for.
        interest: Interest,
    },
    /// In place of an operation that goes on, in a [`Completion`] that is not the last. Submitted, it does nothing:
    /// [`Output::Done`].
    UnderWay,
}

impl Op {
    /// True if only the other side can end it, and may never do so: it waits for a connection, for a peer's
    /// bytes, or for room or readiness.
    pub fn waits_for_peer(&self) -> bool {
        self.is_parked() || matches!(self, Op::Connect { .. } | Op::Send { .. })
    }

    /// True if it may wait for a peer for an unlimited time. Drivers are not asked about it meanwhile; see
    /// [`Driver::has_news`](crate::Driver::has_news).
    pub(crate) fn is_parked(&self) -> bool {
        use Op::{Accept, AcceptMany, Poll, PollMany, Recv, RecvMany, SendQuietly, SendZeroCopy};
        matches!(self, Accept { .. } | Recv { .. } | Poll { .. } | SendQuietly { .. } | SendZeroCopy { .. })
            || matches!(self, AcceptMany { .. } | RecvMany { .. } | PollMany { .. })
    }

    /// True if it goes on after a result, unless that ends it.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Op::AcceptMany { .. } | Op::RecvMany { .. } | Op::PollMany { .. })
    }

    /// The stream that it sends on, if it is a send.
    pub(crate) fn sends_on(&self) -> Option<&Socket> {
        match self {
            Op::Send { socket, .. } | Op::SendQuietly { socket, .. } | Op::SendZeroCopy { socket, .. } => {
                Some(socket)
            }
            _ => None,
        }
    }

    /// Gives an open a new asker, by which it can be [given up](Asker::give_up). `None` for other operations.
    pub fn asker(&mut self) -> Option<Asker> {
        match self {
            Op::Open { options } => Some(options.asker.insert(Asker::default()).clone()),
            _ => None,
        }
    }

    /// The buffers the operation owned; none for kinds without buffers.
    pub fn into_buffers(self) -> Buffers {
        match self {
            Op::Read { buffers, .. }
            | Op::Write { buffers, .. }
            | Op::Recv { buffers, .. }
            | Op::Send { buffers, .. }
            | Op::SendQuietly { buffers, .. }
            | Op::SendZeroCopy { buffers, .. } => buffers,
            _ => Buffers::None,
        }
    }

    /// An error if a handle in it belongs to another engine than `engine_id`, or its offset is beyond any file.
    pub(crate) fn check(&self, engine_id: &EngineId) -> io::Result<()> {
        match self {
            Op::Read { file, offset, .. } | Op::Write { file, offset, .. } => {
                engine_id.check(&file.0.engine_id, file)?;
                // The kernel counts in signed numbers, and io_uring takes -1 for "where the last one ended".
                if i64::try_from(*offset).is_err() {
                    let message =
                        format!("byte {offset} of {file:?} is beyond the largest offset of a file, 2^63 - 1");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                Ok(())
            }
            Op::Inspect { file }
            | Op::Flush { file }
            | Op::Seek { file, .. }
            | Op::ZeroRange { file, .. }
            | Op::Discard { file, .. } => engine_id.check(&file.0.engine_id, file),
            Op::Accept { listener } | Op::AcceptMany { listener } => {
                engine_id.check(&listener.0.engine_id, listener)
            }
            Op::Recv { socket, .. }
            | Op::Send { socket, .. }
            | Op::SendQuietly { socket, .. }
            | Op::SendZeroCopy { socket, .. }
            | Op::RecvMany { socket, .. }
            | Op::Shutdown { socket, .. } => engine_id.check(&socket.0.engine_id, socket),
            Op::Open { .. }
            | Op::Listen { .. }
            | Op::ListenAlone { .. }
            | Op::Connect { .. }
            | Op::Pair
            | Op::Poll { .. }
            | Op::PollMany { .. }
            | Op::UnderWay => Ok(()),
        }
    }

    /// Adds the operation and its object to an error of the system, which is only a number. An error that
    /// already has words stays as it is, and so does an error of a stream, which has no name. The kind is
    /// kept, and the system's error is the source of the new one.
    pub fn named(&self, error: io::Error) -> io::Error {
        let object = self.object();
        let has_words = error.get_ref().is_some_and(|inner| !inner.is::<io::Error>());
        if object.is_empty() || has_words {
            return error;
        }
        let what = match self {
            Op::Read { offset, buffers, .. } | Op::Write { offset, buffers, .. } => {
                format!("{} of {} bytes at offset {offset} of {object}", self.name(), buffers.len())
            }
            Op::ZeroRange { offset, length, .. } | Op::Discard { offset, length, .. } => {
                format!("{} of {length} bytes at offset {offset} of {object}", self.name())
            }
            _ => format!("{} of {object}", self.name()),
        };
        io::Error::new(error.kind(), NamedError { what, source: error })
    }

    /// Its path or address; empty if it has none.
    fn object(&self) -> String {
        match self {
            Op::Open { options } => options.path.display().to_string(),
            Op::Inspect { file }
            | Op::Read { file, .. }
            | Op::Write { file, .. }
            | Op::Flush { file }
            | Op::Seek { file, .. }
            | Op::ZeroRange { file, .. }
            | Op::Discard { file, .. } => file.path().display().to_string(),
            Op::Listen { address, .. } | Op::Connect { address } => address.to_string(),
            Op::ListenAlone { path, .. } => path.display().to_string(),
            Op::Accept { listener } | Op::AcceptMany { listener } => listener.address().to_string(),
            Op::Pair
            | Op::Recv { .. }
            | Op::Send { .. }
            | Op::SendQuietly { .. }
            | Op::SendZeroCopy { .. }
            | Op::RecvMany { .. }
            | Op::Shutdown { .. }
            | Op::Poll { .. }
            | Op::PollMany { .. }
            | Op::UnderWay => String::new(),
        }
    }

    /// A short name for reports: "read", "flush".
    pub fn name(&self) -> &'static str {
        match self {
            Op::Open { .. } => "open",
            Op::Inspect { .. } => "inspect",
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::Flush { .. } => "flush",
            Op::Seek { hole: false, .. } => "seek data",
            Op::Seek { hole: true, .. } => "seek hole",
            Op::ZeroRange { .. } => "zero range",
            Op::Discard { .. } => "discard",
            Op::Listen { .. } | Op::ListenAlone { .. } => "listen",
            Op::Accept { .. } | Op::AcceptMany { .. } => "accept",
            Op::Connect { .. } => "connect",
            Op::Pair => "pair",
            Op::Recv { .. } | Op::RecvMany { .. } => "recv",
            Op::Send { .. } | Op::SendQuietly { .. } | Op::SendZeroCopy { .. } => "send",
            Op::Shutdown { .. } => "shutdown",
            Op::Poll { .. } | Op::PollMany { .. } => "poll",
            Op::UnderWay => "under way",
        }
    }
}

/// The error of a named operation, and the system's error.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
struct NamedError {
    what: String,
    source: io::Error,
}

/// The result of a successful operation. [`Op`] states which operation gives which.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Success without data.
    Done,
    /// That many bytes were moved.
    Bytes(usize),
    /// A byte offset.
    Found(u64),
    /// An open file.
    File(File),
    /// A file's size and geometry.
    Info(FileInfo),
    /// A connected stream.
    Socket(Socket),
    /// A listening socket.
    Listener(Listener),
    /// Bytes that have come; empty at the end of the stream.
    Received(IoBuf),
    /// Two streams connected to each other.
    Pair(Socket, Socket),
    /// What the foreign descriptor is ready for; an error or a hang-up counts as ready for both.
    Ready(Interest),
}

impl Output {
    /// True if an operation that goes on ends with it.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Output::Received(bytes) if bytes.is_empty())
    }

    /// Bytes moved; 0 for operations that move none.
    pub fn bytes(&self) -> usize {
        match self {
            Output::Bytes(n) => *n,
            Output::Received(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// A finished operation: its token, its result, and the operation itself with its buffers. Or one result of an
/// operation that goes on ([`Op::AcceptMany`] and the like).
#[derive(Debug)]
pub struct Completion {
    /// As given at submission.
    pub token: Token,
    /// Its result.
    pub result: io::Result<Output>,
    /// The operation, with the buffers it owned; [`Op::UnderWay`] if it goes on.
    pub op: Op,
    /// True if it goes on, and more completions come.
    pub more: bool,
}

impl Completion {
    /// A result of an operation that goes on.
    pub(crate) fn one_of_many(token: Token, output: Output) -> Completion {
        Completion { token, result: Ok(output), op: Op::UnderWay, more: true }
    }
}
