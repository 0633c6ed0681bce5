//! The memory node of a RAM disk and of what stands on it, as clients see and save it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use spindle_control::{ConfigFile, Daemon, DaemonOptions, methods};
use spindle_engine::sim::World;
use spindle_reactor::Runtime;
use spindle_rpc::{Client, ClientError};

const RPC: &str = "rpc.sock";

fn simulated<R: Send + 'static>(main: impl AsyncFnOnce() -> R + Send + 'static) -> R {
    Runtime::builder().world(World::new(7)).reactors(1).build().unwrap().run(main).unwrap()
}

/// A daemon, made by a configuration if there is one, and a client of it.
async fn start(config: Option<String>) -> (Daemon, Client) {
    let config = config.map(|text| ConfigFile { name: "saved".to_owned(), text, ignore_errors: false });
    let options = DaemonOptions { rpc_socket: Some(RPC.into()), config, ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.unwrap_or_else(|error| panic!("{error}"));
    (daemon, Client::connect(Path::new(RPC)).await.unwrap())
}

async fn call(client: &mut Client, method: &str, params: Option<Value>) -> Value {
    let params = params.map(|params| params.to_string());
    let result = client.call(method, params.as_deref()).await;
    let result = result.unwrap_or_else(|error| panic!("{method} {params:?}: {error}"));
    serde_json::to_value(result).unwrap()
}

/// A RAM disk in two parts: on one a passthru bdev, on the other a delay bdev and an error bdev.
async fn make_stack(client: &mut Client, numa_id: Option<i32>) {
    let mut malloc = json!({"name": "M", "num_blocks": 131_072, "block_size": 512});
    if let Some(numa_id) = numa_id {
        malloc["numa_id"] = numa_id.into();
    }
    let delay = json!({"name": "D", "base_bdev_name": "Mp1", "avg_read_latency": 1, "p99_read_latency": 1,
        "avg_write_latency": 1, "p99_write_latency": 1});
    for (method, params) in [
        ("bdev_malloc_create", malloc),
        ("bdev_split_create", json!({"base_bdev": "M", "split_count": 2})),
        ("bdev_passthru_create", json!({"name": "P", "base_bdev_name": "Mp0"})),
        ("bdev_delay_create", delay),
        ("bdev_error_create", json!({"base_name": "D"})),
    ] {
        call(client, method, Some(params)).await;
    }
}

/// A volume with a snapshot, on the passthru bdev.
async fn make_volumes(client: &mut Client) {
    for (method, params) in [
        ("bdev_lvol_create_lvstore", json!({"bdev_name": "P", "lvs_name": "lvs", "cluster_sz": 1 << 20})),
        (
            "bdev_lvol_create",
            json!({"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 4, "thin_provision": true}),
        ),
        ("bdev_lvol_snapshot", json!({"lvol_name": "lvs/v", "snapshot_name": "s"})),
    ] {
        call(client, method, Some(params)).await;
    }
}

/// The nodes that are shown, by the last name of each bdev, which is the alias of a volume.
async fn nodes(client: &mut Client) -> BTreeMap<String, Option<Value>> {
    let bdevs = call(client, "bdev_get_bdevs", None).await;
    let node = |bdev: &Value| {
        let volume = bdev["product_name"] == "Logical Volume";
        let name = if volume { &bdev["aliases"][0] } else { &bdev["name"] };
        (name.as_str().unwrap().to_owned(), bdev.get("numa_id").cloned())
    };
    bdevs.as_array().unwrap().iter().map(node).collect()
}

/// All of these on one node.
fn all_on(node: Option<i32>, names: &[&str]) -> BTreeMap<String, Option<Value>> {
    names.iter().map(|name| ((*name).to_owned(), node.map(Value::from))).collect()
}

const STACK: [&str; 6] = ["D", "EE_D", "M", "Mp0", "Mp1", "P"];

#[test]
fn what_stands_on_a_ram_disk_shows_the_memory_node_of_the_disk() {
    for (asked, node) in [(None, -1), (Some(-1), -1), (Some(0), 0)] {
        let shown = simulated(async move || {
            let (daemon, mut client) = start(None).await;
            make_stack(&mut client, asked).await;
            make_volumes(&mut client).await;
            let shown = nodes(&mut client).await;
            daemon.stop().await;
            shown
        });
        assert_eq!(shown, all_on(Some(node), &[&STACK[..], &["lvs/v", "lvs/s"]].concat()), "{asked:?}");
    }
}

#[test]
fn what_stands_on_no_ram_disk_shows_no_memory_node() {
    let shown = simulated(async || {
        let (daemon, mut client) = start(None).await;
        let null = json!({"name": "N", "num_blocks": 64, "block_size": 512});
        call(&mut client, "bdev_null_create", Some(null)).await;
        call(&mut client, "bdev_passthru_create", Some(json!({"name": "P", "base_bdev_name": "N"}))).await;
        let shown = nodes(&mut client).await;
        daemon.stop().await;
        shown
    });
    assert_eq!(shown, all_on(None, &["N", "P"]));
}

#[test]
fn a_ram_disk_is_saved_with_its_memory_node_and_comes_back_with_it() {
    for node in [-1, 0] {
        let saved = simulated(async move || {
            let (daemon, mut client) = start(None).await;
            make_stack(&mut client, Some(node)).await;
            let saved = call(&mut client, "framework_get_config", Some(json!({"name": "bdev"}))).await;
            daemon.stop().await;
            saved
        });
        let of_malloc = |call: &&Value| call["method"] == "bdev_malloc_create";
        let malloc = saved.as_array().unwrap().iter().find(of_malloc).unwrap();
        assert_eq!(malloc["params"]["numa_id"], node, "{malloc}");
        let config = json!({"subsystems": [{"subsystem": "bdev", "config": saved}]}).to_string();
        let shown = simulated(async move || {
            let (daemon, mut client) = start(Some(config)).await;
            let shown = nodes(&mut client).await;
            daemon.stop().await;
            shown
        });
        assert_eq!(shown, all_on(Some(node), &STACK));
    }
}

#[test]
fn a_memory_node_that_the_machine_does_not_have_is_refused() {
    let shown = simulated(async || {
        let (daemon, mut client) = start(None).await;
        for node in [-2, 65_535, 65_536, i32::MAX] {
            let malloc = json!({"name": "M", "num_blocks": 64, "block_size": 512, "numa_id": node});
            match client.call("bdev_malloc_create", Some(&malloc.to_string())).await {
                Err(ClientError::Answer(error)) => {
                    assert_eq!(error.code, -22, "{node}: {}", error.message);
                    assert!(error.message.contains(&format!("'numa_id' {node}")), "{}", error.message);
                }
                other => panic!("{node}: {other:?}"),
            }
        }
        let shown = nodes(&mut client).await;
        daemon.stop().await;
        shown
    });
    assert_eq!(shown, BTreeMap::new());
}
