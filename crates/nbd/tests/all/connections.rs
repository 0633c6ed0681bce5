//! Clients that do what they may and what they may not, in simulation and on the engines of the system.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Device, IoErrorKind, Malloc};
use spindle_nbd::{Content, Export, Extent, Extents, Options, Server};
use spindle_reactor::{EngineKind, Handle, Runtime, Thread, sleep, timeout};

use crate::client::{
    CACHE, Client, DF, DISCONNECT, FAST_ZERO, FLUSH, FUA, Gone, NO_HOLE, READ, REQ_ONE, SIMPLE, STATUS,
    STATUSES, STRUCTURED, TRIM, WRITE, ZEROES, connected, handshake, paired, request, send,
};

const MIB: u64 = 1 << 20;
const PERM: u32 = 1;
const INVAL: u32 = 22;
const NOSPC: u32 = 28;
const NOTSUP: u32 = 95;
const SHUTDOWN: u32 = 108;

/// Runs a test on every engine, on two reactors.
pub fn everywhere(test: impl AsyncFnOnce() + Send + Clone + 'static) {
    for kind in [EngineKind::Sim(1), EngineKind::Sim(2), EngineKind::IoUring, EngineKind::Epoll] {
        let runtime = Runtime::builder().engine(kind).reactors(2).build().unwrap();
        let test = test.clone();
        runtime.run(async move || test().await).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

/// A server whose connections are on the second reactor.
pub fn server(options: Options) -> Server {
    let core = Handle::current().unwrap().cores()[1];
    Server::new(options, vec![Thread::create("nbd", &format!("[{core}]")).unwrap()])
}

pub fn ram(block: u32, bytes: u64) -> Arc<dyn Device> {
    Malloc::new("ram", block, bytes / u64::from(block)).unwrap()
}

/// A server that exports a RAM disk of 512-byte blocks as "disk" and one of 4096-byte blocks as "disk4k".
fn two_disks() -> Server {
    let server = server(Options::default());
    server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
    server.add_export(Export::new("disk4k", ram(4096, MIB))).unwrap();
    server
}

/// Waits for connections that end by themselves.
async fn all_gone(server: &Server) {
    while server.connections() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8 ^ seed).collect()
}

#[test]
fn what_was_written_is_read_whatever_the_blocks() {
    everywhere(async || {
        let server = two_disks();
        for (name, wish) in
            [("disk", SIMPLE), ("disk", STRUCTURED), ("disk4k", SIMPLE), ("disk4k", STRUCTURED)]
        {
            let mut client = Client::new(&server, name, wish).await;
            assert_eq!(client.size, MIB);
            let mut expected = pattern(MIB as usize, wish.structured.into());
            client.write(0, &expected).await;
            let ranges = [(0, 1), (4095, 2), (511, 513), (1, 8190), (5000, 3), (4096, 4096), (8000, 30_000)];
            for (n, (offset, len)) in ranges.into_iter().enumerate() {
                let bytes = pattern(len, 100 + n as u8);
                client.write(offset, &bytes).await;
                expected[offset as usize..offset as usize + len].copy_from_slice(&bytes);
                assert!(client.read(offset, len as u32).await == bytes, "{name} {offset} {len}");
            }
            for (offset, len) in [(70_001, 1), (80_000, 20_000), (131_072, 65_536), (300_000, 100)] {
                let flags = if len == 1 { FUA } else { 0 };
                assert_eq!(client.error(ZEROES, flags, offset, len, b"").await, 0);
                expected[offset as usize..(offset + u64::from(len)) as usize].fill(0);
            }
            assert!(client.read(0, MIB as u32).await == expected, "{name}");
            client.disconnect().await;
        }
    });
}

#[test]
fn a_trim_leaves_blocks_alone_that_it_only_touches() {
    everywhere(async || {
        let server = two_disks();
        let mut client = Client::new(&server, "disk4k", SIMPLE).await;
        let bytes = pattern(16_384, 3);
        client.write(0, &bytes).await;
        for (offset, len) in [(1, 4095), (1, 8190), (4097, 100), (100, 0), (4000, 200)] {
            assert_eq!(client.error(TRIM, 0, offset, len, b"").await, 0);
        }
        assert!(client.read(0, 16_384).await == bytes);
        assert_eq!(client.error(TRIM, FUA, 4000, 8192, b"").await, 0);
        let after = client.read(0, 16_384).await;
        assert!(after[..4096] == bytes[..4096] && after[8192..] == bytes[8192..]);
        assert!(after[4096..8192].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn wrong_requests_are_answered_and_the_client_goes_on() {
    everywhere(async || {
        let server = two_disks();
        let mut read_only = Export::new("fixed", ram(512, MIB));
        read_only.options.read_only = true;
        server.add_export(read_only).unwrap();
        for wish in [SIMPLE, STRUCTURED] {
            let mut client = Client::new(&server, "disk", wish).await;
            client.write(0, &pattern(512, 9)).await;
            let wrong: [(u16, u16, u64, u32, usize, u32); 13] = [
                (READ, 0, MIB, 1, 0, INVAL),
                (READ, 0, u64::MAX, 512, 0, INVAL),
                (READ, 0, 0, 33 << 20, 0, INVAL),
                (READ, NO_HOLE, 0, 512, 0, INVAL),
                (WRITE, 0, MIB - 1, 512, 512, NOSPC),
                (WRITE, 0, u64::MAX - 5, 100, 100, NOSPC),
                (WRITE, 64, 0, 512, 512, INVAL),
                (WRITE, 0, 0, 33 << 20, 33 << 20, INVAL),
                (TRIM, 0, MIB, 512, 0, INVAL),
                (ZEROES, 0, MIB, 512, 0, NOSPC),
                (STATUS, 0, 0, 512, 0, INVAL),
                (FLUSH, 0, 1, 0, 0, INVAL),
                (4711, 0, 0, 0, 0, INVAL),
            ];
            for (command, flags, offset, len, payload, error) in wrong {
                let found = client.error(command, flags, offset, len, &vec![0xee; payload]).await;
                assert_eq!(found, error, "command {command} at {offset} of {len}");
            }
            for (command, offset) in
                [(READ, 0), (READ, MIB), (WRITE, 7), (TRIM, 0), (ZEROES, MIB), (CACHE, 0)]
            {
                assert_eq!(
                    client.error(command, 0, offset, 0, b"").await,
                    0,
                    "command {command} of no bytes"
                );
            }
            assert!(client.read(0, 512).await == pattern(512, 9), "nothing refused has written");
            client.disconnect().await;

            let mut client = Client::new(&server, "fixed", wish).await;
            for (command, payload) in [(WRITE, 512), (TRIM, 0), (ZEROES, 0)] {
                assert_eq!(client.error(command, 0, 0, 512, &vec![1; payload]).await, PERM);
            }
            assert_eq!(client.error(FLUSH, 0, 0, 0, b"").await, 0);
            assert!(client.read(0, 512).await.iter().all(|byte| *byte == 0));
        }
        let counts = server.exports().iter().map(|export| export.counts.errors).sum::<u64>();
        assert_eq!(counts, 2 * (13 + 3));
    });
}

#[test]
fn a_request_out_of_step_ends_its_connection_and_no_other() {
    everywhere(async || {
        let server = two_disks();
        let mut other = Client::new(&server, "disk", SIMPLE).await;
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        let first = client.ask(WRITE, 0, 0, 512, &[5; 512]).await.unwrap();
        client.send(b"this is not how a request begins").await.unwrap();
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.cookie, reply.error), (first, 0), "what came before is answered");
        assert!(client.is_closed().await);
        assert_eq!(other.read(0, 512).await, [5; 512]);
    });
}

#[test]
fn many_requests_are_under_way_and_each_has_its_reply() {
    everywhere(async || {
        let server = two_disks();
        let mut client = Client::new(&server, "disk", STRUCTURED).await;
        client.write(0, &pattern(MIB as usize, 1)).await;
        let expected = pattern(MIB as usize, 1);
        // More than a connection works on at a time, in one send.
        let mut bytes = Vec::new();
        for n in 0..500u64 {
            bytes.extend(request(
                if n.is_multiple_of(5) { CACHE } else { READ },
                DF * u16::from(n % 5 == 1),
                1000 + n,
                n * 2000,
                1000,
            ));
        }
        client.send(&bytes).await.unwrap();
        let mut seen = vec![false; 500];
        for _ in 0..500 {
            let reply = client.reply().await.unwrap();
            let n = (reply.cookie - 1000) as usize;
            assert!(!std::mem::replace(&mut seen[n], true) && reply.error == 0);
            let data = if n.is_multiple_of(5) { &[] } else { &expected[n * 2000..n * 2000 + 1000] };
            assert!(reply.data == data, "request {n}");
        }
    });
}

#[test]
fn a_client_may_send_a_large_write_before_it_reads_the_reply_of_a_large_read() {
    everywhere(async || {
        let server = server(Options::default());
        server.add_export(Export::new("disk", ram(4096, 16 * MIB))).unwrap();
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        let len = 8 << 20;
        // Ends when all of it was taken.
        client.ask(READ, 0, 0, len, b"").await.unwrap();
        client.ask(WRITE, 0, 0, len, &vec![7; len as usize]).await.unwrap();
        let replies = [client.reply().await.unwrap(), client.reply().await.unwrap()];
        assert!(replies.iter().all(|reply| reply.error == 0));
        assert_eq!(client.read(0, 1).await, [7]);
    });
}

#[test]
fn a_client_that_disconnects_or_half_closes_gets_its_replies() {
    everywhere(async || {
        let server = two_disks();
        for half in [false, true] {
            let mut client = Client::new(&server, "disk", SIMPLE).await;
            for n in 0..20 {
                client.ask(READ, 0, n * 4096, 4096, b"").await.unwrap();
            }
            match half {
                true => client.half_close().await,
                false => client.send(&request(DISCONNECT, 0xff, 0, 9, 9)).await.unwrap(),
            }
            for _ in 0..20 {
                assert_eq!(client.reply().await.unwrap().error, 0);
            }
            assert!(client.is_closed().await);
        }
    });
}

/// A volume of 64 KiB clusters: own, of its parent, of its parent's parent, zeroes, a hole, and again.
struct Chain;

impl Extents for Chain {
    fn extents(
        &self,
        offset: u64,
        len: u64,
        most: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<Extent>, IoErrorKind>> + '_>> {
        Box::pin(async move {
            sleep(Duration::from_micros(10)).await;
            let (mut extents, mut at) = (Vec::new(), offset);
            while at < offset + len && extents.len() < most {
                let end = (at + 1).next_multiple_of(65_536);
                let (content, depth) = match at / 65_536 % 5 {
                    3 => (Content::Zero, 1),
                    4 => (Content::Hole, 0),
                    n => (Content::Data, n as u32 + 1),
                };
                extents.push(Extent { len: end - at, content, depth });
                at = end;
            }
            Ok(extents)
        })
    }
}

#[test]
fn block_status_tells_what_the_volume_knows() {
    everywhere(async || {
        let server = server(Options::default());
        let volume = Export { extents: Some(Arc::new(Chain)), ..Export::new("volume", ram(512, MIB)) };
        server.add_export(volume).unwrap();
        server.add_export(Export::new("plain", ram(512, MIB))).unwrap();
        let mut client = Client::new(&server, "volume", STATUSES).await;
        let k = 65_536;
        let all = client.call(STATUS, 0, 0, 5 * k, b"").await.unwrap().status;
        assert_eq!(all[&1], [(3 * k, 0), (k, 2), (k, 3)], "equal neighbours are one");
        assert_eq!(all[&2], [(k, 1), (k, 2), (k, 3), (k, 1), (k, 0)]);
        let part = client.call(STATUS, 0, 1024, 512, b"").await.unwrap().status;
        assert_eq!(part[&2], [(k - 1024, 1)], "the last extent may reach beyond");
        let one = client.call(STATUS, REQ_ONE, 1024, 512, b"").await.unwrap().status;
        assert_eq!((&one[&1][..], &one[&2][..]), (&[(512, 0)][..], &[(512, 1)][..]));
        let one = client.call(STATUS, REQ_ONE, 0, MIB as u32, b"").await.unwrap().status;
        assert_eq!((&one[&1][..], &one[&2][..]), (&[(3 * k, 0)][..], &[(k, 1)][..]));
        // Zeroes that must not leave a hole are data here.
        assert_eq!(client.error(ZEROES, NO_HOLE | FAST_ZERO, 0, 512, b"").await, NOTSUP);
        client.write(0, &[7; 3 << 10]).await;
        assert_eq!(client.error(ZEROES, NO_HOLE, 512, 1024, b"").await, 0);
        let bytes = client.read(0, 3 << 10).await;
        assert_eq!(bytes, [vec![7; 512], vec![0; 1024], vec![7; 1536]].concat());

        let mut client = Client::new(&server, "plain", STATUSES).await;
        let all = client.call(STATUS, 0, 512, MIB as u32 - 512, b"").await.unwrap().status;
        assert_eq!(
            (&all[&1][..], &all[&2][..]),
            (&[(MIB as u32 - 512, 0)][..], &[(MIB as u32 - 512, 1)][..])
        );
        assert_eq!(client.error(ZEROES, NO_HOLE | FAST_ZERO | FUA, 0, 512, b"").await, 0);
    });
}

#[test]
fn a_client_that_vanishes_at_any_byte_costs_nothing() {
    everywhere(async || {
        let server = two_disks();
        let mut bytes = handshake("disk", STATUSES);
        for (command, len) in [(READ, 512u32), (WRITE, 700), (ZEROES, 512), (FLUSH, 0)] {
            bytes.extend(request(command, 0, 1, 0, len));
            bytes.extend(vec![0x55; if command == WRITE { len as usize } else { 0 }]);
        }
        for cut in 0..bytes.len() {
            let socket = paired(&server).await;
            send(&socket, &bytes[..cut]).await.unwrap();
            drop(socket);
        }
        // All of them end by themselves.
        all_gone(&server).await;
        assert_eq!(server.memory_in_use(), 0);
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        client.write(0, &[1; 512]).await;
        client.disconnect().await;
        all_gone(&server).await;
        let ended = server.stop().await;
        assert_eq!((ended.connections, ended.failed_flushes), (0, 0));
    });
}

#[test]
fn a_client_that_reads_no_replies_holds_what_it_asked_for_and_no_more() {
    everywhere(async || {
        let stalled = Duration::from_millis(100);
        let server = server(Options { memory: 64 << 20, stalled, ..Options::default() });
        server.add_export(Export::new("disk", ram(4096, 256 * MIB))).unwrap();
        let mut slow = Client::new(&server, "disk", SIMPLE).await;
        // Ten times what one connection may hold, and the whole budget.
        let requests: Vec<u8> = (0..80).flat_map(|n| request(READ, 0, n, 0, 8 << 20)).collect();
        slow.send(&requests).await.unwrap();
        let mut quick = Client::new(&server, "disk", SIMPLE).await;
        for n in 0..50 {
            quick.write(n * 4096, &[n as u8; 4096]).await;
            assert_eq!(quick.read(n * 4096, 4096).await, [n as u8; 4096]);
        }
        assert!(server.memory_in_use() <= 64 << 20);
        // One that needs more waits; the one that does not read is closed for it.
        let big = quick.read(0, 32 << 20).await;
        assert!(big.len() == 32 << 20 && big[4096] == 1);
        drop(slow);
        let ended = server.stop().await;
        assert!(ended.connections >= 1);
        assert_eq!(server.memory_in_use(), 0);
    });
}

#[test]
fn a_client_that_reads_no_replies_cannot_hold_up_a_stop() {
    everywhere(async || {
        let server = server(Options { grace: Duration::from_millis(50), ..Options::default() });
        server.add_export(Export::new("disk", ram(4096, 16 * MIB))).unwrap();
        let mut slow = Client::new(&server, "disk", SIMPLE).await;
        let requests: Vec<u8> = (0..8).flat_map(|n| request(READ, 0, n, 0, 8 << 20)).collect();
        slow.send(&requests).await.unwrap();
        while server.exports()[0].counts.reads == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.stop().await.connections, 1);
        assert_eq!((server.connections(), server.memory_in_use()), (0, 0));
    });
}

#[test]
fn handshakes_have_a_deadline() {
    everywhere(async || {
        let options = Options { handshake: Duration::from_millis(50), ..Options::default() };
        let server = server(options);
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let mut silent = Client::silent(paired(&server).await, SIMPLE);
        let mut served = loop {
            // On a busy machine it may take longer than the deadline.
            match Client::shaken(paired(&server).await, "disk", SIMPLE).await {
                Ok(client) => break client,
                Err(_) => continue,
            }
        };
        assert!(silent.take(18).await.is_ok() && silent.is_closed().await);
        // After the handshake there is no deadline.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(served.read(0, 1).await, [0]);
    });
}

#[test]
fn for_one_connection_too_many_the_oldest_handshake_gives_way_and_no_client_that_is_served() {
    everywhere(async || {
        let server = server(Options { connections: 3, ..Options::default() });
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let mut first = Client::new(&server, "disk", SIMPLE).await;
        let mut silent = Client::silent(paired(&server).await, SIMPLE);
        let mut later = Client::silent(paired(&server).await, SIMPLE);
        let mut second = Client::new(&server, "disk", SIMPLE).await;
        assert!(silent.take(18).await.is_ok() && silent.is_closed().await);
        let mut third = Client::new(&server, "disk", SIMPLE).await;
        assert!(later.take(18).await.is_ok() && later.is_closed().await);
        let mut fourth = Client::silent(paired(&server).await, SIMPLE);
        assert!(fourth.is_closed().await, "closed without a word");
        for client in [&mut first, &mut second, &mut third] {
            assert_eq!(client.read(0, 1).await, [0]);
        }
        first.disconnect().await;
        while server.connections() > 2 {
            sleep(Duration::from_millis(1)).await;
        }
        let _fifth = Client::new(&server, "disk", SIMPLE).await;
    });
}

#[test]
fn a_removed_export_answers_what_is_under_way_and_closes() {
    everywhere(async || {
        let server = two_disks();
        let mut staying = Client::new(&server, "disk4k", SIMPLE).await;
        let mut leaving = Client::new(&server, "disk", STRUCTURED).await;
        leaving.write(0, &[3; 512]).await;
        let ended = server.remove_export("disk").await.unwrap();
        assert_eq!((ended.connections, ended.failed_flushes), (1, 0));
        assert!(leaving.is_closed().await);
        assert_eq!(staying.read(0, 1).await, [0]);
        assert!(Client::shaken(paired(&server).await, "disk", SIMPLE).await.is_err());
        assert!(server.remove_export("disk").await.is_err());
        // Requests that come while it goes are answered, with success or as shutting down, or not read at all.
        let mut busy = Client::new(&server, "disk4k", STRUCTURED).await;
        let requests: Vec<u8> = (0..300).flat_map(|n| request(READ, 0, n, 0, 512)).collect();
        busy.send(&requests).await.unwrap();
        let removing = spindle_reactor::spawn_local({
            let server = server.clone();
            async move { server.remove_export("disk4k").await.unwrap() }
        });
        let mut before = true;
        while let Ok(reply) = busy.reply().await {
            before &= reply.error == 0;
            assert!(reply.error == SHUTDOWN || (before && reply.error == 0), "{reply:?}");
        }
        assert_eq!(removing.await.unwrap().connections, 2);
        // A name may be used again.
        server.add_export(Export::new("disk", ram(512, 2 * MIB))).unwrap();
        assert_eq!(Client::new(&server, "disk", SIMPLE).await.size, 2 * MIB);
    });
}

#[test]
fn a_stop_answers_what_is_under_way_and_admits_no_client() {
    everywhere(async || {
        let server = two_disks();
        let mut idle = Client::new(&server, "disk", SIMPLE).await;
        let mut shaking = Client::silent(paired(&server).await, SIMPLE);
        let mut writer = Client::new(&server, "disk", SIMPLE).await;
        for n in 0..20 {
            writer.ask(WRITE, 0, n * 512, 512, &[n as u8; 512]).await.unwrap();
        }
        for _ in 0..20 {
            assert_eq!(writer.reply().await.unwrap().error, 0);
        }
        // Half of a request, which never becomes whole.
        writer.ask(WRITE, 0, 0, 512, &[0xff; 100]).await.unwrap();
        let ended = server.stop().await;
        assert_eq!((ended.connections, ended.failed_flushes), (2, 0));
        for client in [&mut idle, &mut writer] {
            assert!(client.is_closed().await);
        }
        let _ = shaking.take(18).await;
        assert!(shaking.is_closed().await);
        assert!(Client::shaken(paired(&server).await, "disk", SIMPLE).await.is_err());
        assert!(server.add_export(Export::new("late", ram(512, MIB))).is_err());
    });
}

#[test]
fn a_flush_on_one_connection_covers_what_was_written_on_another() {
    everywhere(async || {
        let server = two_disks();
        let mut a = Client::new(&server, "disk", SIMPLE).await;
        let mut b = Client::new(&server, "disk", SIMPLE).await;
        assert_ne!(a.flags & 1 << 8, 0, "several connections are offered");
        a.write(0, &[4; 512]).await;
        assert_eq!(b.error(FLUSH, 0, 0, 0, b"").await, 0);
        assert_eq!(b.read(0, 512).await, [4; 512]);
    });
}

#[test]
fn the_only_export_has_the_empty_name_too() {
    everywhere(async || {
        let server = server(Options::default());
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        assert_eq!(Client::new(&server, "", SIMPLE).await.size, MIB);
        server.add_export(Export::new("other", ram(512, MIB))).unwrap();
        assert!(Client::shaken(paired(&server).await, "", SIMPLE).await.is_err());
    });
}

#[test]
fn exports_report_their_connections_and_counts() {
    everywhere(async || {
        let server = two_disks();
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        client.write(0, &[1; 1024]).await;
        client.read(0, 512).await;
        client.error(TRIM, 0, 0, 512, b"").await;
        client.error(FLUSH, 0, 0, 0, b"").await;
        let exports = server.exports();
        let disk = exports.iter().find(|export| export.name == "disk").unwrap();
        let connection = &disk.connections[0];
        assert!(connection.peer.starts_with("client ") && connection.thread == "nbd");
        for counts in [disk.counts, connection.counts] {
            assert_eq!(
                (counts.reads, counts.bytes_read, counts.writes, counts.bytes_written),
                (1, 512, 1, 1024)
            );
            assert_eq!((counts.unmaps, counts.flushes, counts.errors), (1, 1, 0));
        }
        client.disconnect().await;
        all_gone(&server).await;
        let exports = server.exports();
        let disk = exports.iter().find(|export| export.name == "disk").unwrap();
        assert_eq!((disk.connections.len(), disk.counts.requests()), (0, 4), "what is past still counts");
    });
}

#[test]
fn a_listener_is_there_until_it_is_stopped() {
    everywhere(async || {
        let server = two_disks();
        let folder = tempfile::tempdir().unwrap();
        let unix = server.listen(spindle_nbd::Address::Unix(folder.path().join("socket"))).await.unwrap();
        let tcp = server.listen("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).await.unwrap();
        assert_eq!(server.addresses(), [unix.clone(), tcp.clone()]);
        assert!(server.listen(unix.clone()).await.is_err() && server.listen(tcp.clone()).await.is_err());
        for address in [&unix, &tcp] {
            let mut client = Client::shaken(connected(address).await, "disk", SIMPLE).await.unwrap();
            assert_eq!(client.read(0, 1).await, [0]);
        }
        server.stop_listening(&tcp).await.unwrap();
        assert!(server.stop_listening(&tcp).await.is_err());
        assert_eq!(server.addresses(), std::slice::from_ref(&unix));
        let again = server.listen(tcp.clone()).await.unwrap();
        assert_eq!(again, tcp);
        server.stop().await;
        assert!(timeout(Duration::from_secs(1), server.listen(tcp)).await.unwrap().is_err());
        assert!(server.addresses().is_empty());
    });
}

#[test]
fn a_client_is_told_when_its_peer_is_gone() {
    everywhere(async || {
        let server = two_disks();
        let client = Client::new(&server, "disk", SIMPLE).await;
        let Client { socket, .. } = client;
        server.stop().await;
        let mut left = Client::silent(socket, SIMPLE);
        assert_eq!(left.take(1).await, Err(Gone));
    });
}
