//! Clients of a daemon on blocking sockets: one of its NBD exports, one of its RPC methods. Each call says when the
//! daemon is gone, which is what the tests wait for.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};

/// Far longer than anything takes; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const FLUSH: u16 = 3;
pub const ZEROES: u16 = 6;
pub const FUA: u16 = 1;

/// The daemon has closed the connection, or has ended.
#[derive(Debug)]
pub struct Gone;

/// A connection whose other end may go at any time.
struct Stream(UnixStream);

impl Stream {
    fn connect(socket: &Path) -> Result<Stream, Gone> {
        UnixStream::connect(socket).map_err(gone).map(Stream::new)
    }

    fn new(stream: UnixStream) -> Stream {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Stream(stream)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.0.write_all(bytes).map_err(gone)
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, Gone> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).map_err(gone)?;
        Ok(bytes)
    }
}

/// What may become of a connection; anything else is a failure of the test.
#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn gone(error: std::io::Error) -> Gone {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof => Gone,
        _ => panic!("{error}"),
    }
}

/// A connection by TCP from this address of the machine. What is called on it later is the same for a Unix socket.
pub fn tcp_from(source: Ipv4Addr, server: SocketAddrV4) -> UnixStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
    rustix::net::connect(&socket, &server).unwrap();
    socket.into()
}

/// A request of an NBD client.
#[derive(Clone, Copy)]
pub struct Request {
    pub command: u16,
    pub flags: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u32,
}

impl Request {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend(self.len.to_be_bytes());
        bytes
    }
}

/// An NBD client with simple replies.
pub struct Nbd(Stream);

impl Nbd {
    /// A client of an export, after its handshake.
    pub fn connect(socket: &Path, export: &str) -> Result<Nbd, Gone> {
        Nbd::shake(Stream::connect(socket)?, export)
    }

    /// The same by TCP, from this address of the machine.
    pub fn from_host(source: Ipv4Addr, server: SocketAddrV4, export: &str) -> Result<Nbd, Gone> {
        Nbd::shake(Stream::new(tcp_from(source, server)), export)
    }

    fn shake(mut stream: Stream, export: &str) -> Result<Nbd, Gone> {
        let mut hello = 3u32.to_be_bytes().to_vec();
        hello.extend(b"IHAVEOPT");
        hello.extend(7u32.to_be_bytes());
        hello.extend((export.len() as u32 + 6).to_be_bytes());
        hello.extend((export.len() as u32).to_be_bytes());
        hello.extend(export.as_bytes());
        hello.extend(0u16.to_be_bytes());
        stream.send(&hello)?;
        stream.take(18)?;
        loop {
            let head = stream.take(20)?;
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let text = stream.take(word(16) as usize)?;
            match word(12) {
                1 => return Ok(Nbd(stream)),
                kind @ 0x8000_0000.. => panic!("{export}: {kind:#x} {}", String::from_utf8_lossy(&text)),
                _ => {}
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.0.send(bytes)
    }

    /// The next reply of a request that succeeds and gives no data: its cookie.
    pub fn done(&mut self) -> Result<u64, Gone> {
        let head = self.0.take(16)?;
        assert_eq!(head[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "a request failed");
        Ok(u64::from_be_bytes(head[8..].try_into().unwrap()))
    }

    pub fn flush(&mut self) -> Result<(), Gone> {
        self.send(&Request { command: FLUSH, flags: 0, cookie: 0, offset: 0, len: 0 }.bytes())?;
        self.done().map(drop)
    }

    pub fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, Gone> {
        self.send(&Request { command: READ, flags: 0, cookie: 0, offset, len }.bytes())?;
        self.done()?;
        self.0.take(len as usize)
    }

    /// A read that fails: the error of its reply.
    pub fn read_fails(&mut self, offset: u64, len: u32) -> Result<u32, Gone> {
        self.send(&Request { command: READ, flags: 0, cookie: 0, offset, len }.bytes())?;
        let head = self.0.take(16)?;
        assert_eq!(head[..4], [0x67, 0x44, 0x66, 0x98]);
        Ok(u32::from_be_bytes(head[4..8].try_into().unwrap()))
    }
}

/// An RPC client.
pub struct Rpc(Stream);

impl Rpc {
    pub fn connect(socket: &Path) -> Result<Rpc, Gone> {
        Stream::connect(socket).map(Rpc)
    }

    /// Asks and does not wait for the answer.
    pub fn ask(&mut self, method: &str, params: &Value) -> Result<(), Gone> {
        let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if !params.is_null() {
            request["params"] = params.clone();
        }
        self.0.send(request.to_string().as_bytes())
    }

    /// The result of a call, or its error's code and words.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Result<Value, (i64, String)>, Gone> {
        self.ask(method, params)?;
        let mut answers = serde_json::Deserializer::from_reader(&mut self.0.0).into_iter::<Value>();
        let mut answer = match answers.next() {
            Some(Ok(answer)) => answer,
            Some(Err(error)) if error.is_eof() || error.is_io() => return Err(Gone),
            Some(Err(error)) => panic!("{error}"),
            None => return Err(Gone),
        };
        let error = &answer["error"];
        if error.is_null() {
            return Ok(Ok(answer["result"].take()));
        }
        Ok(Err((error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())))
    }

    /// The result of a call that succeeds.
    pub fn done(&mut self, method: &str, params: &Value) -> Result<Value, Gone> {
        Ok(self.call(method, params)?.unwrap_or_else(|error| panic!("{method} {params}: {error:?}")))
    }
}
