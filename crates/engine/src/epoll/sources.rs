//! Descriptors that operations of one driver wait on, and the operations that wait.
//!
//! A descriptor is registered once, edge-triggered, when an operation on it first would block, and stays
//! registered while its handle lives; the kernel forgets it when it closes. It is registered for reading, and for
//! writing too while an operation waits to write: a peer that takes what was sent would otherwise end a sleep.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::event::{PollFd, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, accept_with, connect, sockopt};
use slab::Slab;
use spindle_mem::{Buffers, IoBuf};

use crate::engine_id::EngineId;
use crate::handle::{ListenerInner, SocketInner};
use crate::os::{IoVecs, readiness, sockets};
use crate::places::Places;
use crate::{Address, Completion, Interest, Listener, Op, Output, ReceivePool, Socket, Token};

/// The event data of the driver's own eventfd.
pub(super) const WAKE: u64 = u64::MAX;

/// Entries of a line that were taken back and may stay.
const FEW: usize = 16;

/// Number of sources at which dropped ones are first looked for.
const SWEEP_AT: usize = 64;

/// Results of operations that go on, from one source in a row: others wait.
const IN_A_ROW: usize = 16;

/// Whether an attempt finished the operation.
pub(super) enum Step {
    Done(io::Result<Output>),
    /// A result of an operation that goes on.
    More(Output),
    WouldBlock,
}

/// Guards a source's identity: its address is not reused while this lives.
enum Object {
    Socket(Weak<SocketInner>),
    Listener(Weak<ListenerInner>),
    Foreign(Weak<OwnedFd>),
}

impl Object {
    /// Calls `f` with the descriptor, if it is open.
    fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        match self {
            Object::Socket(weak) => weak.upgrade().map(Socket)?.fd().ok().map(f),
            Object::Listener(weak) => weak.upgrade().map(Listener)?.fd().ok().map(f),
            Object::Foreign(weak) => weak.upgrade().map(|fd| f(fd.as_fd())),
        }
    }

    fn alive(&self) -> bool {
        match self {
            Object::Socket(weak) => weak.strong_count() > 0,
            Object::Listener(weak) => weak.strong_count() > 0,
            Object::Foreign(weak) => weak.strong_count() > 0,
        }
    }
}

struct Source {
    object: Object,
    address: usize,
    /// Whether the kernel reports when it can be written to.
    tells_of_room: bool,
    readers: Line,
    writers: Line,
    lookers: Line,
}

/// Operations waiting on one side of a source, in order, and some that were taken back.
#[derive(Default)]
struct Line {
    /// By key and token: a key may have been reused.
    entries: VecDeque<(usize, Token)>,
    /// Number of those that wait.
    live: usize,
}

struct Waiting {
    token: Token,
    op: Op,
    /// The stream that a connect makes.
    connecting: Option<Socket>,
    /// Bytes that a send has sent.
    sent: usize,
    source: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Write,
    /// Takes no bytes, and so waits for no other operation.
    Look,
}

/// The descriptors, and the operations that wait on them.
#[derive(Default)]
pub(super) struct Sources {
    sources: Slab<Source>,
    by_address: BTreeMap<usize, usize>,
    waiting: Slab<Waiting>,
    /// Number of waiting operations that wait for a peer.
    parked: usize,
    /// The keys of waiting operations, by token.
    keys: Places,
    sweep_at: usize,
    /// Sides of sources whose operations may continue without new readiness from the kernel.
    eager: Vec<(usize, Side)>,
    /// System calls on the descriptors.
    pub(super) calls: u64,
}

impl Sources {
    /// Operations that wait for readiness.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Number of waiting operations that wait for a peer; see [`Op::is_parked`].
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Attempts `op`, unless others wait before it; waits if it would block.
    pub(super) fn start(
        &mut self,
        token: Token,
        op: Op,
        epoll: &OwnedFd,
        vecs: &mut IoVecs,
        engine_id: &EngineId,
        ready: &mut Vec<Completion>,
    ) -> Result<(), (io::Error, Op)> {
        let mut waiting = Waiting { token, op, connecting: None, sent: 0, source: usize::MAX };
        let known = waiting.address().and_then(|address| self.by_address.get(&address).copied());
        let side = waiting.side();
        let queued =
            side != Side::Look && known.is_some_and(|source| self.sources[source].line(side).live > 0);
        // The registration of a descriptor reports once what it is ready for.
        let told_later = side == Side::Look && waiting.op.goes_on() && known.is_none();
        let mut may_go_on = false;
        if !queued && !told_later {
            match waiting.attempt(vecs, engine_id, &mut self.calls) {
                Step::Done(result) => {
                    done(ready, token, result, waiting.op);
                    return Ok(());
                }
                Step::More(output) => {
                    ready.push(Completion::one_of_many(token, output));
                    may_go_on = side != Side::Look;
                }
                Step::WouldBlock => {}
            }
        }
        let source = match known.map_or_else(|| self.register(&waiting, epoll), Ok) {
            Ok(source) => source,
            Err(error) => return Err((error, waiting.op)),
        };
        if waiting.wants_room() && !self.sources[source].tells_of_room {
            let registered =
                waiting.object().and_then(|(_, _, fd)| self.register_again(source, fd, epoll, true));
            if let Err(error) = registered {
                return Err((error, waiting.op));
            }
        }
        waiting.source = source;
        self.parked += usize::from(waiting.op.is_parked());
        let key = self.waiting.insert(waiting);
        self.keys.insert(token, key as u64);
        self.sources[source].line(side).push(key, token);
        self.eager.extend(may_go_on.then_some((source, side)));
        Ok(())
    }

    fn register(&mut self, waiting: &Waiting, epoll: &OwnedFd) -> io::Result<usize> {
        self.sweep();
        let (object, address, fd) = waiting.object()?;
        let tells_of_room = waiting.wants_room();
        self.calls += 1;
        let entry = self.sources.vacant_entry();
        let key = entry.key();
        epoll::add(epoll, fd, epoll::EventData::new_u64(key as u64), flags(tells_of_room))?;
        entry.insert(Source {
            object,
            address,
            tells_of_room,
            readers: Line::default(),
            writers: Line::default(),
            lookers: Line::default(),
        });
        self.by_address.insert(address, key);
        Ok(key)
    }

    /// Changes whether the kernel reports when a source can be written to. If it can already, that is reported at
    /// once.
    fn register_again(
        &mut self,
        source: usize,
        fd: BorrowedFd<'_>,
        epoll: &OwnedFd,
        tells_of_room: bool,
    ) -> io::Result<()> {
        self.calls += 1;
        epoll::modify(epoll, fd, epoll::EventData::new_u64(source as u64), flags(tells_of_room))?;
        self.sources[source].tells_of_room = tells_of_room;
        Ok(())
    }

    /// True if an operation waits until the source can be written to.
    fn wants_room(&self, source: &Source) -> bool {
        let looks = |&(key, token): &(usize, Token)| {
            is_waiting(&self.waiting, key, token) && self.waiting[key].wants_room()
        };
        source.writers.live > 0 || source.lookers.entries.iter().any(looks)
    }

    /// The kernel reported that a source can be written to. If nothing waits for that, the report is switched off:
    /// only now, as sends that have waited once often wait again.
    fn told_of_room(&mut self, number: usize, epoll: &OwnedFd) {
        let Some(source) = self.sources.get(number) else { return };
        if !source.tells_of_room || self.wants_room(source) {
            return;
        }
        self.calls += 1;
        let data = epoll::EventData::new_u64(number as u64);
        let changed = source.object.with_fd(|fd| epoll::modify(epoll, fd, data, flags(false)));
        if let (Some(Ok(())), Some(source)) = (changed, self.sources.get_mut(number)) {
            source.tells_of_room = false;
        }
    }

    /// Removes sources whose handles are gone, each time their number has doubled.
    fn sweep(&mut self) {
        if self.sources.len() < self.sweep_at.max(SWEEP_AT) {
            return;
        }
        let by_address = &mut self.by_address;
        self.sources.retain(|_, source| {
            let alive = source.object.alive();
            if !alive {
                by_address.remove(&source.address);
            }
            alive
        });
        self.sweep_at = self.sources.len() * 2;
    }

    /// Handles readiness of a descriptor: its operations proceed in order.
    pub(super) fn on_event(
        &mut self,
        data: u64,
        flags: epoll::EventFlags,
        epoll: &OwnedFd,
        vecs: &mut IoVecs,
        engine_id: &EngineId,
        ready: &mut Vec<Completion>,
    ) {
        self.look_again(data as usize, vecs, engine_id, ready);
        let both = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        if both || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
            self.go_on(data as usize, Side::Read, vecs, engine_id, ready);
        }
        if both || flags.intersects(epoll::EventFlags::OUT) {
            self.go_on(data as usize, Side::Write, vecs, engine_id, ready);
            self.told_of_room(data as usize, epoll);
        }
    }

    /// Each `Poll` checks whether its interest is met, in either direction.
    fn look_again(
        &mut self,
        source: usize,
        vecs: &mut IoVecs,
        engine_id: &EngineId,
        ready: &mut Vec<Completion>,
    ) {
        let Some(source) = self.sources.get_mut(source) else { return };
        let (waiting, calls, keys) = (&mut self.waiting, &mut self.calls, &mut self.keys);
        let parked = &mut self.parked;
        source.lookers.entries.retain(|&(key, token)| {
            if !is_waiting(waiting, key, token) {
                return false;
            }
            match waiting[key].attempt(vecs, engine_id, calls) {
                Step::WouldBlock => true,
                Step::More(output) => {
                    ready.push(Completion::one_of_many(token, output));
                    true
                }
                Step::Done(result) => {
                    let ended = waiting.remove(key);
                    *parked -= usize::from(ended.op.is_parked());
                    keys.remove(token);
                    done(ready, token, result, ended.op);
                    false
                }
            }
        });
        source.lookers.live = source.lookers.entries.len();
    }

    /// True if operations may continue without new readiness from the kernel.
    pub(super) fn is_eager(&self) -> bool {
        !self.eager.is_empty()
    }

    /// Continues operations that had more than their share of results in a row.
    pub(super) fn go_on_eagerly(
        &mut self,
        vecs: &mut IoVecs,
        engine_id: &EngineId,
        ready: &mut Vec<Completion>,
    ) {
        for (source, side) in std::mem::take(&mut self.eager) {
            self.go_on(source, side, vecs, engine_id, ready);
        }
    }

    fn go_on(
        &mut self,
        number: usize,
        side: Side,
        vecs: &mut IoVecs,
        engine_id: &EngineId,
        ready: &mut Vec<Completion>,
    ) {
        // An event of a source that was removed meanwhile finds no source, or another one, whose attempt then finds
        // nothing.
        let Some(source) = self.sources.get_mut(number) else { return };
        let (line, mut left) = (source.line(side), IN_A_ROW);
        while let Some(&(key, token)) = line.entries.front() {
            if !is_waiting(&self.waiting, key, token) {
                line.entries.pop_front();
                continue;
            }
            let result = match self.waiting[key].attempt(vecs, engine_id, &mut self.calls) {
                Step::WouldBlock => return,
                Step::More(output) => {
                    ready.push(Completion::one_of_many(token, output));
                    left -= 1;
                    if left == 0 {
                        return self.eager.push((number, side));
                    }
                    continue;
                }
                Step::Done(result) => result,
            };
            line.entries.pop_front();
            line.live -= 1;
            let ended = self.waiting.remove(key);
            self.parked -= usize::from(ended.op.is_parked());
            self.keys.remove(token);
            done(ready, token, result, ended.op);
        }
    }

    /// Takes back a waiting operation.
    pub(super) fn cancel(&mut self, token: Token) -> Option<Op> {
        let key = self.keys.remove(token)? as usize;
        let waiting = self.waiting.remove(key);
        self.parked -= usize::from(waiting.op.is_parked());
        // Its entry in the line is removed later: finding it takes time.
        self.sources[waiting.source].line(waiting.side()).took_back(&self.waiting);
        Some(waiting.op)
    }
}

/// The events of a descriptor that the kernel must report.
fn flags(tells_of_room: bool) -> epoll::EventFlags {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    if tells_of_room { flags | epoll::EventFlags::OUT } else { flags }
}

/// An operation has ended. A send without copying here copies, so that its buffers come back at once.
fn done(ready: &mut Vec<Completion>, token: Token, result: io::Result<Output>, op: Op) {
    let result = match result {
        Ok(sent) if matches!(op, Op::SendZeroCopy { .. }) => {
            ready.push(Completion::one_of_many(token, sent));
            Ok(Output::Done)
        }
        other => other,
    };
    ready.push(Completion { token, result, op, more: false });
}

/// Whether an entry of a line was not taken back.
fn is_waiting(waiting: &Slab<Waiting>, key: usize, token: Token) -> bool {
    waiting.get(key).is_some_and(|waiting| waiting.token == token)
}

impl Line {
    fn push(&mut self, key: usize, token: Token) {
        self.entries.push_back((key, token));
        self.live += 1;
    }

    /// Counts an entry that was taken back. Once most were, their entries are removed.
    fn took_back(&mut self, waiting: &Slab<Waiting>) {
        self.live -= 1;
        if self.entries.len() > 2 * self.live + FEW {
            self.entries.retain(|&(key, token)| is_waiting(waiting, key, token));
        }
    }
}

impl Source {
    fn line(&mut self, side: Side) -> &mut Line {
        match side {
            Side::Read => &mut self.readers,
            Side::Write => &mut self.writers,
            Side::Look => &mut self.lookers,
        }
    }
}

impl Waiting {
    fn side(&self) -> Side {
        match &self.op {
            Op::Send { .. } | Op::SendQuietly { .. } | Op::Connect { .. } => Side::Write,
            Op::SendZeroCopy { .. } => Side::Write,
            Op::Poll { .. } | Op::PollMany { .. } => Side::Look,
            _ => Side::Read,
        }
    }

    /// True if it waits until its descriptor can be written to.
    fn wants_room(&self) -> bool {
        match &self.op {
            Op::Poll { interest, .. } | Op::PollMany { interest, .. } => interest.writable,
            _ => self.side() == Side::Write,
        }
    }

    /// The descriptor's identity; none before a connect has made its own.
    fn address(&self) -> Option<usize> {
        Some(match &self.op {
            Op::Recv { socket, .. } | Op::Send { socket, .. } | Op::SendQuietly { socket, .. } => {
                Arc::as_ptr(&socket.0) as usize
            }
            Op::SendZeroCopy { socket, .. } | Op::RecvMany { socket, .. } => Arc::as_ptr(&socket.0) as usize,
            Op::Accept { listener } | Op::AcceptMany { listener } => Arc::as_ptr(&listener.0) as usize,
            Op::Poll { fd, .. } | Op::PollMany { fd, .. } => Arc::as_ptr(fd) as usize,
            _ => Arc::as_ptr(&self.connecting.as_ref()?.0) as usize,
        })
    }

    fn object(&self) -> io::Result<(Object, usize, BorrowedFd<'_>)> {
        let object = match &self.op {
            Op::Recv { socket, .. } | Op::Send { socket, .. } | Op::SendQuietly { socket, .. } => {
                (Object::Socket(Arc::downgrade(&socket.0)), socket.fd()?)
            }
            Op::SendZeroCopy { socket, .. } | Op::RecvMany { socket, .. } => {
                (Object::Socket(Arc::downgrade(&socket.0)), socket.fd()?)
            }
            Op::Accept { listener } | Op::AcceptMany { listener } => {
                (Object::Listener(Arc::downgrade(&listener.0)), listener.fd()?)
            }
            Op::Poll { fd, .. } | Op::PollMany { fd, .. } => {
                (Object::Foreign(Arc::downgrade(fd)), fd.as_fd())
            }
            _ => {
                let socket = self.connecting.as_ref().ok_or(Errno::BADF)?;
                (Object::Socket(Arc::downgrade(&socket.0)), socket.fd()?)
            }
        };
        Ok((object.0, self.address().unwrap_or_default(), object.1))
    }

    fn attempt(&mut self, vecs: &mut IoVecs, engine_id: &EngineId, calls: &mut u64) -> Step {
        match self.try_now(vecs, engine_id, calls) {
            Ok(output) if self.op.goes_on() && !output.is_end() => Step::More(output),
            Ok(output) => Step::Done(Ok(output)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::WouldBlock,
            Err(error) => Step::Done(Err(error)),
        }
    }

    fn try_now(&mut self, vecs: &mut IoVecs, engine_id: &EngineId, calls: &mut u64) -> io::Result<Output> {
        // Each attempt makes at least one.
        *calls += 1;
        match &mut self.op {
            // The kernel would wait for a byte even then.
            Op::Recv { buffers, .. } if buffers.is_empty() => Ok(Output::Bytes(0)),
            Op::Recv { socket, buffers } => {
                crate::os::receive(socket.fd()?, buffers, vecs).map(Output::Bytes)
            }
            Op::RecvMany { socket, pool } => receive_some(socket, pool),
            Op::Send { socket, buffers }
            | Op::SendQuietly { socket, buffers }
            | Op::SendZeroCopy { socket, buffers } => send_rest(socket, buffers, &mut self.sent, vecs, calls),
            Op::Accept { listener } | Op::AcceptMany { listener } => accept(listener, engine_id, calls),
            Op::Poll { fd, interest } | Op::PollMany { fd, interest } => ready_now(fd, *interest),
            Op::Connect { address } => match self.connecting.take() {
                None => begin_connect(address, &mut self.connecting, engine_id, calls),
                Some(socket) => go_on_connecting(socket, address, &mut self.connecting, calls),
            },
            other => unreachable!("'{}' waits for no descriptor", other.name()),
        }
    }
}

/// Receives what is there into a buffer of the pool.
fn receive_some(socket: &Socket, pool: &ReceivePool) -> io::Result<Output> {
    let Ok(mut buffer) = pool.get() else { return without_memory(socket) };
    let count = rustix::net::recv(socket.fd()?, &mut buffer[..], RecvFlags::DONTWAIT)?.1;
    buffer.truncate(count);
    Ok(Output::Received(buffer))
}

/// The same when the pool is empty: only bytes that are there need memory.
fn without_memory(socket: &Socket) -> io::Result<Output> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    match rustix::net::recv(socket.fd()?, &mut [0; 1][..], flags)?.1 {
        0 => Ok(Output::Received(IoBuf::zeroed(0))),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

/// Sends all bytes after the first `sent`, which counts on as far as the socket takes them.
fn send_rest(
    socket: &Socket,
    buffers: &Buffers,
    sent: &mut usize,
    vecs: &mut IoVecs,
    calls: &mut u64,
) -> io::Result<Output> {
    while *sent < buffers.len() {
        // The first call is counted already.
        *calls += u64::from(*sent > 0);
        *sent += crate::os::send(socket.fd()?, buffers, *sent, vecs)?;
    }
    Ok(Output::Bytes(*sent))
}

fn accept(listener: &Listener, engine_id: &EngineId, calls: &mut u64) -> io::Result<Output> {
    let from = listener.fd()?;
    let fd = rustix::io::retry_on_intr(|| accept_with(from, sockets::flags(false)))?;
    *calls += 1;
    sockets::no_delay(fd.as_fd());
    Ok(Output::Socket(Socket::from_fd(fd, engine_id)))
}

/// Makes a socket and connects it. Keeps it in `connecting` if that takes time: `WouldBlock`.
fn begin_connect(
    address: &Address,
    connecting: &mut Option<Socket>,
    engine_id: &EngineId,
    calls: &mut u64,
) -> io::Result<Output> {
    // The socket, its option, and the connection.
    *calls += if matches!(address, Address::Tcp(_)) { 2 } else { 1 };
    let (fd, kernel) = sockets::stream_for(address, false)?;
    let started = connect(&fd, &kernel);
    let socket = Socket::from_fd(fd, engine_id);
    match started {
        Ok(()) => Ok(Output::Socket(socket)),
        Err(Errno::INPROGRESS) => {
            *connecting = Some(socket);
            Err(Errno::AGAIN.into())
        }
        // A Unix listener's backlog is full: no event will report when it is not.
        Err(Errno::AGAIN) => Err(sockets::cannot_connect(address, Errno::CONNREFUSED.into())),
        Err(errno) => Err(sockets::cannot_connect(address, errno.into())),
    }
}

/// Returns the socket once it is connected. Puts it back into `connecting` until then: `WouldBlock`.
fn go_on_connecting(
    socket: Socket,
    address: &Address,
    connecting: &mut Option<Socket>,
    calls: &mut u64,
) -> io::Result<Output> {
    match connect_outcome(&socket, calls) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *connecting = Some(socket);
            Err(error)
        }
        Err(error) => Err(sockets::cannot_connect(address, error)),
        Ok(()) => Ok(Output::Socket(socket)),
    }
}

/// The outcome of a connect under way; `WouldBlock` if it has not ended. Adds a second call to `calls`.
fn connect_outcome(socket: &Socket, calls: &mut u64) -> io::Result<()> {
    let fd = socket.fd()?;
    sockopt::socket_error(fd)??;
    *calls += 1;
    match rustix::net::getpeername(fd) {
        Ok(_) => Ok(()),
        Err(Errno::NOTCONN) => Err(Errno::AGAIN.into()),
        Err(errno) => Err(errno.into()),
    }
}

fn ready_now(fd: &OwnedFd, interest: Interest) -> io::Result<Output> {
    let mut asked = [PollFd::new(fd, readiness::wanted(interest))];
    rustix::io::retry_on_intr(|| poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    let told = asked[0].revents();
    if told.is_empty() {
        return Err(Errno::AGAIN.into());
    }
    Ok(Output::Ready(readiness::told(told)))
}
