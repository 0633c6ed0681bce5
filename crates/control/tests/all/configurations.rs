//! A saved configuration makes the same daemon again, in whatever order its calls stand.
//!
//! In simulation: a daemon is made by calls that chance picks, its configuration is saved as SPDK's `save_config` does,
//! the calls are put in another order, and a daemon that starts with them is compared to the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use spindle_control::{ConfigFile, Daemon, DaemonOptions, methods};
use spindle_engine::sim::{Disk, DiskOptions, Image, World};
use spindle_reactor::{Runtime, random};
use spindle_rpc::Client;

const RPC: &str = "rpc.sock";
const FILE_BYTES: u64 = 8 << 20;
const FILES: [&str; 2] = ["file0", "file1"];
/// Calls of the daemon that is saved.
const CALLS: usize = 60;
const SEEDS: u64 = 40;

/// The methods that a saved configuration may have. That all occur is checked, so none can be forgotten here.
const SAVED: [&str; 21] = [
    "bdev_aio_create",
    "bdev_delay_create",
    "bdev_delay_update_latency",
    "bdev_enable_histogram",
    "bdev_error_create",
    "bdev_malloc_create",
    "bdev_null_create",
    "bdev_passthru_create",
    "bdev_set_options",
    "bdev_set_qd_sampling_period",
    "bdev_set_qos_limit",
    "bdev_split_create",
    "bdev_uring_create",
    "bdev_wait_for_examine",
    "framework_set_scheduler",
    "iobuf_set_options",
    "keyring_file_add_key",
    "nbd_export",
    "nbd_listen",
    "sock_impl_set_options",
    "sock_set_default_impl",
];

/// A file that is its owner's only, on every Linux.
const KEY: &str = "/proc/self/environ";

fn below(n: u64) -> u64 {
    random() % n
}

fn pick<T: Clone>(of: &[T]) -> T {
    of[below(of.len() as u64) as usize].clone()
}

/// The members of an object, each optional one there or not.
fn with(mut object: Value, optional: Value) -> Value {
    for (name, value) in optional.as_object().unwrap() {
        if below(2) == 0 {
            object[name] = value.clone();
        }
    }
    object
}

/// Any bdev's name: one that is there, or not.
fn name() -> String {
    let base = format!("B{}", below(6));
    match below(4) {
        0 => format!("{base}p{}", below(2)),
        1 => format!("V{}", below(5)),
        2 => format!("EE_{base}"),
        _ => base,
    }
}

/// A call that a configuration may come from. It may be refused.
fn any_call() -> (&'static str, Value) {
    let (base, over) = (format!("B{}", below(6)), format!("V{}", below(5)));
    let block_size = pick(&[512, 4096]);
    match below(21) {
        0 | 1 => {
            let optional = json!({"physical_block_size": 4096, "optimal_io_boundary": 8, "numa_id": 0});
            let malloc = json!({"name": base, "num_blocks": 8 * (1 + below(1000)), "block_size": block_size});
            ("bdev_malloc_create", with(malloc, optional))
        }
        2 => {
            let null = json!({"name": base, "num_blocks": 2048 * (1 + below(100)), "block_size": block_size});
            ("bdev_null_create", with(null, json!({"physical_block_size": 4096})))
        }
        // Not below a split, whose equal parts would be others after the next start, as in SPDK.
        3 => ("bdev_null_resize", json!({"name": format!("B{}", 3 + below(3)), "new_size": 1 + below(1000)})),
        4 => {
            let file = json!({"name": base, "filename": pick(&FILES), "block_size": block_size});
            ("bdev_aio_create", with(file, json!({"readonly": true, "fallocate": true})))
        }
        5 => {
            let file = json!({"name": base, "filename": pick(&FILES), "block_size": block_size});
            ("bdev_uring_create", file)
        }
        6 => ("bdev_passthru_create", json!({"name": over, "base_bdev_name": name()})),
        7 => {
            // A percentile below its average is refused.
            let [read, write] = [1 + below(1000), 1 + below(1000)];
            let delay = json!({"name": over, "base_bdev_name": name(), "avg_read_latency": read,
                "p99_read_latency": read + below(1000), "avg_write_latency": write,
                "p99_write_latency": write + below(1000)});
            ("bdev_delay_create", delay)
        }
        8 => {
            let which = pick(&["avg_read", "p99_read", "avg_write", "p99_write"]);
            let latency = json!({"delay_bdev_name": over, "latency_type": which, "latency_us": below(5000)});
            ("bdev_delay_update_latency", latency)
        }
        9 => ("bdev_error_create", json!({"base_name": name()})),
        10 => {
            let split = json!({"base_bdev": format!("B{}", below(3)), "split_count": 1 + below(3)});
            ("bdev_split_create", with(split, json!({"split_size_mb": 1})))
        }
        11 => {
            let limits = json!({"rw_ios_per_sec": 1000 * (1 + below(9)), "rw_mbytes_per_sec": 1 + below(9),
                "r_mbytes_per_sec": 1 + below(9), "w_mbytes_per_sec": below(2)});
            ("bdev_set_qos_limit", with(json!({"name": name()}), limits))
        }
        12 => {
            let optional = json!({"opc": pick(&["read", "write"]), "granularity": 5});
            ("bdev_enable_histogram", with(json!({"name": name(), "enable": below(4) > 0}), optional))
        }
        13 => ("bdev_set_qd_sampling_period", json!({"name": name(), "period": 1000 * below(3)})),
        14 => ("nbd_listen", json!({"address": format!("unix:nbd{}.sock", below(3))})),
        15 | 16 => {
            let optional = json!({"name": format!("export {}", below(4)), "description": "\u{e4} \"b\"",
                "read_only": true});
            ("nbd_export", with(json!({"bdev_name": name()}), optional))
        }
        17 => ("framework_set_scheduler", with(json!({"name": "static"}), json!({"period": 1 + below(9)}))),
        18 => ("keyring_file_add_key", json!({"name": format!("key {}", below(3)), "path": KEY})),
        19 => ("keyring_file_remove_key", json!({"name": format!("key {}", below(3))})),
        _ => {
            let method = pick(&[
                "bdev_malloc_delete",
                "bdev_null_delete",
                "bdev_aio_delete",
                "bdev_uring_delete",
                "bdev_passthru_delete",
                "bdev_delay_delete",
                "bdev_error_delete",
                "nbd_unexport",
            ]);
            let name = if method == "nbd_unexport" { format!("export {}", below(4)) } else { name() };
            (method, json!({"name": name}))
        }
    }
}

async fn call(client: &mut Client, method: &str, params: Option<Value>) -> Result<Value, String> {
    let params = params.map(|params| params.to_string());
    let result = client.call(method, params.as_deref()).await.map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(result).unwrap())
}

async fn get(client: &mut Client, method: &str, params: Option<Value>) -> Value {
    call(client, method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
}

/// What `save_config` writes: the parts, each with its calls.
async fn saved(client: &mut Client, with_batches: bool) -> Vec<(String, Vec<Value>)> {
    let mut parts = Vec::new();
    for part in get(client, "framework_get_subsystems", None).await.as_array().unwrap() {
        let name = part["subsystem"].as_str().unwrap().to_owned();
        let params = json!({"name": name, "with_batches": with_batches});
        let calls = get(client, "framework_get_config", Some(params)).await;
        parts.push((name, calls.as_array().unwrap().clone()));
    }
    parts
}

/// All that clients can ask of what was configured.
struct State {
    bdevs: BTreeMap<String, Value>,
    exports: BTreeMap<String, Value>,
    scheduler: Value,
    saved: BTreeSet<String>,
}

impl State {
    /// What differs, one a line: what this has and the other lacks, and the other way round.
    fn beside(&self, other: &State) -> Vec<String> {
        let parts = |state: &State| -> BTreeSet<String> {
            let objects = state.bdevs.values().chain(state.exports.values()).chain([&state.scheduler]);
            objects.map(Value::to_string).chain(state.saved.iter().cloned()).collect()
        };
        let (ours, theirs) = (parts(self), parts(other));
        let lost = ours.difference(&theirs).map(|part| format!("lost: {part}"));
        lost.chain(theirs.difference(&ours).map(|part| format!("new: {part}"))).collect()
    }
}

async fn state(client: &mut Client) -> State {
    let by_name = |all: Value| -> BTreeMap<String, Value> {
        let all = all.as_array().unwrap().clone();
        all.into_iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one)).collect()
    };
    let bdevs = by_name(get(client, "bdev_get_bdevs", None).await);
    let mut exports = by_name(get(client, "nbd_get_exports", None).await);
    for export in exports.values_mut() {
        let export = export.as_object_mut().unwrap();
        export.remove("connections");
        // In the order in which it listens.
        export["uris"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    let mut scheduler = get(client, "framework_get_scheduler", None).await;
    // The next balancing round ends it.
    scheduler.as_object_mut().unwrap().remove("scheduler_period");
    let calls = saved(client, false).await.into_iter().flat_map(|(_, calls)| calls).map(|mut call| {
        if call["method"] == "framework_set_scheduler" {
            call["params"].as_object_mut().unwrap().remove("period");
        }
        call
    });
    State { bdevs, exports, scheduler, saved: calls.map(|call| call.to_string()).collect() }
}

fn shuffle<T>(items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, below(at as u64 + 1) as usize);
    }
}

/// The saved parts with the calls of each in another order, and sometimes all calls in one part.
fn in_another_order(mut parts: Vec<(String, Vec<Value>)>) -> String {
    if below(2) == 0 {
        let all = parts.into_iter().flat_map(|(_, calls)| calls).collect();
        parts = vec![("bdev".to_owned(), all)];
    }
    shuffle(&mut parts);
    parts.iter_mut().for_each(|(_, calls)| shuffle(calls));
    let parts = parts.into_iter().map(|(name, calls)| json!({"subsystem": name, "config": calls}));
    json!({"subsystems": parts.collect::<Vec<_>>()}).to_string()
}

async fn connect() -> Client {
    Client::connect(Path::new(RPC)).await.unwrap()
}

/// A daemon set up by single calls; what it shows, and its configuration in another order.
async fn first() -> (State, String) {
    let options =
        DaemonOptions { rpc_socket: Some(RPC.into()), wait_for_rpc: true, ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.unwrap();
    let mut client = connect().await;
    // Refused if a pool is too small: nothing is changed then.
    let pools = json!({"bdev_io_pool_size": 1000 + below(1000), "bdev_io_cache_size": below(300)});
    let _ =
        call(&mut client, "bdev_set_options", Some(with(pools, json!({"iobuf_small_cache_size": 7})))).await;
    let sizes = json!({"small_pool_count": 64 + below(100), "large_bufsize": 200_000, "enable_numa": true});
    get(&mut client, "iobuf_set_options", Some(with(json!({}), sizes))).await;
    let hints =
        json!({"recv_buf_size": 4096 + below(4096), "enable_quickack": true, "zerocopy_threshold": 7});
    let sockets = with(json!({"impl_name": pick(&["posix", "ssl"])}), hints);
    get(&mut client, "sock_impl_set_options", Some(sockets)).await;
    get(&mut client, "framework_start_init", None).await;
    for _ in 0..CALLS {
        let (method, params) = any_call();
        // Many are refused: a name is taken, or nothing is there.
        let _ = call(&mut client, method, Some(params)).await;
    }
    let (state, parts) = (state(&mut client).await, saved(&mut client, below(2) == 0).await);
    daemon.stop().await;
    (state, in_another_order(parts))
}

/// The daemon that a configuration makes.
async fn second(text: String) -> State {
    let config = ConfigFile { name: "saved".to_owned(), text, ignore_errors: false };
    let options =
        DaemonOptions { rpc_socket: Some(RPC.into()), config: Some(config), ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.unwrap_or_else(|error| panic!("{error}"));
    let state = state(&mut connect().await).await;
    daemon.stop().await;
    state
}

fn in_a_world<R: Send + 'static>(seed: u64, main: impl AsyncFnOnce() -> R + Send + 'static) -> R {
    let world = World::new(seed);
    for file in FILES {
        let disk = Disk::from_image(Image::zeroed(FILE_BYTES), DiskOptions::new(FILE_BYTES));
        world.add_disk(file, disk);
    }
    Runtime::builder().world(world).reactors(2).build().unwrap().run(main).unwrap()
}

#[test]
fn a_saved_configuration_in_any_order_makes_the_same_daemon_again() {
    let mut occurred = BTreeSet::new();
    for seed in 0..SEEDS {
        let (before, text) = in_a_world(2 * seed, first);
        let config = text.clone();
        let after = in_a_world(2 * seed + 1, async move || second(config).await);
        assert_eq!(before.beside(&after), [""; 0], "seed {seed}: {text}");
        let calls = before.saved.iter().map(|call| serde_json::from_str::<Value>(call).unwrap());
        occurred.extend(calls.map(|call| call["method"].as_str().unwrap().to_owned()));
    }
    assert_eq!(occurred.iter().map(String::as_str).collect::<Vec<_>>(), SAVED);
}

/// A daemon whose delay bdev has percentiles below their averages.
async fn first_with_latencies() -> (State, String) {
    let options = DaemonOptions { rpc_socket: Some(RPC.into()), ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.unwrap();
    let mut client = connect().await;
    let base = json!({"name": "B0", "num_blocks": 8, "block_size": 512});
    get(&mut client, "bdev_malloc_create", Some(base)).await;
    let delay = json!({"name": "V0", "base_bdev_name": "B0", "avg_read_latency": 10, "p99_read_latency": 20,
        "avg_write_latency": 30, "p99_write_latency": 40});
    get(&mut client, "bdev_delay_create", Some(delay)).await;
    for (which, time) in [("p99_read", 5), ("avg_write", 5000)] {
        let latency = json!({"delay_bdev_name": "V0", "latency_type": which, "latency_us": time});
        get(&mut client, "bdev_delay_update_latency", Some(latency)).await;
    }
    let (state, parts) = (state(&mut client).await, saved(&mut client, false).await);
    daemon.stop().await;
    (state, in_another_order(parts))
}

#[test]
fn latencies_that_were_changed_to_percentiles_below_their_averages_are_restored() {
    for seed in 0..8 {
        let (before, text) = in_a_world(2 * seed, first_with_latencies);
        let driver = &before.bdevs["V0"]["driver_specific"]["delay"];
        let latencies = ["avg_read", "p99_read", "avg_write", "p99_write"];
        let latencies = latencies.map(|which| driver[format!("{which}_latency")].as_u64());
        assert_eq!(latencies, [10, 5, 5000, 40].map(Some));
        let config = text.clone();
        let after = in_a_world(2 * seed + 1, async move || second(config).await);
        assert_eq!(before.beside(&after), [""; 0], "seed {seed}: {text}");
    }
}
