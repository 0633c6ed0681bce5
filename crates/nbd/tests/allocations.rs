//! Law: once warm, a request allocates nothing on the reactor that serves it; counted by the allocator itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use spindle_block::Malloc;
use spindle_nbd::{Address, Export, Options, Server};
use spindle_reactor::{EngineKind, Runtime, Thread};

/// Requests sent at once.
const DEPTH: u64 = 32;

fn request(command: u16, offset: u64, len: u32) -> Vec<u8> {
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0], &command.to_be_bytes(), &offset.to_be_bytes()];
    [&head.concat()[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
}

/// A client behind the shortest handshake there is.
fn client(socket: &std::path::Path) -> UnixStream {
    let mut client = UnixStream::connect(socket).unwrap();
    client.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk").unwrap();
    client.read_exact(&mut [0; 18 + 10]).unwrap();
    client
}

/// Reads, writes and flushes, many at once and one by one.
fn work(client: &mut UnixStream, len: u32) {
    let mut many = Vec::new();
    for n in 0..DEPTH {
        many.extend(request((n % 2) as u16, n * 4096, len));
        many.extend(vec![7; if n % 2 == 1 { len as usize } else { 0 }]);
    }
    client.write_all(&many).unwrap();
    client.read_exact(&mut vec![0; DEPTH as usize * 16 + DEPTH as usize / 2 * len as usize]).unwrap();
    for command in [0, 3] {
        client.write_all(&request(command, 0, if command == 0 { len } else { 0 })).unwrap();
        client.read_exact(&mut vec![0; 16 + if command == 0 { len as usize } else { 0 }]).unwrap();
    }
}

/// Blocks that the reactor has taken; asking takes some, too.
fn blocks(thread: &Thread) -> u64 {
    thread.spawn(async || counting_allocator::blocks().0).wait().unwrap()
}

#[test]
fn a_warm_connection_allocates_nothing() {
    for kind in [EngineKind::IoUring, EngineKind::Epoll] {
        let running = Runtime::builder().engine(kind).reactors(1).build().unwrap().start().unwrap();
        let core = running.handle().cores()[0];
        let thread = running.handle().create_thread("nbd", &format!("[{core}]")).unwrap();
        let server = Server::new(Options::default(), vec![thread.clone()]);
        server.add_export(Export::new("disk", Malloc::new("ram", 512, 4096).unwrap())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let (listening, address) = (server.clone(), Address::Unix(socket.clone()));
        thread.spawn(async move || listening.listen(address).await.unwrap()).wait().unwrap();
        for len in [512, 4096, 100] {
            let mut client = client(&socket);
            // The kernel decides how many requests are in flight, so only a long run warms everything.
            (0..200).for_each(|_| work(&mut client, len));
            let asking = {
                let before = blocks(&thread);
                blocks(&thread) - before
            };
            let before = blocks(&thread);
            (0..100).for_each(|_| work(&mut client, len));
            let taken = blocks(&thread) - before;
            assert!(taken <= asking + 5, "{kind}, {len} bytes: {taken} blocks for 3400 requests");
        }
    }
}
