//! How often a server calls the kernel: counted by its engine, whatever else the machine does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use spindle_nbd::{Address, Export, Options, Server};
use spindle_reactor::{EngineKind, Mode, Runtime};

use crate::client::{READ, SIMPLE, handshake, request};
use crate::connections::ram;

const REQUESTS: u64 = 300;

#[test]
fn a_reply_and_the_wait_for_the_next_request_are_one_system_call() {
    reads_are_one_sleep_each(EngineKind::IoUring);
}

#[test]
fn a_request_ends_one_sleep_on_epoll_too_and_takes_three_calls_on_its_socket() {
    // The reply, a receive in vain, and the receive.
    assert!(reads_are_one_sleep_each(EngineKind::Epoll) <= 3 * REQUESTS + 10);
}

/// Returns the calls on sockets.
fn reads_are_one_sleep_each(kind: EngineKind) -> u64 {
    let building = Runtime::builder().engine(kind).reactors(1).mode(Mode::Interrupt).build();
    let Ok(runtime) = building else {
        eprintln!("SKIPPED: {kind} is not there");
        return 0;
    };
    let running = runtime.start().unwrap();
    let thread = running.handle().create_thread("nbd", "[0-1023]").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd.sock");
    let address = Address::Unix(socket.clone());
    thread
        .spawn(async move || {
            let server = Server::new(Options::default(), Vec::new());
            server.add_export(Export::new("disk", ram(512, 1 << 20))).unwrap();
            server.listen(address).await.unwrap();
        })
        .wait()
        .unwrap();
    let mut client = UnixStream::connect(socket).unwrap();
    client.write_all(&handshake("disk", SIMPLE)).unwrap();
    // The greeting, "unknown" with a text, information on the export and its blocks, and the end of it.
    let mut told = vec![0; 18];
    client.read_exact(&mut told).unwrap();
    let mut ended = false;
    while !ended {
        let mut head = [0; 20];
        client.read_exact(&mut head).unwrap();
        let [kind, len] = [12, 16].map(|at| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()));
        client.read_exact(&mut vec![0; len as usize]).unwrap();
        ended = kind == 1;
    }
    let mut read = |cookie: u64| {
        client.write_all(&request(READ, 0, cookie, 4096, 4096)).unwrap();
        let mut reply = [0; 16 + 4096];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply[8..16], cookie.to_be_bytes());
    };
    let calls = || running.handle().dump().wait(Duration::from_secs(20)).reactors[0].system_calls;
    (0..10).for_each(&mut read);
    let before = calls();
    (0..REQUESTS).for_each(read);
    let calls = calls() - before;
    // One for each, and a few for the count itself and for what the kernel did not have at hand.
    assert!(calls.enters <= REQUESTS * 11 / 10, "{kind}: {calls}");
    calls.sockets
}
