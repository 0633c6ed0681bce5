//! Clients that hurt: what one host or one kind of client may take from the others.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, OpenError, Submit};
use spindle_nbd::{Address, Export, Options, Server};
use spindle_reactor::{EngineKind, Runtime, now, sleep};

use crate::client::{Client, READ, SIMPLE, WRITE, connected, paired, request};
use crate::connections::{everywhere, ram, server};

const MIB: u64 = 1 << 20;
const IO: u32 = 5;
const INVAL: u32 = 22;

#[test]
fn a_user_or_host_with_all_its_connections_loses_its_own_oldest_handshake() {
    everywhere(async || {
        let server = server(Options { connections_of_one: 2, ..Options::default() });
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let mut silent = Client::silent(paired(&server).await, SIMPLE);
        let mut first = Client::new(&server, "disk", SIMPLE).await;
        let mut second = Client::new(&server, "disk", SIMPLE).await;
        assert!(silent.take(18).await.is_ok() && silent.is_closed().await);
        let mut third = Client::silent(paired(&server).await, SIMPLE);
        assert!(third.is_closed().await, "closed without a word");
        for client in [&mut first, &mut second] {
            assert_eq!(client.read(0, 1).await, [0]);
        }
    });
}

/// On the engines of the system, which report the peer's process.
fn on_systems(test: impl AsyncFnOnce() + Send + Clone + 'static) {
    for kind in [EngineKind::IoUring, EngineKind::Epoll] {
        let runtime = Runtime::builder().engine(kind).reactors(2).build().unwrap();
        let test = test.clone();
        runtime.run(async move || test().await).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

/// A client by TCP from this machine.
async fn from_a_host(server: &Server) -> Client {
    let address = server.listen(Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let client = Client::shaken(connected(&address).await, "disk", SIMPLE).await.unwrap();
    server.stop_listening(&address).await.unwrap();
    client
}

#[test]
fn connections_of_one_user_do_not_keep_a_host_out() {
    on_systems(async || {
        let server = server(Options { connections_of_one: 2, ..Options::default() });
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let _users = [Client::new(&server, "disk", SIMPLE).await, Client::new(&server, "disk", SIMPLE).await];
        assert!(Client::silent(paired(&server).await, SIMPLE).is_closed().await);
        assert_eq!(from_a_host(&server).await.read(0, 1).await, [0]);
    });
}

#[test]
fn readers_of_one_user_that_do_not_read_leave_the_rest_of_the_memory_to_a_host() {
    on_systems(async || {
        let share = 64 << 20;
        let server = server(Options { memory: 2 * share, memory_of_one: share, ..Options::default() });
        server.add_export(Export::new("disk", ram(4096, 64 * MIB))).unwrap();
        // Two of them have the whole share with one reply each.
        let mut deaf = Vec::new();
        for _ in 0..3 {
            let mut client = Client::new(&server, "disk", SIMPLE).await;
            let requests: Vec<u8> = (0..2).flat_map(|n| request(READ, 0, n, 0, 32 << 20)).collect();
            client.send(&requests).await.unwrap();
            deaf.push(client);
        }
        while server.memory_in_use() < share {
            sleep(Duration::from_millis(1)).await;
        }
        // No connection is closed for it: there is memory.
        let mut host = from_a_host(&server).await;
        assert_eq!(host.read(0, 32 << 20).await.len(), 32 << 20);
        assert!(server.memory_in_use() <= share + share / 2);
        assert_eq!(server.exports()[0].connections.len(), 4);
        drop((deaf, host));
        server.stop().await;
        assert_eq!(server.memory_in_use(), 0);
    });
}

#[test]
fn writes_that_are_announced_and_not_sent_give_their_memory_to_those_who_wait_for_it() {
    everywhere(async || {
        let withheld = Duration::from_millis(100);
        let server = server(Options { memory: 64 << 20, withheld, ..Options::default() });
        server.add_export(Export::new("disk", ram(4096, 64 * MIB))).unwrap();
        let mut announced = Vec::new();
        for part in [0, 1 << 20] {
            let mut client = Client::new(&server, "disk", SIMPLE).await;
            client.send(&request(WRITE, 0, 1, 0, 32 << 20)).await.unwrap();
            client.send(&vec![1; part]).await.unwrap();
            announced.push(client);
        }
        while server.memory_in_use() < 64 << 20 {
            sleep(Duration::from_millis(1)).await;
        }
        // While no other client waits, they may take their time.
        sleep(3 * withheld).await;
        assert_eq!(server.connections(), 2);
        let mut good = Client::new(&server, "disk", SIMPLE).await;
        assert_eq!(good.read(0, 8 << 20).await, vec![0; 8 << 20]);
        for mut client in announced {
            assert!(client.is_closed().await);
        }
        assert_eq!(good.read(0, 32 << 20).await.len(), 32 << 20);
        good.disconnect().await;
        server.stop().await;
        assert_eq!(server.memory_in_use(), 0);
    });
}

#[test]
fn a_write_that_is_sent_slowly_is_not_given_up_for_those_who_wait() {
    // In simulation alone: on a busy machine this client could stop for long, too.
    let runtime = Runtime::builder().engine(EngineKind::Sim(3)).reactors(2).build().unwrap();
    let ended = runtime.run(async || {
        let withheld = Duration::from_millis(100);
        let server = server(Options { memory: 64 << 20, withheld, ..Options::default() });
        server.add_export(Export::new("disk", ram(4096, 64 * MIB))).unwrap();
        let mut slow = Client::new(&server, "disk", SIMPLE).await;
        slow.send(&request(WRITE, 0, 1, 0, 32 << 20)).await.unwrap();
        let mut waiting = Client::new(&server, "disk", SIMPLE).await;
        waiting.send(&request(READ, 0, 2, 0, 32 << 20)).await.unwrap();
        let mut third = Client::new(&server, "disk", SIMPLE).await;
        third.send(&request(READ, 0, 3, 0, 8 << 20)).await.unwrap();
        for _ in 0..32 {
            sleep(withheld / 2).await;
            slow.send(&vec![7; 1 << 20]).await.unwrap();
        }
        assert_eq!(slow.reply().await.unwrap().error, 0);
        server.stop().await;
    });
    ended.unwrap();
}

#[test]
fn a_client_whose_requests_are_all_refused_is_read_from_at_a_pace() {
    everywhere(async || {
        let server = server(Options::default());
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let mut wrong = Client::new(&server, "disk", SIMPLE).await;
        let began = now();
        let flood: Vec<u8> = (0..160).flat_map(|n| request(99, 0, n, 0, 0)).collect();
        wrong.send(&flood).await.unwrap();
        for n in 0..160 {
            let reply = wrong.reply().await.unwrap();
            assert_eq!((reply.cookie, reply.error), (n, INVAL));
        }
        // Ten milliseconds behind each 16 but the last.
        assert!(now().since(began) >= Duration::from_millis(90));
        // One good request, and it has its patience back.
        assert_eq!(wrong.read(0, 1).await, [0]);
        wrong.disconnect().await;
    });
}

#[test]
fn connections_that_come_to_nothing_wait_for_their_turn_once_an_origin_has_had_its_burst() {
    everywhere(async || {
        let options = Options { connections_of_one: 4, visits_of_one: 20, ..Options::default() };
        let server = server(options);
        let address = server.listen(Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let began = now();
        for _ in 0..4 {
            drop(connected(&address).await);
        }
        let mut fifth = Client::silent(connected(&address).await, SIMPLE);
        assert_eq!(fifth.take(18).await.unwrap().len(), 18);
        assert!(now().since(began) >= Duration::from_millis(50), "a twentieth of a second for one more");
        server.stop().await;
    });
}

#[test]
fn connections_that_make_a_request_or_leave_properly_do_not_wait_and_those_beyond_the_queue_are_closed() {
    everywhere(async || {
        let options = Options { connections_of_one: 2, visits_of_one: 1, ..Options::default() };
        let server = server(options);
        server.add_export(Export::new("disk", ram(512, MIB))).unwrap();
        let address = server.listen(Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
        for n in 0..100 {
            let mut client = Client::shaken(connected(&address).await, "disk", SIMPLE).await.unwrap();
            if n % 2 == 0 {
                assert_eq!(client.read(0, 1).await, [0]);
            }
            client.disconnect().await;
        }
        let mut many = Vec::new();
        // Some wait; of so many further ones the account would need 40 s for the last to be among them.
        for _ in 0..2 + 64 + 40 {
            many.push(Client::silent(connected(&address).await, SIMPLE));
        }
        assert!(many.last_mut().unwrap().is_closed().await);
        server.stop().await;
    });
}

/// A device below which something is missing.
struct Missing;

impl Device for Missing {
    fn name(&self) -> &str {
        "missing"
    }

    fn geometry(&self) -> Geometry {
        Geometry::new(512, 2048).unwrap()
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(MissingLane))
    }
}

struct MissingLane;

impl Lane for MissingLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.done(io, Err(IoErrorKind::Removed));
        Submit::Taken
    }
}

#[test]
fn a_client_does_not_hear_that_the_server_goes_because_something_below_its_volume_is_gone() {
    everywhere(async || {
        let server = server(Options::default());
        server.add_export(Export::new("disk", Arc::new(Missing))).unwrap();
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        assert_eq!(client.error(READ, 0, 0, 512, b"").await, IO);
        assert_eq!(client.error(WRITE, 0, 0, 512, &[1; 512]).await, IO);
    });
}
