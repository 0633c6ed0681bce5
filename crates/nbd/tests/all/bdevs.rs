//! Exports of bdevs and of volumes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::{Bdev, ClaimType, DescOptions, Registry};
use spindle_block::Operation;
use spindle_lvol::{LvolSpec, LvolStore, Lvols, StoreSpec};
use spindle_nbd::{BdevExport, ExportError, ExportOptions, Options, Server};
use spindle_reactor::{EngineKind, Runtime, now, random, sleep, spawn_local, yield_now};

use crate::client::{Client, FLUSH, READ, SIMPLE, STATUS, STATUSES, TRIM, WRITE, ZEROES, paired, request};
use crate::connections::server;

const MIB: u64 = 1 << 20;
const SHUTDOWN: u32 = 108;

/// Runs a test with a registry and a server, in simulation and on the machine, and leaves everything in order.
fn with_registry(kinds: &[EngineKind], test: impl AsyncFnOnce(Registry, Server) + Send + Clone + 'static) {
    for kind in kinds {
        let runtime = Runtime::builder().reactors(2).engine(*kind).build().unwrap();
        let test = test.clone();
        let main = async move || {
            let registry = Registry::start().unwrap();
            let server = server(Options::default());
            test(registry.clone(), server.clone()).await;
            server.stop().await;
            registry.shutdown().await.unwrap();
        };
        runtime.run(main).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

const KINDS: [EngineKind; 3] = [EngineKind::Sim(1), EngineKind::Sim(2), EngineKind::IoUring];

async fn ram(registry: &Registry, name: &str, mib: u64) -> Bdev {
    let (name, num_blocks) = (Some(name.to_owned()), mib * MIB / 512);
    let spec = MallocSpec { name, block_size: 512, num_blocks, ..MallocSpec::default() };
    malloc::create(registry, spec).await.unwrap()
}

async fn store(registry: &Registry) -> LvolStore {
    let lvols = Lvols::start(registry).await.unwrap();
    ram(registry, "M0", 64).await;
    let cluster_size = Some(64 << 10);
    let spec = StoreSpec { bdev: "M0".into(), name: "lvs".into(), cluster_size, ..StoreSpec::default() };
    lvols.create_store(spec).await.unwrap()
}

#[test]
fn an_export_goes_with_its_bdev_and_its_clients_with_it() {
    with_registry(&KINDS, async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        ram(&registry, "M1", 1).await;
        server.export_bdev("M0", BdevExport::default()).unwrap();
        let options = ExportOptions { read_only: true, ..ExportOptions::default() };
        let named = BdevExport { name: "other".into(), options };
        server.export_bdev("M1", named).unwrap();
        let mut leaving = Client::new(&server, "M0", SIMPLE).await;
        let mut staying = Client::new(&server, "other", SIMPLE).await;
        leaving.write(0, &[1; 512]).await;
        assert_eq!(staying.error(WRITE, 0, 0, 512, &[1; 512]).await, 1, "it is exported for reading only");
        registry.delete(malloc::MODULE, "M0").await.unwrap();
        assert!(leaving.is_closed().await);
        assert!(Client::shaken(paired(&server).await, "M0", SIMPLE).await.is_err());
        assert_eq!(staying.read(0, 1).await, [0]);
        // The name is free again, and an export that is removed leaves its bdev alone.
        ram(&registry, "M0", 2).await;
        server.export_bdev("M0", BdevExport::default()).unwrap();
        assert_eq!(Client::new(&server, "M0", SIMPLE).await.size, 2 * MIB);
        server.remove_export("M0").await.unwrap();
        assert_eq!(registry.get("M0").unwrap().descriptors(), 0);
    });
}

#[test]
fn the_removal_of_a_bdev_ends_the_requests_that_its_device_keeps() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        error::create(&registry, ErrorSpec { base: "M0".into(), uuid: None }).await.unwrap();
        let kept = Injection { effect: Effect::Pending, count: 1, queue_depth: 0 };
        error::inject(&registry, "EE_M0", Target::One(Operation::Read), kept).unwrap();
        server.export_bdev("EE_M0", BdevExport::default()).unwrap();
        let mut client = Client::new(&server, "EE_M0", SIMPLE).await;
        client.send(&request(READ, 0, 99, 0, 512)).await.unwrap();
        // It has come to the device.
        assert_eq!(client.read(0, 1).await, [0]);
        let deleting = spawn_local(async move { error::delete(&registry, "EE_M0").await.unwrap() });
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.cookie, reply.error), (99, SHUTDOWN), "the client that reads is told");
        assert!(client.is_closed().await);
        deleting.await.unwrap();
        // The last reply is sent when the bdev may be gone already.
        while server.connections() > 0 {
            yield_now().await;
        }
    });
}

/// Has "EE_M0" keep requests of one kind until it is removed.
fn keep(registry: &Registry, operation: Operation, count: u32) {
    let kept = Injection { effect: Effect::Pending, count, queue_depth: 0 };
    error::inject(registry, "EE_M0", Target::One(operation), kept).unwrap();
}

#[test]
fn the_end_of_an_export_or_of_the_server_answers_requests_that_the_device_keeps_for_ever() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        error::create(&registry, ErrorSpec { base: "M0".into(), uuid: None }).await.unwrap();
        for stops in [false, true] {
            server.export_bdev("EE_M0", BdevExport::default()).unwrap();
            let mut client = Client::new(&server, "EE_M0", SIMPLE).await;
            let mut gone = Client::new(&server, "EE_M0", SIMPLE).await;
            keep(&registry, Operation::Read, 1);
            keep(&registry, Operation::Write, 2);
            let read = client.ask(READ, 0, 0, 512, &[]).await.unwrap();
            let write = client.ask(WRITE, 0, 4096, 512, &[1; 512]).await.unwrap();
            gone.ask(WRITE, 0, 512, 512, &[2; 512]).await.unwrap();
            // They have come to the device.
            assert_eq!((client.read(8192, 1).await, gone.read(8192, 1).await), (vec![0], vec![0]));
            drop(gone);
            let ending = spawn_local({
                let server = server.clone();
                async move {
                    match stops {
                        true => server.stop().await,
                        false => server.remove_export("EE_M0").await.unwrap(),
                    }
                }
            });
            let mut replies = Vec::new();
            for _ in 0..2 {
                let reply = client.reply().await.unwrap();
                replies.push((reply.cookie, reply.error));
            }
            replies.sort_unstable();
            let mut expected = [(read, SHUTDOWN), (write, SHUTDOWN)];
            expected.sort_unstable();
            assert_eq!(replies, expected, "it stops: {stops}");
            assert!(client.is_closed().await);
            assert_eq!(ending.await.unwrap().failed_flushes, 0);
            assert_eq!(server.connections(), 0);
            if !stops {
                assert_eq!(registry.get("EE_M0").unwrap().descriptors(), 0);
                server.export_bdev("EE_M0", BdevExport::default()).unwrap();
                let mut next = Client::new(&server, "EE_M0", SIMPLE).await;
                next.write(4096, &[3; 512]).await;
                assert_eq!(next.read(4096, 1).await, [3], "no earlier write is done later");
                server.remove_export("EE_M0").await.unwrap();
            }
        }
    });
}

#[test]
fn the_end_of_an_export_counts_a_last_flush_that_the_device_keeps_for_ever_as_failed() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        error::create(&registry, ErrorSpec { base: "M0".into(), uuid: None }).await.unwrap();
        server.export_bdev("EE_M0", BdevExport::default()).unwrap();
        keep(&registry, Operation::Flush, 2);
        let mut staying = Client::new(&server, "EE_M0", SIMPLE).await;
        let mut gone = Client::new(&server, "EE_M0", SIMPLE).await;
        staying.write(0, &[1; 512]).await;
        gone.write(512, &[1; 512]).await;
        drop(gone);
        let ended = server.remove_export("EE_M0").await.unwrap();
        assert_eq!((ended.failed_flushes, server.connections()), (2, 0));
        assert_eq!(registry.get("EE_M0").unwrap().descriptors(), 0);
    });
}

/// Exports a disk of 64 MiB as "D0", whose device takes longer for a write than clients have to read replies.
async fn export_slow_writes(registry: &Registry, server: &Server) {
    ram(registry, "M0", 64).await;
    let latencies = [0, 0, 8_000_000, 8_000_000];
    let spec = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies };
    delay::create(registry, spec).await.unwrap();
    server.export_bdev("D0", BdevExport::default()).unwrap();
}

#[test]
fn a_write_that_takes_a_device_long_is_answered_when_its_export_or_the_server_ends() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        export_slow_writes(&registry, &server).await;
        for stops in [false, true] {
            let mut client = Client::new(&server, "D0", SIMPLE).await;
            let write = client.ask(WRITE, 0, 0, 512, &[1; 512]).await.unwrap();
            // It has come to the device.
            client.read(4096, 1).await;
            let ending = spawn_local({
                let server = server.clone();
                async move {
                    match stops {
                        true => server.stop().await,
                        false => server.remove_export("D0").await.unwrap(),
                    }
                }
            });
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.cookie, reply.error), (write, 0), "it stops: {stops}");
            assert!(client.is_closed().await);
            let ended = ending.await.unwrap();
            assert_eq!((ended.connections, ended.failed_flushes), (1, 0));
            if !stops {
                server.export_bdev("D0", BdevExport::default()).unwrap();
            }
        }
    });
}

#[test]
fn a_client_that_does_not_read_ends_in_its_time_whatever_the_device_keeps() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        export_slow_writes(&registry, &server).await;
        let mut client = Client::new(&server, "D0", SIMPLE).await;
        let reads: Vec<u8> = (0..6).flat_map(|n| request(READ, 0, n, 0, 8 << 20)).collect();
        client.send(&reads).await.unwrap();
        while server.exports()[0].counts.reads == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let began = now();
        server.remove_export("D0").await.unwrap();
        assert!(now().since(began) < Duration::from_secs(6), "nothing is kept");
        server.export_bdev("D0", BdevExport::default()).unwrap();
        let mut client = Client::new(&server, "D0", SIMPLE).await;
        client.ask(WRITE, 0, 0, 512, &[1; 512]).await.unwrap();
        client.send(&reads).await.unwrap();
        while server.exports()[0].counts.reads == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let began = now();
        server.remove_export("D0").await.unwrap();
        assert!(now().since(began) < Duration::from_secs(9), "the write ends, and the client with it");
        assert_eq!((server.connections(), server.memory_in_use()), (0, 0));
    });
}

#[test]
fn an_export_that_was_removed_leaves_no_descriptor_open_on_any_thread() {
    with_registry(&KINDS, async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        for round in 0..40 {
            server.export_bdev("M0", BdevExport::default()).unwrap();
            let client = Client::new(&server, "M0", SIMPLE).await;
            if round % 2 == 0 {
                drop(client);
            }
            server.remove_export("M0").await.unwrap();
            assert_eq!(registry.get("M0").unwrap().descriptors(), 0, "round {round}");
        }
    });
}

#[test]
fn a_bdev_that_is_not_there_or_claimed_is_not_exported() {
    with_registry(&KINDS[..1], async |registry: Registry, server: Server| {
        let found = server.export_bdev("nothing", BdevExport::default());
        assert!(matches!(found, Err(ExportError::Bdev { .. })), "{found:?}");
        ram(&registry, "M0", 1).await;
        let claim = Bdev::open("M0").unwrap();
        claim.claim(ClaimType::Exclusive, "a test", "").unwrap();
        let error = server.export_bdev("M0", BdevExport::default()).unwrap_err().to_string();
        assert!(error.contains("M0") && error.contains("a test"), "{error}");
        let options = ExportOptions { read_only: true, ..ExportOptions::default() };
        let reading = BdevExport { options, ..BdevExport::default() };
        server.export_bdev("M0", reading).unwrap();
        assert!(matches!(server.export_bdev("M0", BdevExport::default()), Err(ExportError::Bdev { .. })));
        drop(claim);
        assert!(matches!(server.export_bdev("M0", BdevExport::default()), Err(ExportError::Exists(_))));
        assert_eq!(registry.get("M0").unwrap().descriptors(), 1, "a refused client leaves nothing open");
    });
}

#[test]
fn a_client_keeps_its_size_and_the_next_one_sees_the_new() {
    with_registry(&KINDS[..1], async |registry: Registry, server: Server| {
        let spec = NullSpec { name: "N0".into(), block_size: 512, num_blocks: 2048, ..NullSpec::default() };
        null::create(&registry, spec).await.unwrap();
        server.export_bdev("N0", BdevExport::default()).unwrap();
        let mut old = Client::new(&server, "N0", SIMPLE).await;
        null::resize(&registry, "N0", 4096).await.unwrap();
        let mut new = Client::new(&server, "N0", SIMPLE).await;
        assert_eq!((old.size, new.size), (MIB, 2 * MIB));
        assert_eq!(old.error(READ, 0, MIB, 512, b"").await, 22);
        assert_eq!(new.error(READ, 0, MIB, 512, b"").await, 0);
    });
}

#[test]
fn a_chain_of_volumes_tells_its_holes_and_its_layers() {
    with_registry(&KINDS, async |registry: Registry, server: Server| {
        let store = store(&registry).await;
        let volume = store.create(LvolSpec::thin("vol", MIB)).await.unwrap();
        server.export_bdev("lvs/vol", BdevExport::default()).unwrap();
        let k = 64u32 << 10;
        let mut client = Client::new(&server, "lvs/vol", STATUSES).await;
        let status = client.call(STATUS, 0, 0, MIB as u32, b"").await.unwrap().status;
        assert_eq!((&status[&1][..], &status[&2][..]), (&[(16 * k, 3)][..], &[(16 * k, 0)][..]));
        client.write(0, &[1; 100]).await;
        let snapshot = volume.snapshot("snap").await.unwrap();
        client.write(3 * u64::from(k) - 5, &[2; 10]).await;
        let status = client.call(STATUS, 0, 0, MIB as u32, b"").await.unwrap().status;
        assert_eq!(status[&2], [(k, 2), (k, 0), (2 * k, 1), (12 * k, 0)]);
        assert_eq!(status[&1], [(k, 0), (k, 3), (2 * k, 0), (12 * k, 3)]);
        assert_eq!(client.error(ZEROES, 0, 0, k, b"").await, 0);
        assert_eq!(client.error(TRIM, 0, 0, MIB as u32, b"").await, 0);
        assert!(client.read(0, k).await.iter().all(|byte| *byte == 0), "zeroes hide what the parent has");
        // A snapshot cannot be written, whatever is asked for.
        server.export_bdev(&snapshot.alias(), BdevExport::default()).unwrap();
        let mut client = Client::new(&server, "lvs/snap", SIMPLE).await;
        assert_eq!(client.error(WRITE, 0, 0, 512, &[1; 512]).await, 1);
        assert_eq!(client.read(98, 4).await, [1, 1, 0, 0]);
    });
}

#[test]
fn a_full_store_is_no_space_and_its_clients_go_on() {
    with_registry(&KINDS[..2], async |registry: Registry, server: Server| {
        let store = store(&registry).await;
        store.create(LvolSpec::thin("vol", 256 * MIB)).await.unwrap();
        server.export_bdev("lvs/vol", BdevExport::default()).unwrap();
        let mut client = Client::new(&server, "lvs/vol", SIMPLE).await;
        let mut at = 0;
        let error = loop {
            let error = client.error(WRITE, 0, at, MIB as u32, &[5; MIB as usize]).await;
            if error != 0 {
                break error;
            }
            at += MIB;
        };
        assert_eq!((error, at >= 48 * MIB), (28, true));
        assert_eq!(client.read(at - 1, 1).await, [5]);
        assert_eq!(client.error(FLUSH, 0, 0, 0, b"").await, 0);
    });
}

/// What a volume is written with: each block its number of writes.
#[derive(Default)]
struct Written {
    next: u64,
    issued: Vec<u64>,
    acknowledged: Vec<u64>,
}

const BLOCKS: usize = 256;

/// Takes a snapshot in the middle of `bursts` of writes and looks at its clone.
async fn snapshot_under_load(registry: Registry, server: Server) {
    let store = store(&registry).await;
    let volume = store.create(LvolSpec::thin("vol", MIB)).await.unwrap();
    server.export_bdev("lvs/vol", BdevExport::default()).unwrap();
    let written = Written { next: 0, issued: vec![0; BLOCKS], acknowledged: vec![0; BLOCKS] };
    let written = Rc::new(RefCell::new(written));
    let mut client = Client::new(&server, "lvs/vol", SIMPLE).await;
    let mut snapshot = None;
    for burst in 0..24 {
        let first = (random() % BLOCKS as u64) as usize;
        let blocks: Vec<usize> = (0..48).map(|n| (first + n * 5) % BLOCKS).collect();
        let mut bytes = Vec::new();
        for block in &blocks {
            let mut written = written.borrow_mut();
            written.next += 1;
            written.issued[*block] = written.next;
            bytes.extend(request(WRITE, 0, *block as u64, *block as u64 * 4096, 4096));
            bytes.extend(written.next.to_be_bytes().repeat(512));
        }
        client.send(&bytes).await.unwrap();
        if burst == 8 {
            let (volume, written) = (volume.clone(), written.clone());
            snapshot = Some(spawn_local(async move {
                for _ in 0..random() % 20 {
                    yield_now().await;
                }
                let before = written.borrow().acknowledged.clone();
                volume.snapshot("snap").await.unwrap();
                (before, written.borrow().issued.clone())
            }));
        }
        for _ in &blocks {
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.error, 0);
            let mut written = written.borrow_mut();
            let block = reply.cookie as usize;
            written.acknowledged[block] = written.issued[block];
        }
    }
    let (before, after) = snapshot.unwrap().await.unwrap();
    let snapshot = store.lvol("snap").unwrap();
    snapshot.clone_as("clone").await.unwrap();
    server.export_bdev("lvs/clone", BdevExport::default()).unwrap();
    let bytes = Client::new(&server, "lvs/clone", SIMPLE).await.read(0, MIB as u32).await;
    for (block, bytes) in bytes.chunks(4096).enumerate() {
        let found = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "block {block} is written whole");
        let (least, most) = (before[block], after[block]);
        assert!((least..=most).contains(&found), "block {block} holds {found}, not {least} to {most}");
    }
    let bytes = client.read(0, MIB as u32).await;
    for (block, bytes) in bytes.chunks(4096).enumerate() {
        assert_eq!(bytes[..8], written.borrow().issued[block].to_be_bytes(), "block {block} of the volume");
    }
}

#[test]
fn a_snapshot_under_load_holds_what_was_acknowledged_before_it_and_nothing_later() {
    let mut kinds: Vec<_> = (0..10).map(EngineKind::Sim).collect();
    kinds.extend([EngineKind::IoUring, EngineKind::Epoll]);
    with_registry(&kinds, snapshot_under_load);
}

#[test]
fn an_open_descriptor_is_exported_as_it_is() {
    with_registry(&KINDS[..1], async |registry: Registry, server: Server| {
        ram(&registry, "M0", 1).await;
        let desc = DescOptions::new().open("M0").unwrap();
        server.add_export(spindle_nbd::Export::of_desc("disk", desc)).unwrap();
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        assert_eq!(client.error(WRITE, 0, 0, 512, &[1; 512]).await, 1, "it is open for reading");
        drop(client);
        server.remove_export("disk").await.unwrap();
        assert_eq!(registry.get("M0").unwrap().descriptors(), 0);
    });
}
