//! Many clients in simulation, beside a model: they overlap in blocks, vanish in the middle of a request, come
//! back, and a flush or FUA of any of them survives a crash of the disk.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use spindle_block::{File, FileOptions};
use spindle_engine::sim::{Crash, Disk, DiskOptions, World};
use spindle_nbd::{Export, Options, Server};
use spindle_reactor::{Runtime, random, sleep, spawn_local};

use crate::client::{Client, FLUSH, FUA, READ, SIMPLE, STRUCTURED, WRITE, ZEROES, request, send};
use crate::connections::server;

const SIZE: usize = 128 << 10;
const CLIENTS: usize = 5;
/// No whole number of blocks, so that neighbours share some.
const REGION: usize = 20_000;

/// What one byte of the disk may be.
#[derive(Clone)]
struct Byte {
    /// What is read.
    now: u8,
    /// When that was written.
    stamp: u64,
    /// A write of it has no reply yet.
    open: bool,
    /// What a crash may leave, with when it was written: the oldest is durable.
    left: Vec<(u64, u8)>,
}

struct Model {
    bytes: Vec<Byte>,
    next: u64,
    flushes: usize,
    vanished: usize,
}

type Shared = Rc<RefCell<Model>>;

impl Model {
    fn issue(&mut self, range: Range<usize>, value: impl Fn(usize) -> u8) {
        self.next += 1;
        for at in range {
            let byte = &mut self.bytes[at];
            byte.open = true;
            byte.left.push((self.next, value(at)));
        }
    }

    fn acknowledge(&mut self, range: Range<usize>, durable: bool) {
        for byte in &mut self.bytes[range] {
            let &(stamp, value) = byte.left.last().unwrap();
            (byte.now, byte.stamp, byte.open) = (value, stamp, false);
            if durable {
                byte.left = vec![(stamp, value)];
            }
        }
    }

    /// What a flush that is sent now makes durable.
    fn floor(&self) -> Vec<Option<u64>> {
        self.bytes.iter().map(|byte| (!byte.open).then_some(byte.stamp)).collect()
    }

    fn flushed(&mut self, floor: &[Option<u64>]) {
        self.flushes += 1;
        for (byte, floor) in self.bytes.iter_mut().zip(floor) {
            if let Some(floor) = floor {
                byte.left.retain(|(stamp, _)| stamp >= floor);
            }
        }
    }

    /// The bytes as they were read when no write of theirs was under way.
    fn settle(&mut self, range: Range<usize>, read: &[u8]) {
        self.next += 1;
        for (at, value) in range.zip(read) {
            let byte = &mut self.bytes[at];
            let possible =
                *value == byte.now || (byte.open && byte.left.iter().any(|(_, left)| left == value));
            assert!(possible, "byte {at} reads {value}, not {} or one of {:?}", byte.now, byte.left);
            byte.left.push((self.next, *value));
            (byte.now, byte.stamp, byte.open) = (*value, self.next, false);
        }
    }
}

fn below(n: usize) -> usize {
    (random() % n as u64) as usize
}

/// Ranges of a client's region that do not overlap.
fn ranges(number: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut at) = (Vec::new(), number * REGION);
    let end = at + REGION;
    for _ in 0..1 + below(6) {
        let start = at + below(3000);
        let stop = start + 1 + if below(3) == 0 { below(9000) } else { below(700) };
        if stop > end {
            break;
        }
        ranges.push(start..stop);
        at = stop;
    }
    ranges
}

/// Requests under way: of which bytes, and with what flags.
type Burst = Vec<(u64, u16, u16, Range<usize>)>;

/// Some requests and their bytes.
fn burst(model: &Shared, number: usize, cookie: &mut u64) -> (Burst, Vec<u8>) {
    let (mut burst, mut bytes) = (Vec::new(), Vec::new());
    for range in ranges(number) {
        let command = [READ, WRITE, WRITE, ZEROES][below(4)];
        let flags = if command == READ { 0 } else { FUA * u16::from(below(4) == 0) };
        *cookie += 1;
        bytes.extend(request(command, flags, *cookie, range.start as u64, range.len() as u32));
        let seed = random() as u8;
        let value = move |at: usize| if command == WRITE { (at as u8).wrapping_mul(31) ^ seed } else { 0 };
        if command != READ {
            model.borrow_mut().issue(range.clone(), value);
        }
        if command == WRITE {
            bytes.extend(range.clone().map(value));
        }
        burst.push((*cookie, command, flags, range));
    }
    (burst, bytes)
}

async fn replies(model: &Shared, client: &mut Client, mut burst: Burst) {
    while !burst.is_empty() {
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.error, 0, "{}", reply.text);
        let index = burst.iter().position(|(cookie, ..)| *cookie == reply.cookie).expect("it was asked");
        let (_, command, flags, range) = burst.swap_remove(index);
        match command {
            READ => {
                let model = model.borrow();
                let expected = model.bytes[range].iter().map(|byte| byte.now);
                assert!(expected.eq(reply.data.iter().copied()), "what was acknowledged is read");
            }
            _ => model.borrow_mut().acknowledge(range, flags & FUA != 0),
        }
    }
}

async fn flush(model: &Shared, client: &mut Client) {
    let floor = model.borrow().floor();
    assert_eq!(client.error(FLUSH, 0, 0, 0, b"").await, 0);
    model.borrow_mut().flushed(&floor);
}

/// A client that comes and goes.
async fn life(server: Server, model: Shared, number: usize) {
    let region = number * REGION..(number + 1) * REGION;
    let mut cookie = 1 << 32;
    for _ in 0..4 {
        let wish = if below(2) == 0 { SIMPLE } else { STRUCTURED };
        let mut client = Client::new(&server, "disk", wish).await;
        let read = client.read(region.start as u64, REGION as u32).await;
        model.borrow_mut().settle(region.clone(), &read);
        for _ in 0..6 {
            let (burst, bytes) = burst(&model, number, &mut cookie);
            client.expect(burst.iter().filter(|one| one.1 == READ).map(|one| (one.0, one.3.len() as u32)));
            client.send(&bytes).await.unwrap();
            replies(&model, &mut client, burst).await;
            if below(3) == 0 {
                flush(&model, &mut client).await;
            }
        }
        if below(4) == 0 {
            client.disconnect().await;
            continue;
        }
        // In the middle of something; what was asked may be done or not.
        let (_, bytes) = burst(&model, number, &mut cookie);
        let cut = below(bytes.len() + 1);
        send(&client.socket, &bytes[..cut]).await.unwrap();
        if below(2) == 0 {
            sleep(Duration::from_micros(random() % 300)).await;
        }
        let id = client.server_side(&server);
        drop(client);
        model.borrow_mut().vanished += 1;
        while server.exports()[0].connections.iter().any(|connection| connection.id == id) {
            sleep(Duration::from_micros(50)).await;
        }
    }
}

/// A day of all clients, and then a crash; the trace of it, flushes, and clients that vanished.
fn day(seed: u64) -> (u64, usize, usize) {
    let world = World::new(seed);
    let disk = Disk::new(DiskOptions::new(SIZE as u64));
    world.add_disk("disk", disk.clone());
    let runtime = Runtime::builder().world(world.clone()).reactors(2).build().unwrap();
    let (left, flushes, vanished) = runtime
        .run(async move || {
            let options = FileOptions::new("disk").writable(true).block_size(4096);
            let server = server(Options::default());
            server.add_export(Export::new("disk", File::open(options).await.unwrap())).unwrap();
            let byte = Byte { now: 0, stamp: 0, open: false, left: vec![(0, 0)] };
            let model = Model { bytes: vec![byte; SIZE], next: 0, flushes: 0, vanished: 0 };
            let model = Rc::new(RefCell::new(model));
            let lives: Vec<_> =
                (0..CLIENTS).map(|number| spawn_local(life(server.clone(), model.clone(), number))).collect();
            for life in lives {
                life.await.unwrap();
            }
            // Not stopped: a stop flushes.
            let model = model.borrow();
            let left: Vec<_> = model.bytes.iter().map(|byte| byte.left.clone()).collect();
            (left, model.flushes, model.vanished)
        })
        .unwrap();
    let mut choices = seed;
    for crash in [Crash::LoseAll, Crash::Random, Crash::Random, Crash::KeepAll] {
        let image = disk.crash(crash, &mut |n| {
            choices = choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (choices >> 33) as usize % n
        });
        for (at, (found, left)) in image.to_bytes().into_iter().zip(&left).enumerate() {
            assert!(
                left.iter().any(|(_, value)| *value == found),
                "seed {seed}, {crash:?}: byte {at} is {found}, not one of {left:?}"
            );
        }
    }
    (world.trace_hash(), flushes, vanished)
}

#[test]
fn a_day_of_clients_that_come_and_go_is_as_the_model_says_and_flushes_survive_a_crash() {
    let (mut flushes, mut vanished) = (0, 0);
    for seed in 0..12 {
        let (_, some, more) = day(seed);
        flushes += some;
        vanished += more;
    }
    assert!(flushes > 100 && vanished > 100, "{flushes} flushes, {vanished} vanished");
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(day(77), day(77));
    assert_ne!(day(77).0, day(78).0);
}

#[test]
fn silent_connections_hold_a_page_each_and_an_idle_pool_nothing() {
    let runtime = Runtime::builder().world(World::new(5)).reactors(2).build().unwrap();
    let test = async || {
        let server = server(Options::default());
        server.add_export(Export::new("disk", crate::connections::ram(512, 1 << 20))).unwrap();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = Client::new(&server, "disk", SIMPLE).await;
            // Busy first: a large window, and many requests at once.
            for n in 0..100u64 {
                client.ask(WRITE, 0, n * 512, 8192, &[1; 8192]).await.unwrap();
            }
            for _ in 0..100 {
                assert_eq!(client.reply().await.unwrap().error, 0);
            }
            clients.push(client);
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(server.buffers_held(), 20 * 4096);
        for client in &mut clients {
            assert_eq!(client.read(0, 1).await, [1], "and they go on");
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(server.buffers_held(), 20 * 4096);
        drop(clients);
        server.stop().await;
        // The engine gives them back when it has cancelled the last receives.
        while server.buffers_held() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    runtime.run(test).unwrap();
}
