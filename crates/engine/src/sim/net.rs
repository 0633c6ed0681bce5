//! Simulated streams: connected pairs with a bounded buffer each way, seeded delays and short reads.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use slab::Slab;
use spindle_mem::{Buffers, IoBuf};

use super::flight::Flight;
use super::world::HandleMaker;
use crate::handle::Body;
use crate::rng::Rng;
use crate::sim_handle::SimObject;
use crate::{Address, Op, Output, ReceivePool, Shutdown, Socket};

/// Bytes in transit in one direction; further sends wait.
const BUFFERED: usize = 64 << 10;

/// The first port handed out for TCP port 0.
const FIRST_PORT: u16 = 49_152;

/// All streams and listeners of a world.
#[derive(Default)]
pub(super) struct Net {
    streams: Slab<Stream>,
    listeners: Slab<Listening>,
    names: BTreeMap<Address, usize>,
}

/// One end of a stream.
#[derive(Default)]
struct Stream {
    /// The other end while it is open.
    peer: Option<usize>,
    incoming: VecDeque<u8>,
    /// True if the peer sends no more.
    ended: bool,
    /// True if this end receives no more.
    deaf: bool,
    /// True if this end sends no more.
    mute: bool,
    receivers: Vec<usize>,
    senders: Vec<usize>,
    /// Sends in the order of submission: the first one proceeds.
    line: VecDeque<usize>,
}

struct Listening {
    address: Address,
    backlog: usize,
    arrived: VecDeque<usize>,
    accepters: Vec<usize>,
}

impl Net {
    /// Notes a submitted operation. Sends of one stream keep their order, whenever each takes effect.
    pub(super) fn at_submission(&mut self, key: usize, op: &Op) {
        if let Some(socket) = op.sends_on()
            && let Ok(number) = stream_of(socket)
        {
            self.streams[number].line.push_back(key);
        }
    }

    /// Removes a send that has ended or was cancelled: the next of its stream may proceed.
    fn leave_line(&mut self, number: usize, key: usize, woken: &mut Vec<usize>) {
        let line = &mut self.streams[number].line;
        let was_first = line.front() == Some(&key);
        line.retain(|other| *other != key);
        if was_first {
            woken.extend(line.front());
        }
    }

    /// Performs an operation on sockets: its result, or none if it waits. Adds operations that it unblocks to
    /// `woken`.
    pub(super) fn perform(
        &mut self,
        key: usize,
        flight: &mut Flight,
        maker: &HandleMaker,
        rng: &mut Rng,
        woken: &mut Vec<usize>,
    ) -> Option<io::Result<Output>> {
        match &mut flight.op {
            Op::Listen { address, backlog } => Some(self.listen(address, *backlog, maker)),
            Op::ListenAlone { path, backlog } => {
                Some(self.listen(&Address::Unix((**path).clone()), *backlog, maker))
            }
            Op::Connect { address } => Some(self.connect(address, maker, woken)),
            Op::Pair => {
                let (a, b) = self.pair();
                Some(Ok(Output::Pair(maker.socket(a), maker.socket(b))))
            }
            Op::Accept { listener } | Op::AcceptMany { listener } => {
                let Body::Sim(handle) = &listener.0.body else { return Some(Err(bad())) };
                let SimObject::Listener(number) = handle.object() else { return Some(Err(bad())) };
                let listening = &mut self.listeners[number];
                let Some(stream) = listening.arrived.pop_front() else {
                    listening.accepters.push(key);
                    return None;
                };
                Some(Ok(Output::Socket(maker.socket(stream))))
            }
            Op::Recv { socket, buffers } => match stream_of(socket) {
                Ok(stream) => self.recv(key, stream, buffers, rng, woken),
                Err(error) => Some(Err(error)),
            },
            Op::RecvMany { socket, pool } => match stream_of(socket) {
                Ok(stream) => self.recv_pooled(key, stream, pool, rng, woken),
                Err(error) => Some(Err(error)),
            },
            Op::Send { socket, buffers }
            | Op::SendQuietly { socket, buffers }
            | Op::SendZeroCopy { socket, buffers } => match stream_of(socket) {
                Ok(stream) => {
                    let result = self.send(key, stream, buffers, &mut flight.sent, woken);
                    if result.is_some() {
                        self.leave_line(stream, key, woken);
                    }
                    result
                }
                Err(error) => Some(Err(error)),
            },
            Op::Shutdown { socket, how } => Some(stream_of(socket).map(|stream| {
                self.shutdown(stream, *how, woken);
                Output::Done
            })),
            other => unreachable!("'{}' is not a socket operation", other.name()),
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let a = self.streams.insert(Stream::default());
        let b = self.streams.insert(Stream { peer: Some(a), ..Stream::default() });
        self.streams[a].peer = Some(b);
        (a, b)
    }

    fn listen(&mut self, address: &Address, backlog: u32, maker: &HandleMaker) -> io::Result<Output> {
        let mut address = address.clone();
        if let Address::Tcp(tcp) = &mut address
            && tcp.port() == 0
        {
            let mut ports = FIRST_PORT..=u16::MAX;
            let free = ports.find(|port| {
                tcp.set_port(*port);
                !self.names.contains_key(&Address::Tcp(*tcp))
            });
            free.ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRINUSE))?;
        }
        if self.names.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let number = self.listeners.insert(Listening {
            address: address.clone(),
            backlog: backlog.max(1) as usize,
            arrived: VecDeque::new(),
            accepters: Vec::new(),
        });
        self.names.insert(address.clone(), number);
        Ok(Output::Listener(maker.listener(number, address)))
    }

    fn connect(
        &mut self,
        address: &Address,
        maker: &HandleMaker,
        woken: &mut Vec<usize>,
    ) -> io::Result<Output> {
        let refused = || {
            let error = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            crate::os::sockets::cannot_connect(address, error)
        };
        let number = *self.names.get(address).ok_or_else(refused)?;
        if self.listeners[number].arrived.len() >= self.listeners[number].backlog {
            return Err(refused());
        }
        let (ours, theirs) = self.pair();
        let listening = &mut self.listeners[number];
        listening.arrived.push_back(theirs);
        woken.append(&mut listening.accepters);
        Ok(Output::Socket(maker.socket(ours)))
    }

    fn recv(
        &mut self,
        key: usize,
        number: usize,
        buffers: &mut Buffers,
        rng: &mut Rng,
        woken: &mut Vec<usize>,
    ) -> Option<io::Result<Output>> {
        let room = buffers.len();
        let stream = &mut self.streams[number];
        let there = stream.incoming.len().min(room);
        if there == 0 {
            if room == 0 || stream.ended || stream.deaf {
                return Some(Ok(Output::Bytes(0)));
            }
            stream.receivers.push(key);
            return None;
        }
        // A stream has no message boundaries: one send may arrive in parts.
        let count = if rng.below(2) == 0 { there } else { 1 + rng.below(there) };
        let mut left = count;
        for slice in buffers.iter_mut() {
            let now = slice.len().min(left);
            take_front(&mut stream.incoming, &mut slice[..now]);
            left -= now;
        }
        if let Some(peer) = stream.peer {
            woken.append(&mut self.streams[peer].senders);
        }
        Some(Ok(Output::Bytes(count)))
    }

    /// As [`recv`](Self::recv), into a buffer that is taken when there are bytes.
    fn recv_pooled(
        &mut self,
        key: usize,
        number: usize,
        pool: &ReceivePool,
        rng: &mut Rng,
        woken: &mut Vec<usize>,
    ) -> Option<io::Result<Output>> {
        let stream = &self.streams[number];
        let is_over = stream.ended || stream.deaf;
        if stream.incoming.is_empty() && !is_over {
            self.streams[number].receivers.push(key);
            return None;
        }
        if stream.incoming.is_empty() {
            return Some(Ok(Output::Received(IoBuf::zeroed(0))));
        }
        let Ok(buffer) = pool.get() else { return Some(Err(io::ErrorKind::OutOfMemory.into())) };
        let mut buffers = Buffers::One(buffer);
        let count = self.recv(key, number, &mut buffers, rng, woken)?;
        let into = |output: Output| {
            let mut bytes = buffers.into_one().unwrap_or_else(|_| unreachable!("it is one"));
            bytes.truncate(output.bytes());
            Output::Received(bytes)
        };
        Some(count.map(into))
    }

    fn send(
        &mut self,
        key: usize,
        number: usize,
        buffers: &Buffers,
        sent: &mut usize,
        woken: &mut Vec<usize>,
    ) -> Option<io::Result<Output>> {
        let stream = &self.streams[number];
        let Some(peer) = stream.peer.filter(|peer| !stream.mute && !self.streams[*peer].deaf) else {
            return Some(Err(io::Error::from_raw_os_error(libc::EPIPE)));
        };
        if stream.line.front() != Some(&key) {
            return None;
        }
        let target = &mut self.streams[peer];
        let mut skip = *sent;
        for slice in buffers.iter() {
            let part = &slice[skip.min(slice.len())..];
            skip -= skip.min(slice.len());
            let now = part.len().min(BUFFERED - target.incoming.len());
            target.incoming.extend(&part[..now]);
            *sent += now;
            if now < part.len() {
                break;
            }
        }
        woken.append(&mut target.receivers);
        if *sent == buffers.len() {
            return Some(Ok(Output::Bytes(*sent)));
        }
        self.streams[number].senders.push(key);
        None
    }

    fn shutdown(&mut self, number: usize, how: Shutdown, woken: &mut Vec<usize>) {
        let stream = &mut self.streams[number];
        if how != Shutdown::Write {
            stream.deaf = true;
            woken.append(&mut stream.receivers);
        }
        let Some(peer) = stream.peer else { return };
        if how != Shutdown::Read {
            stream.mute = true;
            self.streams[peer].ended = true;
            woken.append(&mut self.streams[peer].receivers);
        } else {
            woken.append(&mut self.streams[peer].senders);
        }
    }

    /// Closes an end: the peer reads what is in transit, then the end.
    pub(super) fn close_socket(&mut self, number: usize, woken: &mut Vec<usize>) {
        let stream = self.streams.remove(number);
        if let Some(peer) = stream.peer {
            let peer = &mut self.streams[peer];
            peer.peer = None;
            peer.ended = true;
            woken.append(&mut peer.receivers);
            woken.append(&mut peer.senders);
        }
    }

    /// Closes a listener, and its connections that were not accepted.
    pub(super) fn close_listener(&mut self, number: usize, woken: &mut Vec<usize>) {
        let listening = self.listeners.remove(number);
        self.names.remove(&listening.address);
        for stream in listening.arrived {
            self.close_socket(stream, woken);
        }
    }

    /// Removes a cancelled operation.
    pub(super) fn forget(&mut self, key: usize, woken: &mut Vec<usize>) {
        for (_, stream) in &mut self.streams {
            stream.receivers.retain(|k| *k != key);
            stream.senders.retain(|k| *k != key);
            let was_first = stream.line.front() == Some(&key);
            stream.line.retain(|k| *k != key);
            if was_first {
                woken.extend(stream.line.front());
            }
        }
        for (_, listening) in &mut self.listeners {
            listening.accepters.retain(|k| *k != key);
        }
    }
}

/// Moves the first bytes of `from`, which has enough, to `to`.
fn take_front(from: &mut VecDeque<u8>, to: &mut [u8]) {
    let (front, back) = from.as_slices();
    let split = front.len().min(to.len());
    let (first, second) = to.split_at_mut(split);
    first.copy_from_slice(&front[..split]);
    second.copy_from_slice(&back[..second.len()]);
    from.drain(..to.len());
}

fn stream_of(socket: &Socket) -> io::Result<usize> {
    match &socket.0.body {
        Body::Sim(handle) => match handle.object() {
            SimObject::Socket(number) => Ok(number),
            _ => Err(bad()),
        },
        Body::Os(_) => Err(bad()),
    }
}

fn bad() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}
