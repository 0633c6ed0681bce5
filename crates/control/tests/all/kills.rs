//! The process is killed behind each write of each method that changes a store: another one finds what was there before the
//! call or the state after it. A few methods leave a documented step in between, which the same call finishes.
//!
//! It takes half a minute: each of some 120 writes is followed by another life of a daemon, or by two.
//!
//! The disk keeps what was written, as a kernel does whose process is killed; `days_of_rpc_and_nbd...` is about a disk that
//! loses writes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use spindle_control::{Daemon, DaemonOptions, methods};
use spindle_engine::Address;
use spindle_engine::sim::{Crash, Disk, DiskOptions, Image, Operation, State, World};
use spindle_reactor::Runtime;
use spindle_rpc::Client as RpcClient;

use crate::client::{Client, FUA, SIMPLE, WRITE, connected};

const MIB: u64 = 1 << 20;
const DISK: u64 = 24 * MIB;
const RPC: &str = "rpc.sock";
const NBD: &str = "nbd.sock";
const BLOCK: usize = 4096;
/// The UUID of the bdev outside of the store.
const OUTSIDE: &str = "00000000-0000-4000-8000-00000000000e";

/// A call, or `write` for a write to a volume.
type Step = (&'static str, Value);

/// A method, and what there is when it is called.
struct Case {
    before: Vec<Step>,
    call: Step,
    /// The disk has grown by then.
    grown: bool,
    /// A kill may leave a step in between.
    has_steps: bool,
}

impl Case {
    fn of(before: Vec<Step>, method: &'static str, params: Value) -> Case {
        Case { before, call: (method, params), grown: false, has_steps: false }
    }

    fn with_steps(self) -> Case {
        Case { has_steps: true, ..self }
    }
}

/// A store with a thick and a thin volume, the second with a snapshot, a clone of that, and data in all.
fn store() -> Vec<Step> {
    let mut steps = empty_store();
    for (name, thin) in [("thick", false), ("thin", true)] {
        let volume = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": 3, "thin_provision": thin});
        steps.push(("bdev_lvol_create", volume));
        steps.push(("write", json!({"name": format!("lvs/{name}"), "at": 1})));
    }
    steps.push(("bdev_lvol_snapshot", json!({"lvol_name": "lvs/thin", "snapshot_name": "snap"})));
    steps.push(("write", json!({"name": "lvs/thin", "at": 2})));
    steps.push(("bdev_lvol_clone", json!({"snapshot_name": "lvs/snap", "clone_name": "clone"})));
    steps.push(("write", json!({"name": "lvs/clone", "at": 0})));
    steps
}

fn empty_store() -> Vec<Step> {
    vec![(
        "bdev_lvol_create_lvstore",
        json!({"bdev_name": "base", "lvs_name": "lvs", "cluster_sz": 65536, "clear_method": "none"}),
    )]
}

fn with(mut steps: Vec<Step>, more: &[Step]) -> Vec<Step> {
    steps.extend_from_slice(more);
    steps
}

/// Each method that changes a store.
fn cases() -> Vec<Case> {
    let outside =
        ("bdev_lvol_clone_bdev", json!({"bdev": OUTSIDE, "lvs_name": "lvs", "clone_name": "esnap"}));
    let other = json!({"lvs_name": "lvs", "lvol_name": "other", "size_in_mib": 3, "thin_provision": true});
    let second = ("bdev_lvol_snapshot", json!({"lvol_name": "lvs/thin", "snapshot_name": "second"}));
    let new = |name: &str, thin: bool| json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": 2, "thin_provision": thin});
    vec![
        Case::of(vec![], "bdev_lvol_create_lvstore", empty_store()[0].1.clone()),
        Case::of(store(), "bdev_lvol_create", new("new", true)),
        Case::of(store(), "bdev_lvol_create", new("new", false)),
        Case::of(store(), "bdev_lvol_snapshot", second.1.clone()),
        Case::of(store(), "bdev_lvol_snapshot", json!({"lvol_name": "lvs/clone", "snapshot_name": "second"})),
        Case::of(store(), "bdev_lvol_clone", json!({"snapshot_name": "lvs/snap", "clone_name": "new"})),
        Case::of(store(), outside.0, outside.1.clone()),
        Case::of(store(), "bdev_lvol_rename", json!({"old_name": "lvs/thick", "new_name": "new"})),
        Case::of(store(), "bdev_lvol_rename_lvstore", json!({"old_name": "lvs", "new_name": "new"})),
        Case::of(store(), "bdev_lvol_resize", json!({"name": "lvs/thick", "size_in_mib": 5})),
        Case::of(store(), "bdev_lvol_resize", json!({"name": "lvs/thick", "size_in_mib": 1})),
        Case::of(store(), "bdev_lvol_resize", json!({"name": "lvs/thin", "size_in_mib": 1})),
        Case::of(store(), "bdev_lvol_set_read_only", json!({"name": "lvs/thick"})),
        Case::of(store(), "bdev_lvol_inflate", json!({"name": "lvs/clone"})).with_steps(),
        Case::of(store(), "bdev_lvol_decouple_parent", json!({"name": "lvs/clone"})).with_steps(),
        Case::of(
            with(store(), &[("bdev_lvol_create", other.clone())]),
            "bdev_lvol_set_parent",
            json!({"lvol_name": "lvs/other", "parent_name": "lvs/snap"}),
        ),
        Case::of(
            with(store(), &[("bdev_lvol_create", other)]),
            "bdev_lvol_set_parent_bdev",
            json!({"lvol_name": "lvs/other", "parent_name": OUTSIDE}),
        ),
        Case::of(store(), "bdev_lvol_delete", json!({"name": "lvs/thick"})),
        Case::of(store(), "bdev_lvol_delete", json!({"name": "lvs/clone"})),
        Case::of(with(store(), &[outside]), "bdev_lvol_delete", json!({"name": "lvs/esnap"})),
        // A snapshot between another and one clone.
        Case::of(with(store(), &[second]), "bdev_lvol_delete", json!({"name": "lvs/second"})),
        Case::of(store(), "bdev_lvol_delete_lvstore", json!({"lvs_name": "lvs"})).with_steps(),
        Case { grown: true, ..Case::of(store(), "bdev_lvol_grow_lvstore", json!({"lvs_name": "lvs"})) },
        Case::of(
            store(),
            "bdev_lvol_start_shallow_copy",
            json!({"src_lvol_name": "lvs/snap", "dst_bdev_name": "copy"}),
        )
        .with_steps(),
    ]
}

/// One life of a daemon, with its client.
struct Life {
    rpc: RpcClient,
    /// Without its end in order: the process is killed.
    _daemon: Daemon,
}

impl Life {
    /// With the disk as a bdev, and what is on it, the bdev outside and one to copy to.
    async fn begin() -> Life {
        let options = DaemonOptions {
            rpc_socket: Some(RPC.into()),
            nbd: vec![Address::Unix(NBD.into())],
            ..DaemonOptions::default()
        };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let rpc = RpcClient::connect(Path::new(RPC)).await.unwrap();
        let mut life = Life { rpc, _daemon: daemon };
        life.step(
            "bdev_malloc_create",
            &json!({"name": "out", "num_blocks": 768, "block_size": BLOCK, "uuid": OUTSIDE}),
        )
        .await;
        life.step("bdev_malloc_create", &json!({"name": "copy", "num_blocks": 768, "block_size": BLOCK}))
            .await;
        life.step("bdev_aio_create", &json!({"name": "base", "filename": "disk", "block_size": BLOCK})).await;
        life.step("bdev_wait_for_examine", &Value::Null).await;
        life
    }

    /// The result of a call, or of a write.
    async fn step(&mut self, method: &str, params: &Value) -> Value {
        self.tried(method, params).await.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    async fn tried(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        if method == "write" {
            let (name, at) = (params["name"].as_str().unwrap(), params["at"].as_u64().unwrap());
            Box::pin(self.write(name, at)).await;
            return Ok(Value::Null);
        }
        let text = params.to_string();
        let result = self.rpc.call(method, (!params.is_null()).then_some(&*text)).await;
        let result = serde_json::to_value(result.map_err(|error| error.to_string())?).unwrap();
        if method == "bdev_lvol_start_shallow_copy" {
            let id = json!({"operation_id": result["operation_id"]});
            let mut progress = Value::Null;
            while progress["state"] != "complete" {
                let text = id.to_string();
                let asked = self.rpc.call("bdev_lvol_check_shallow_copy", Some(&text)).await;
                progress = serde_json::to_value(asked.map_err(|error| error.to_string())?).unwrap();
            }
        }
        Ok(result)
    }

    async fn nbd(&mut self, name: &str) -> Client {
        self.step("nbd_export", &json!({"bdev_name": name})).await;
        Client::shaken(connected(&Address::Unix(NBD.into())).await, name, SIMPLE).await.unwrap()
    }

    /// Writes a block at a mebibyte of a volume.
    async fn write(&mut self, name: &str, mib: u64) {
        let mut client = self.nbd(name).await;
        let bytes: Vec<u8> = name.bytes().cycle().take(BLOCK).collect();
        assert_eq!(client.error(WRITE, FUA, mib * MIB, BLOCK as u32, &bytes).await, 0);
        drop(client);
        self.step("nbd_unexport", &json!({"name": name})).await;
    }

    /// All that a client can see of stores and volumes.
    async fn seen(&mut self) -> Value {
        let mut stores = self.step("bdev_lvol_get_lvstores", &Value::Null).await;
        // What a load finds that the disk holds without need is cleared in the background.
        for store in stores.as_array_mut().unwrap() {
            store.as_object_mut().unwrap().remove("clearing_bytes");
        }
        let mut volumes = Vec::new();
        let mut lvols = self.step("bdev_lvol_get_lvols", &Value::Null).await.as_array().unwrap().clone();
        lvols.sort_by_key(|lvol| lvol["alias"].to_string());
        for lvol in lvols {
            let alias = lvol["alias"].as_str().unwrap().to_owned();
            let mut bdev = self.step("bdev_get_bdevs", &json!({"name": alias})).await[0].clone();
            // In no order.
            if let Some(clones) = bdev["driver_specific"]["lvol"]["clones"].as_array_mut() {
                clones.sort_by_key(Value::to_string);
            }
            let bytes = bdev["num_blocks"].as_u64().unwrap() * BLOCK as u64;
            let mut client = self.nbd(&alias).await;
            let data = client.read(0, bytes as u32).await;
            let hash =
                data.iter().fold(0_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
            drop(client);
            self.step("nbd_unexport", &json!({"name": alias})).await;
            volumes.push(json!({"lvol": lvol, "bdev": bdev, "data": hash}));
        }
        json!({"stores": stores, "volumes": volumes})
    }
}

fn disk(image: Image) -> Disk {
    Disk::from_image(image, DiskOptions { atomic_unit: BLOCK as u32, ..DiskOptions::new(DISK) })
}

/// Runs one life on a disk; its result, and the disk after it.
fn live<T: Send + 'static>(image: Image, life: impl AsyncFnOnce(Disk) -> T + Send + 'static) -> (T, Image) {
    let (world, disk) = (World::new(7), disk(image));
    world.add_disk("disk", disk.clone());
    let runtime = Runtime::builder().world(world).reactors(1).build().unwrap();
    let used = disk.clone();
    let value = runtime.run(async move || life(used).await).unwrap();
    (value, kept(&disk.snapshot()))
}

/// What is on the disk when the process is killed.
fn kept(state: &State) -> Image {
    state.clone().crash(Crash::KeepAll, &mut |_| 0)
}

fn seen(image: Image) -> Value {
    live(image, async |_| Life::begin().await.seen().await).0
}

/// A larger disk with the same at its beginning.
fn grown(image: &Image) -> Image {
    let mut larger = Image::zeroed(image.size() + 8 * MIB);
    larger.write(0, &image.to_bytes());
    larger
}

/// Kills after each write of a case; returns how many states were neither that before nor that after it.
fn kill(case: Case) -> (usize, usize) {
    let Case { before, call: (method, params), grown: grows, has_steps } = case;
    let what = format!("{method} {params}");
    let (_, mut image) = live(Image::zeroed(DISK), async move |_| {
        let mut life = Life::begin().await;
        for (method, params) in &before {
            life.step(method, params).await;
        }
    });
    if grows {
        image = grown(&image);
    }
    let before = seen(image.clone());
    let states: Arc<Mutex<Vec<Image>>> = Arc::default();
    let (noted, called) = (states.clone(), params.clone());
    let (_, after) = live(image, async move |disk| {
        let mut life = Life::begin().await;
        disk.observe(move |moment, state| {
            if !moment.before && moment.operation != Operation::Flush {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(kept(state));
            }
        });
        life.step(method, &called).await;
        disk.unobserve();
    });
    let after = seen(after);
    let states = std::mem::take(&mut *states.lock().unwrap());
    let (count, mut between) = (states.len(), 0);
    for (number, state) in states.into_iter().enumerate() {
        let found = seen(state.clone());
        if found == before || found == after {
            continue;
        }
        between += 1;
        assert!(
            has_steps,
            "{what}, killed behind write {number} of {count}: {found:#}\nnot {before:#}\nor {after:#}"
        );
        let called = params.clone();
        let (again, end) = live(state, async move |_| Life::begin().await.tried(method, &called).await);
        assert!(again.is_ok(), "{what}, killed behind write {number} of {count}, called again: {again:?}");
        assert_eq!(seen(end), after, "{what}, killed behind write {number} of {count}, and called again");
    }
    println!("{what}: {count} writes, {between} steps in between");
    (count, between)
}

#[test]
fn a_kill_after_any_write_of_any_method_leaves_the_state_before_or_after_it_or_a_step_that_the_call_finishes()
{
    let mut writes = 0;
    for case in cases() {
        let (count, _) = kill(case);
        writes += count;
    }
    assert!(writes > 60, "{writes}");
}

/// Bytes of the volume that is copied, and of the disk to which it is.
const COPIED: u64 = 3 * MIB;

/// Runs one life on the disk of a store and another disk; what it comes to, and the other disk behind it.
fn live_beside<T: Send + 'static>(
    image: Image,
    other: Image,
    life: impl AsyncFnOnce(Disk) -> T + Send + 'static,
) -> (T, Image) {
    let (world, disk) = (World::new(7), disk(image));
    let other =
        Disk::from_image(other, DiskOptions { atomic_unit: BLOCK as u32, ..DiskOptions::new(COPIED) });
    world.add_disk("disk", disk);
    world.add_disk("other", other.clone());
    let runtime = Runtime::builder().world(world).reactors(1).build().unwrap();
    let used = other.clone();
    let value = runtime.run(async move || life(used).await).unwrap();
    (value, kept(&other.snapshot()))
}

/// Copies the volume to the other disk; what both hold then.
async fn copy(life: &mut Life) -> (Vec<u8>, Vec<u8>) {
    life.step("bdev_aio_create", &json!({"name": "other", "filename": "other", "block_size": BLOCK})).await;
    let what = json!({"src_lvol_name": "lvs/thick", "dst_bdev_name": "other"});
    life.step("bdev_lvol_start_shallow_copy", &what).await;
    let mut read = Vec::new();
    for name in ["lvs/thick", "other"] {
        let mut client = life.nbd(name).await;
        read.push(client.read(0, COPIED as u32).await);
        drop(client);
        life.step("nbd_unexport", &json!({"name": name})).await;
    }
    let other = read.pop().unwrap();
    (read.pop().unwrap(), other)
}

#[test]
fn a_copy_that_was_killed_behind_any_of_its_writes_is_finished_by_the_same_call() {
    let (_, image) = live(Image::zeroed(DISK), async move |_| {
        let mut life = Life::begin().await;
        for (method, params) in &store() {
            life.step(method, params).await;
        }
        life.step("write", &json!({"name": "lvs/thick", "at": 0})).await;
        life.step("write", &json!({"name": "lvs/thick", "at": 2})).await;
        life.step("bdev_lvol_set_read_only", &json!({"name": "lvs/thick"})).await;
    });
    let before = seen(image.clone());
    let states: Arc<Mutex<Vec<Image>>> = Arc::default();
    let noted = states.clone();
    let (held, _) = live_beside(image.clone(), Image::zeroed(COPIED), async move |other| {
        other.observe(move |moment, state| {
            if !moment.before && moment.operation != Operation::Flush {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(kept(state));
            }
        });
        let held = copy(&mut Life::begin().await).await;
        other.unobserve();
        held
    });
    assert!(held.0 == held.1 && held.0.iter().any(|byte| *byte != 0));
    let states = std::mem::take(&mut *states.lock().unwrap());
    assert!(states.len() > 1, "{}", states.len());
    for (number, state) in states.into_iter().enumerate() {
        let again = live_beside(image.clone(), state, async |_| {
            let mut life = Life::begin().await;
            let seen = life.seen().await;
            (seen, copy(&mut life).await)
        });
        let ((found, copied), _) = again;
        assert!(found == before, "killed behind write {number} of the copy: {found:#}");
        assert!(copied == held, "killed behind write {number} of the copy, and called again");
    }
}
