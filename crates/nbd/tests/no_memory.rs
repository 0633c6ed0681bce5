//! Requests for whose data the process has no memory: each is answered, and the connection goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../tests/support/failing_allocator.rs"]
mod failing_allocator;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use spindle_block::Malloc;
use spindle_nbd::{Address, Export, Options, Server};
use spindle_reactor::{EngineKind, Runtime};

use failing_allocator::{LARGE, NONE_LEFT};

const READ: u16 = 0;
const WRITE: u16 = 1;
const NO_MEMORY: u32 = 12;

/// Bytes of a large request; not whole blocks, so that a write is put together with what is around it.
const LEN: u32 = (1 << 20) + 100;

fn request(command: u16, offset: u64, len: u32) -> Vec<u8> {
    let head =
        [&0x2560_9513u32.to_be_bytes()[..], &[0, 0], &command.to_be_bytes(), &[7; 8], &offset.to_be_bytes()];
    [&head.concat()[..], &len.to_be_bytes()].concat()
}

/// The error number of the next reply, which has no data if it is not 0.
fn answer(client: &mut UnixStream) -> u32 {
    let mut reply = [0; 16];
    client.read_exact(&mut reply).unwrap();
    assert_eq!((&reply[..4], &reply[8..]), (&0x6744_6698u32.to_be_bytes()[..], &[7; 8][..]));
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

fn read(client: &mut UnixStream, len: u32) -> Vec<u8> {
    client.write_all(&request(READ, 0, len)).unwrap();
    assert_eq!(answer(client), 0);
    let mut data = vec![0; len as usize];
    client.read_exact(&mut data).unwrap();
    data
}

#[test]
fn requests_without_memory_for_their_data_are_refused_and_the_connection_goes_on() {
    for kind in [EngineKind::IoUring, EngineKind::Epoll] {
        let running = Runtime::builder().engine(kind).reactors(1).build().unwrap().start().unwrap();
        let core = running.handle().cores()[0];
        let thread = running.handle().create_thread("nbd", &format!("[{core}]")).unwrap();
        let server = Server::new(Options::default(), vec![thread.clone()]);
        server.add_export(Export::new("disk", Malloc::new("ram", 512, 8192).unwrap())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let address = Address::Unix(socket.clone());
        thread.spawn(async move || server.listen(address).await.unwrap()).wait().unwrap();
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk").unwrap();
        client.read_exact(&mut [0; 18 + 10]).unwrap();
        // What a connection receives into is smaller.
        LARGE.store(1 << 20, Ordering::Relaxed);
        let data = vec![9; LEN as usize];
        NONE_LEFT.store(true, Ordering::Relaxed);
        for command in [READ, WRITE, READ] {
            client.write_all(&request(command, 0, LEN)).unwrap();
            if command == WRITE {
                client.write_all(&data).unwrap();
            }
            assert_eq!(answer(&mut client), NO_MEMORY, "{kind}: command {command}");
        }
        assert_eq!(read(&mut client, 512), [0; 512], "{kind}: nothing was written");
        NONE_LEFT.store(false, Ordering::Relaxed);
        client.write_all(&request(WRITE, 0, LEN)).unwrap();
        client.write_all(&data).unwrap();
        assert_eq!(answer(&mut client), 0);
        assert_eq!(read(&mut client, LEN), data, "{kind}");
    }
}
