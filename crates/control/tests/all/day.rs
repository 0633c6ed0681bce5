//! A day of a daemon in simulation: NBD clients write, flush and vanish, RPC clients work on volumes, others send
//! halves of requests, all through simulated sockets to the daemon's own service code, until it ends in order, is
//! killed, or the disk crashes; then it starts again on what is left. Beside it a model says what has to be there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use spindle_control::{Daemon, DaemonOptions, methods};
use spindle_engine::Address;
use spindle_engine::sim::{Crash, Disk, DiskOptions, Image, State, World};
use spindle_nbd::Server;
use spindle_reactor::{Runtime, random, sleep, spawn_local};
use spindle_rpc::Client as RpcClient;

use crate::client::{
    Client, FLUSH, FUA, READ, SIMPLE, STRUCTURED, WRITE, ZEROES, connected, handshake, request, send,
};
use crate::model::{Model, SECTOR};

const DISK: u64 = 64 << 20;
const RPC: &str = "rpc.sock";
const NBD: &str = "nbd.sock";
/// Sectors of a volume that are written.
const SECTORS: usize = 384;
/// The writers and their ranges.
const WRITERS: [(&str, Range<usize>); 3] = [("w0", 0..190), ("w0", 190..384), ("w1", 0..384)];
/// Lives of the daemon in a day.
const LIVES: u64 = 6;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InOrder,
    /// What is not durable is kept: only the program ends.
    Killed,
    Crash(Crash),
}

/// Counts of what happened; a test demands a least number of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    answers: u64,
    flushes: u64,
    vanished: u64,
    snapshots: u64,
}

/// One life of the daemon, as its clients share it.
struct Life {
    number: u64,
    model: RefCell<Model>,
    counts: Cell<Counts>,
    next: Cell<u64>,
    nbd: Server,
    /// Clients should end.
    ending: Cell<bool>,
}

impl Life {
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Takes an answer into the model.
    fn answered(&self, change: impl FnOnce(&mut Model)) {
        change(&mut self.model.borrow_mut());
        self.count(|counts| counts.answers += 1);
    }

    fn number(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.number << 32 | self.next.get()
    }

    /// A new name, such as `s3.17`.
    fn name(&self, kind: &str) -> String {
        format!("{kind}{}.{}", self.number, self.number() as u32)
    }
}

fn below(n: usize) -> usize {
    (random() % n as u64) as usize
}

fn lvs(name: &str) -> String {
    format!("lvs/{name}")
}

/// An RPC client.
struct Rpc(RpcClient);

impl Rpc {
    async fn connect() -> Rpc {
        Rpc(RpcClient::connect(Path::new(RPC)).await.unwrap())
    }

    /// The result of a call that succeeds.
    async fn done(&mut self, method: &str, params: Value) -> Value {
        let text = params.to_string();
        let result = self.0.call(method, (!params.is_null()).then_some(&*text)).await;
        serde_json::to_value(result.unwrap_or_else(|error| panic!("{method} {text}: {error}"))).unwrap()
    }

    async fn delete(&mut self, life: &Life, name: &str) {
        life.model.borrow_mut().deleting(name);
        self.done("bdev_lvol_delete", json!({"name": lvs(name)})).await;
        life.answered(|model| model.deleted(name));
    }
}

async fn nbd(export: &str) -> Client {
    let wish = if below(2) == 0 { SIMPLE } else { STRUCTURED };
    Client::shaken(connected(&Address::Unix(NBD.into())).await, export, wish).await.unwrap()
}

/// Sectors of a region that do not overlap.
fn ranges(region: &Range<usize>) -> Vec<Range<usize>> {
    let (mut ranges, mut at) = (Vec::new(), region.start);
    for _ in 0..1 + below(6) {
        let start = at + below(60);
        let stop = start + 1 + if below(3) == 0 { below(60) } else { below(4) };
        if stop > region.end {
            break;
        }
        ranges.push(start..stop);
        at = stop;
    }
    ranges
}

/// Requests under way, by cookie: command, flags, sectors.
type Burst = BTreeMap<u64, (u16, u16, Range<usize>)>;

fn burst(life: &Life, volume: &str, region: &Range<usize>) -> (Burst, Vec<u8>) {
    let (mut burst, mut bytes) = (Burst::new(), Vec::new());
    for range in ranges(region) {
        let command = [READ, WRITE, WRITE, ZEROES][below(4)];
        let flags = if command == READ { 0 } else { FUA * u16::from(below(4) == 0) };
        let (cookie, len) = (life.number(), range.len() * SECTOR);
        bytes.extend(request(command, flags, cookie, (range.start * SECTOR) as u64, len as u32));
        if command != READ {
            let value = if command == WRITE { cookie } else { 0 };
            life.model.borrow_mut().writing(volume, range.clone(), value);
        }
        if command == WRITE {
            bytes.extend(cookie.to_le_bytes().repeat(len / 8));
        }
        burst.insert(cookie, (command, flags, range));
    }
    (burst, bytes)
}

async fn replies(life: &Life, volume: &str, client: &mut Client, mut burst: Burst) {
    while !burst.is_empty() {
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.error, 0, "{}", reply.text);
        let (command, flags, range) = burst.remove(&reply.cookie).expect("it was asked");
        life.answered(|model| match command {
            READ => model.reads(volume, range, &reply.data),
            _ => model.written(volume, range, flags & FUA != 0),
        });
    }
}

/// Writes to a region of a volume through its own export, connects and disconnects.
async fn write(life: Rc<Life>, (volume, region): (&str, Range<usize>)) {
    let export = format!("{volume}.{}", region.start);
    while !life.ending.get() {
        let mut client = nbd(&export).await;
        let bytes = client.read((region.start * SECTOR) as u64, (region.len() * SECTOR) as u32).await;
        life.model.borrow_mut().reads(volume, region.clone(), &bytes);
        for _ in 0..1 + below(8) {
            let (burst, bytes) = burst(&life, volume, &region);
            let reads = burst.iter().filter(|(_, (command, ..))| *command == READ);
            client.expect(reads.map(|(cookie, (.., range))| (*cookie, (range.len() * SECTOR) as u32)));
            client.send(&bytes).await.unwrap();
            replies(&life, volume, &mut client, burst).await;
            if below(3) == 0 {
                let floor = life.model.borrow_mut().floor(volume);
                assert_eq!(client.error(FLUSH, 0, 0, 0, b"").await, 0);
                life.answered(|model| model.flushed(volume, &floor));
                life.count(|counts| counts.flushes += 1);
            }
        }
        if below(2) == 0 {
            client.disconnect().await;
        } else {
            // In the middle of something; what was asked may be done or not.
            let (_, bytes) = burst(&life, volume, &region);
            send(&client.socket, &bytes[..below(bytes.len() + 1)]).await.unwrap();
            sleep(Duration::from_micros(random() % 300)).await;
            drop(client);
            life.count(|counts| counts.vanished += 1);
        }
        let used = |life: &Life| {
            let exports = life.nbd.exports();
            exports.iter().any(|one| one.name == export && !one.connections.is_empty())
        };
        while used(&life) {
            sleep(Duration::from_micros(50)).await;
        }
    }
}

/// Takes snapshots of the volumes that are written, reads them, clones them and deletes both.
async fn snapshots(life: Rc<Life>) {
    let mut rpc = Rpc::connect().await;
    let mut kept: Vec<String> = Vec::new();
    while !life.ending.get() {
        let volume = ["w0", "w1"][below(2)];
        let mut name = life.name("s");
        life.model.borrow_mut().copying(volume, &name);
        rpc.done("bdev_lvol_snapshot", json!({"lvol_name": lvs(volume), "snapshot_name": name})).await;
        life.answered(|model| model.made(&name));
        life.count(|counts| counts.snapshots += 1);
        kept.push(name.clone());
        let mut clone = None;
        if below(2) == 0 {
            let copy = life.name("k");
            life.model.borrow_mut().copying(&name, &copy);
            rpc.done("bdev_lvol_clone", json!({"snapshot_name": lvs(&name), "clone_name": copy})).await;
            life.answered(|model| model.made(&copy));
            match below(3) {
                0 => drop(rpc.done("bdev_lvol_inflate", json!({"name": lvs(&copy)})).await),
                1 => drop(rpc.done("bdev_lvol_decouple_parent", json!({"name": lvs(&copy)})).await),
                _ => {}
            }
            name = copy.clone();
            clone = Some(copy);
        }
        rpc.done("nbd_export", json!({"bdev_name": lvs(&name)})).await;
        let bytes = nbd(&lvs(&name)).await.read(0, (SECTORS * SECTOR) as u32).await;
        life.model.borrow_mut().reads(&name, 0..SECTORS, &bytes);
        rpc.done("nbd_unexport", json!({"name": lvs(&name)})).await;
        if let Some(clone) = clone {
            rpc.delete(&life, &clone).await;
        }
        while kept.len() > below(3) {
            rpc.delete(&life, &kept.remove(0)).await;
        }
    }
}

/// Makes, writes, resizes, renames and deletes volumes.
async fn volumes(life: Rc<Life>) {
    let mut rpc = Rpc::connect().await;
    let mut kept: Vec<String> = Vec::new();
    while !life.ending.get() {
        let (mut name, mib, thin) = (life.name("c"), 1 + below(3) as u64, below(2) == 0);
        life.model.borrow_mut().creating(&name, mib, usize::from(thin));
        let made = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": mib, "thin_provision": thin});
        rpc.done("bdev_lvol_create", made).await;
        life.answered(|model| model.made(&name));
        if thin && below(2) == 0 {
            rpc.done("nbd_export", json!({"bdev_name": lvs(&name)})).await;
            let mut client = nbd(&lvs(&name)).await;
            let value = life.number();
            life.model.borrow_mut().writing(&name, 0..1, value);
            let bytes = value.to_le_bytes().repeat(SECTOR / 8);
            assert_eq!(client.error(WRITE, FUA, 0, SECTOR as u32, &bytes).await, 0);
            life.answered(|model| model.written(&name, 0..1, true));
            // An export goes with its volume, else it is in the way of a smaller size.
            if below(2) == 0 {
                rpc.delete(&life, &name).await;
                continue;
            }
            rpc.done("nbd_unexport", json!({"name": lvs(&name)})).await;
        }
        if below(2) == 0 {
            let mib = 1 + below(5) as u64;
            life.model.borrow_mut().resizing(&name, mib);
            rpc.done("bdev_lvol_resize", json!({"name": lvs(&name), "size_in_mib": mib})).await;
            life.answered(|model| model.resized(&name));
        }
        if below(2) == 0 {
            let new = life.name("d");
            life.model.borrow_mut().renaming(&name, &new);
            rpc.done("bdev_lvol_rename", json!({"old_name": lvs(&name), "new_name": new})).await;
            life.answered(|model| model.renamed(&name));
            name = new;
        }
        kept.push(name);
        while kept.len() > below(4) {
            rpc.delete(&life, &kept.remove(0)).await;
        }
    }
}

/// Sends parts of what others send, reads no answers and goes.
async fn vanish(life: Rc<Life>) {
    let call = br#"{"jsonrpc": "2.0", "id": 1, "method": "bdev_get_bdevs", "params": {"name": "lvs/w0"}}"#;
    while !life.ending.get() {
        let (address, bytes) = match below(2) {
            0 => (RPC, call.to_vec()),
            _ => (NBD, handshake("w0.0", SIMPLE)),
        };
        let socket = connected(&Address::Unix(address.into())).await;
        // The server may have closed over what came first.
        let _ = send(&socket, &bytes[..below(bytes.len() + 1)]).await;
        sleep(Duration::from_micros(random() % 500)).await;
        life.count(|counts| counts.vanished += 1);
    }
}

async fn make_store(rpc: &mut Rpc, life: &Life) {
    let store = json!({"bdev_name": "base", "lvs_name": "lvs", "cluster_sz": 65536});
    rpc.done("bdev_lvol_create_lvstore", store).await;
    for name in ["w0", "w1"] {
        let volume = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": 1, "thin_provision": true});
        rpc.done("bdev_lvol_create", volume).await;
        life.model.borrow_mut().creating(name, 1, SECTORS);
        life.model.borrow_mut().made(name);
    }
}

/// All volumes are as the model says behind that end.
async fn verify(rpc: &mut Rpc, life: &Life, end: End) {
    let bdevs = rpc.done("bdev_get_bdevs", Value::Null).await;
    let volumes = bdevs.as_array().unwrap().iter().filter(|bdev| bdev["product_name"] == "Logical Volume");
    let found = volumes.map(|bdev| {
        let name = bdev["aliases"][0].as_str().unwrap().strip_prefix("lvs/").unwrap();
        (name.to_owned(), (bdev["num_blocks"].as_u64().unwrap() * bdev["block_size"].as_u64().unwrap()) >> 20)
    });
    life.model.borrow_mut().agree(&found.collect(), &format!("life {}, behind {end:?}", life.number));
    let names = life.model.borrow().names();
    for (name, sectors) in names.into_iter().filter(|(_, sectors)| *sectors > 0) {
        rpc.done("nbd_export", json!({"bdev_name": lvs(&name)})).await;
        let bytes = nbd(&lvs(&name)).await.read(0, (sectors * SECTOR) as u32).await;
        life.model.borrow_mut().survived(&name, &bytes, !matches!(end, End::Crash(_)));
        rpc.done("nbd_unexport", json!({"name": lvs(&name)})).await;
    }
}

/// How one life begins and ends.
#[derive(Clone)]
struct Plan {
    number: u64,
    model: Model,
    before: End,
    end: End,
    answers: u64,
}

async fn live(plan: Plan, disk: Disk) -> (Model, State, Counts) {
    let options = DaemonOptions {
        rpc_socket: Some(RPC.into()),
        nbd: vec![Address::Unix(NBD.into())],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(options, methods::table()).await.unwrap();
    let life = Rc::new(Life {
        number: plan.number,
        model: RefCell::new(plan.model),
        counts: Cell::default(),
        next: Cell::new(0),
        nbd: daemon.control().nbd().clone(),
        ending: Cell::new(false),
    });
    let mut rpc = Rpc::connect().await;
    let block = disk.options().atomic_unit;
    rpc.done("bdev_aio_create", json!({"name": "base", "filename": "disk", "block_size": block})).await;
    if plan.number == 0 {
        make_store(&mut rpc, &life).await;
    }
    verify(&mut rpc, &life, plan.before).await;
    for (volume, region) in WRITERS {
        let export = format!("{volume}.{}", region.start);
        rpc.done("nbd_export", json!({"bdev_name": lvs(volume), "name": export})).await;
    }
    let mut clients: Vec<_> = WRITERS.map(|writer| spawn_local(write(life.clone(), writer))).into();
    clients.push(spawn_local(snapshots(life.clone())));
    clients.push(spawn_local(volumes(life.clone())));
    clients.push(spawn_local(vanish(life.clone())));
    while life.counts.get().answers < plan.answers {
        sleep(Duration::from_micros(1 + random() % 100)).await;
        assert!(clients.iter().all(|client| !client.is_finished()), "a client failed");
    }
    if plan.end == End::InOrder {
        life.ending.set(true);
        for client in clients {
            client.await.unwrap();
        }
        daemon.stop().await;
    }
    (life.model.borrow().clone(), disk.snapshot(), life.counts.get())
}

/// Numbers from a seed, for what is decided outside of a world.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// The traces of all lives of a day, and what happened.
fn day(seed: u64) -> (Vec<u64>, Counts) {
    let mut choices = Choices(seed);
    let (mut traces, mut total) = (Vec::new(), Counts::default());
    let (mut image, mut model, mut before) = (Image::zeroed(DISK), Model::default(), End::InOrder);
    for number in 0..LIVES {
        let crashes = [Crash::LoseAll, Crash::Random, Crash::Random];
        let end = match choices.below(5) {
            0 => End::InOrder,
            1 => End::Killed,
            kind => End::Crash(crashes[kind - 2]),
        };
        let most = [20, 200, 400][choices.below(3)];
        let answers = 1 + choices.below(most) as u64;
        let world = World::new(seed.wrapping_mul(1000).wrapping_add(number));
        // A file's blocks are taken to be what a power cut leaves old or new.
        let atomic_unit = if seed.is_multiple_of(2) { 512 } else { 4096 };
        let disk = Disk::from_image(image, DiskOptions { atomic_unit, ..DiskOptions::new(DISK) });
        world.add_disk("disk", disk.clone());
        let runtime = Runtime::builder().world(world.clone()).reactors(2).build().unwrap();
        let plan = Plan { number, model, before, end, answers };
        let lived = runtime.run(async move || live(plan, disk).await);
        let (after, state, counts) =
            lived.unwrap_or_else(|error| panic!("seed {seed}, life {number}, behind {before:?}: {error}"));
        let crash = match end {
            // An end in order leaves nothing that could be lost.
            End::InOrder => Crash::LoseAll,
            End::Killed => Crash::KeepAll,
            End::Crash(crash) => crash,
        };
        image = state.crash(crash, &mut |n| choices.below(n));
        (model, before) = (after, end);
        traces.push(world.trace_hash());
        total.answers += counts.answers;
        total.flushes += counts.flushes;
        total.vanished += counts.vanished;
        total.snapshots += counts.snapshots;
    }
    (traces, total)
}

#[test]
fn days_of_rpc_and_nbd_with_crashes_are_as_the_model_says() {
    let chosen = chosen_seed();
    let mut total = Counts::default();
    for seed in (0..8).chain(chosen..chosen + 4) {
        let (_, counts) = day(seed);
        total.answers += counts.answers;
        total.flushes += counts.flushes;
        total.vanished += counts.vanished;
        total.snapshots += counts.snapshots;
    }
    println!("seeds 0 to 7 and {chosen} to {}: {total:?}", chosen + 3);
    assert!(total.answers > 3000 && total.flushes > 200 && total.vanished > 200 && total.snapshots > 50);
}

#[test]
fn one_seed_is_one_day() {
    assert_eq!(day(77), day(77));
    assert_ne!(day(77).0, day(78).0);
}

/// The seed that the commit under test has for itself, as `tests/run` says; another fixed one without.
fn chosen_seed() -> u64 {
    std::env::var("SPINDLE_TEST_SEED").map_or(1000, |seed| seed.parse().unwrap())
}
