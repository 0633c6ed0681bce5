//! A client that says what a test wants it to say, on a thread of the server's runtime or of another.

use std::collections::BTreeMap;

use spindle_engine::{Op, Output, Shutdown, Socket};
use spindle_mem::{Buffers, IoBuf};
use spindle_nbd::{Address, Server};
use spindle_reactor::{op, random};

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const ZEROES: u16 = 6;
pub const STATUS: u16 = 7;

pub const FUA: u16 = 1;
pub const NO_HOLE: u16 = 2;
pub const DF: u16 = 4;
pub const REQ_ONE: u16 = 8;
pub const FAST_ZERO: u16 = 16;

/// What a client wants of the handshake.
#[derive(Clone, Copy, Default)]
pub struct Wish {
    pub structured: bool,
    pub contexts: bool,
}

pub const SIMPLE: Wish = Wish { structured: false, contexts: false };
pub const STRUCTURED: Wish = Wish { structured: true, contexts: false };
pub const STATUSES: Wish = Wish { structured: true, contexts: true };

/// A reply, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    /// As on the wire.
    pub error: u32,
    pub text: String,
    pub data: Vec<u8>,
    /// By the number of the context: lengths and flags.
    pub status: BTreeMap<u32, Vec<(u32, u32)>>,
}

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// A client.
pub struct Client {
    pub socket: Socket,
    wish: Wish,
    /// Lengths of reads that are not answered.
    reads: BTreeMap<u64, u32>,
    received: Vec<u8>,
    next: u64,
    /// Size and flags, as the server told them.
    pub size: u64,
    pub flags: u16,
    peer: String,
}

/// A request as it goes over the wire.
pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn named(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat()
}

/// The bytes of a whole handshake.
pub fn handshake(name: &str, wish: Wish) -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(option(11, b""));
    if wish.structured {
        bytes.extend(option(8, b""));
    }
    if wish.contexts {
        let mut data = named(name);
        data.extend(2u32.to_be_bytes());
        data.extend(named("base:allocation"));
        data.extend(named("qemu:allocation-depth"));
        bytes.extend(option(10, &data));
    }
    let mut data = named(name);
    data.extend(1u16.to_be_bytes());
    data.extend(3u16.to_be_bytes());
    bytes.extend(option(7, &data));
    bytes
}

pub async fn connected(address: &Address) -> Socket {
    match op(Op::Connect { address: Box::new(address.clone()) }).await.0.unwrap() {
        Output::Socket(socket) => socket,
        other => panic!("{other:?}"),
    }
}

/// A socket to a server that does not have to listen.
pub async fn paired(server: &Server) -> Socket {
    let Output::Pair(ours, theirs) = op(Op::Pair).await.0.unwrap() else { panic!() };
    server.serve(theirs, "test".to_owned());
    ours
}

pub async fn send(socket: &Socket, bytes: &[u8]) -> Result<(), Gone> {
    if bytes.is_empty() {
        return Ok(());
    }
    let buffers = Buffers::One(IoBuf::copy_from(bytes));
    op(Op::Send { socket: socket.clone(), buffers }).await.0.map(|_| ()).map_err(|_| Gone)
}

impl Client {
    /// A client after its handshake.
    pub async fn new(server: &Server, name: &str, wish: Wish) -> Client {
        let Output::Pair(ours, theirs) = op(Op::Pair).await.0.unwrap() else { panic!() };
        let peer = format!("client {}", random());
        server.serve(theirs, peer.clone());
        Client { peer, ..Client::shaken(ours, name, wish).await.unwrap() }
    }

    pub async fn shaken(socket: Socket, name: &str, wish: Wish) -> Result<Client, Gone> {
        let mut client = Client::silent(socket, wish);
        client.send(&handshake(name, wish)).await?;
        client.take(18).await?;
        loop {
            let head = client.take(20).await?;
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let (option, kind) = (word(8), word(12));
            let data = client.take(word(16) as usize).await?;
            if option == 7 && kind == 3 && data[..2] == [0, 0] {
                client.size = u64::from_be_bytes(data[2..10].try_into().unwrap());
                client.flags = u16::from_be_bytes(data[10..].try_into().unwrap());
            }
            match (option, kind) {
                (7, 1) => return Ok(client),
                (7, 0x8000_0000..) => return Err(Gone),
                _ => {}
            }
        }
    }

    /// A client that has not said a word.
    pub fn silent(socket: Socket, wish: Wish) -> Client {
        let (reads, received) = (BTreeMap::new(), Vec::new());
        Client { socket, wish, reads, received, next: 1, size: 0, flags: 0, peer: String::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        send(&self.socket, bytes).await
    }

    /// The next bytes that the server sent.
    pub async fn take(&mut self, len: usize) -> Result<Vec<u8>, Gone> {
        while self.received.len() < len {
            let buffers = Buffers::One(IoBuf::zeroed(64 << 10));
            let (result, op) = op(Op::Recv { socket: self.socket.clone(), buffers }).await;
            let bytes = result.map_err(|_| Gone)?.bytes();
            if bytes == 0 {
                return Err(Gone);
            }
            self.received.extend(&op.into_buffers().to_vec()[..bytes]);
        }
        let rest = self.received.split_off(len);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// Whether the server has closed, and sent nothing before.
    pub async fn is_closed(&mut self) -> bool {
        self.take(1).await == Err(Gone)
    }

    /// Sends a request, and a payload after it; returns its cookie.
    pub async fn ask(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Result<u64, Gone> {
        let cookie = self.next;
        self.next += 1;
        if command == READ {
            self.reads.insert(cookie, len);
        }
        let bytes = [&request(command, flags, cookie, offset, len)[..], payload].concat();
        self.send(&bytes).await?;
        Ok(cookie)
    }

    /// Says that reads were sent by hand: their cookies and lengths.
    pub fn expect(&mut self, reads: impl Iterator<Item = (u64, u32)>) {
        self.reads.extend(reads);
    }

    /// The number by which the server knows the client.
    pub fn server_side(&self, server: &Server) -> u64 {
        let exports = server.exports();
        let all = exports.iter().flat_map(|export| &export.connections);
        all.filter(|connection| connection.peer == self.peer).map(|connection| connection.id).max().unwrap()
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Result<Reply, Gone> {
        let mut reply = Reply::default();
        loop {
            let magic = self.take(4).await?;
            if magic == 0x6744_6698u32.to_be_bytes() {
                let head = self.take(12).await?;
                reply.error = u32::from_be_bytes(head[..4].try_into().unwrap());
                reply.cookie = u64::from_be_bytes(head[4..].try_into().unwrap());
                if let Some(len) = self.reads.remove(&reply.cookie) {
                    assert!(!self.wish.structured, "a read of a structured connection has chunks");
                    if reply.error == 0 {
                        reply.data = self.take(len as usize).await?;
                    }
                }
                return Ok(reply);
            }
            assert!(self.wish.structured, "no chunk before it was negotiated: {magic:?}");
            assert_eq!(magic, 0x668e_33efu32.to_be_bytes());
            let head = self.take(16).await?;
            let (flags, kind) =
                (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
            reply.cookie = u64::from_be_bytes(head[4..12].try_into().unwrap());
            let body = self.take(u32::from_be_bytes(head[12..].try_into().unwrap()) as usize).await?;
            let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            match kind {
                0 => assert!(body.is_empty()),
                1 => reply.data = body[8..].to_vec(),
                5 => {
                    let pairs = (4..body.len()).step_by(8).map(|at| (word(at), word(at + 4)));
                    reply.status.insert(word(0), pairs.collect());
                }
                0x8001 => {
                    reply.error = word(0);
                    reply.text = String::from_utf8(body[6..].to_vec()).unwrap();
                }
                _ => panic!("chunk of type {kind}"),
            }
            if flags & 1 != 0 {
                let asked = self.reads.remove(&reply.cookie);
                assert!(reply.error != 0 || asked.is_none_or(|len| len as usize == reply.data.len()));
                return Ok(reply);
            }
        }
    }

    /// A request and its reply, with nothing else under way.
    pub async fn call(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Result<Reply, Gone> {
        let cookie = self.ask(command, flags, offset, len, payload).await?;
        let reply = self.reply().await?;
        assert_eq!(reply.cookie, cookie);
        Ok(reply)
    }

    pub async fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        let reply = self.call(READ, 0, offset, len, b"").await.unwrap();
        assert_eq!((reply.error, reply.data.len()), (0, len as usize));
        reply.data
    }

    pub async fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert_eq!(self.error(WRITE, 0, offset, bytes.len() as u32, bytes).await, 0);
    }

    /// The error of a request.
    pub async fn error(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> u32 {
        self.call(command, flags, offset, len, payload).await.unwrap().error
    }

    /// Says good-bye, and waits until the server has closed.
    pub async fn disconnect(mut self) {
        let cookie = self.next;
        if self.send(&request(DISCONNECT, 0, cookie, 0, 0)).await.is_ok() {
            assert!(self.is_closed().await);
        }
    }

    /// Sends nothing more, but goes on reading.
    pub async fn half_close(&mut self) {
        let how = Shutdown::Write;
        op(Op::Shutdown { socket: self.socket.clone(), how }).await.0.unwrap();
    }
}
