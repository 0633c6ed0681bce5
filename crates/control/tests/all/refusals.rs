//! What SPDK refuses, and with which code and words; found by sending the same calls to both.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use spindle_control::{Daemon, DaemonOptions, methods};
use spindle_engine::sim::World;
use spindle_reactor::{Runtime, sleep, spawn_local, yield_now};
use spindle_rpc::{Client, ClientError};

const RPC: &str = "rpc.sock";

/// The code and the message of a refusal.
async fn refused(client: &mut Client, method: &str, params: &Value) -> (i32, String) {
    match client.call(method, Some(&params.to_string())).await {
        Err(ClientError::Answer(error)) => (error.code, error.message),
        other => panic!("{method} {params}: {other:?}"),
    }
}

#[test]
fn parameters_are_refused_with_spdks_code_and_first_words() {
    let main = async || {
        let options = DaemonOptions { rpc_socket: Some(RPC.into()), ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        let reactors = client.call("framework_get_reactors", None).await.unwrap();
        let reactors = serde_json::to_value(reactors).unwrap();
        let reactors = reactors["reactors"].as_array().unwrap();
        let used = reactors.iter().find(|reactor| reactor["lw_threads"] != json!([])).unwrap();
        let (id, core) = (&used["lw_threads"][0]["id"], &used["lcore"]);
        let scheduler = |more: Value| {
            let mut params = json!({"name": "static"});
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ("framework_set_scheduler", params)
        };
        let invalid = "Invalid parameters";
        for ((method, params), code, words) in [
            (("framework_get_reactors", json!({})), -32602, "`framework_get_reactors` requires no arguments"),
            (("bdev_examine", json!({"nope": 1})), -32602, "spdk_json_decode_object failed"),
            (scheduler(json!({"mappings": 1})), -32602, invalid),
            (scheduler(json!({"mappings": "1"})), -32603, "Unknown error -22"),
            (scheduler(json!({"mappings": "4000000000:0"})), -32603, "Unknown error -22"),
            (scheduler(json!({"mappings": format!("{id}:{core},{id}:63")})), -32603, "Unknown error -22"),
        ] {
            let (found, message) = refused(&mut client, method, &params).await;
            assert!(found == code && message.starts_with(words), "{method} {params}: {found} {message}");
        }
        let mappings = format!("{id}:{core}");
        let stays =
            json!({"name": "static", "load_limit": 1, "core_busy": "95", "mappings": mappings, "other": 1});
        client.call("framework_set_scheduler", Some(&stays.to_string())).await.unwrap();
        daemon.stop().await;
    };
    Runtime::builder().world(World::new(7)).reactors(2).build().unwrap().run(main).unwrap();
}

#[test]
fn refusals_of_values_say_which_ones_may_be_given_instead() {
    let main = async || {
        let options =
            DaemonOptions { rpc_socket: Some(RPC.into()), wait_for_rpc: true, ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        for (params, words) in [
            (json!({"scheduling_core": 63}), "63 is not one of this daemon's cores"),
            (json!({"scheduling_core": 63}), "set 'scheduling_core' to one of them"),
            (json!({"isolated_core_mask": "[63]"}), "leave the others out"),
        ] {
            let (_, message) = refused(&mut client, "scheduler_set_options", &params).await;
            assert!(message.contains(words), "{params}: {message}: {words}");
        }
        client.call("framework_start_init", None).await.unwrap();
        let null = json!({"name": "n", "num_blocks": 8, "block_size": 512});
        client.call("bdev_null_create", Some(&null.to_string())).await.unwrap();
        client.call("nbd_listen", Some(r#"{"address": "unix:nbd.sock"}"#)).await.unwrap();
        let reactors = client.call("framework_get_reactors", None).await.unwrap();
        let reactors = serde_json::to_value(reactors).unwrap();
        let reactors = reactors["reactors"].as_array().unwrap();
        let used = reactors.iter().find(|reactor| reactor["lw_threads"] != json!([])).unwrap();
        let (id, core) = (&used["lw_threads"][0]["id"], &used["lcore"]);
        let add_core = format!("'[63]' has none of them; add core {core}, on which thread {id} stays");
        let names = vec!["n"; 5000];
        for (method, params, words) in [
            (
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 100}),
                "'block_size' 100 is no multiple of 512; give one, such as 4096",
            ),
            (
                "bdev_null_resize",
                json!({"name": "n", "new_size": u64::MAX}),
                "bdev \"n\": 'new_size' 18446744073709551615 MiB is more than a disk can have; give less than \
                 17592186044416",
            ),
            (
                "bdev_nvme_get_controllers",
                json!({"name": "c"}),
                "Controller c does not exist: NVMe controllers are not reached; bdev_uring_create",
            ),
            (
                "bdev_aio_create",
                json!({"name": "a", "filename": "/nope", "nowait": true}),
                "'nowait' is implemented only for false: requests never block the reactor; give that, or leave it out",
            ),
            ("thread_set_cpumask", json!({"id": id, "cpumask": "[63]"}), &*add_core),
            (
                "bdev_get_histogram_borders",
                json!({"name": "n", "borders": vec![1; 257]}),
                "256 at most are taken; ask for bdev \"n\" in several calls",
            ),
            ("bdev_get_iostat", json!({"names": names}), "at most are taken; ask in several calls"),
            (
                "nbd_listen",
                json!({"address": "unix:nbd.sock"}),
                "the server listens on unix:nbd.sock already; use that listener, or choose another address",
            ),
        ] {
            let (_, message) = refused(&mut client, method, &params).await;
            assert!(message.contains(words), "{method}: {message}: {words}");
        }
        daemon.stop().await;
    };
    Runtime::builder().world(World::new(7)).reactors(2).build().unwrap().run(main).unwrap();
}

#[test]
fn refusals_name_the_object_and_what_to_do() {
    let main = async || {
        let options = DaemonOptions { rpc_socket: Some(RPC.into()), ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        let malloc = |name: &str| json!({"name": name, "num_blocks": 32768, "block_size": 512});
        for (method, params) in [
            ("bdev_malloc_create", malloc("base")),
            ("bdev_malloc_create", malloc("other")),
            ("bdev_malloc_create", malloc("outside")),
            (
                "bdev_lvol_create_lvstore",
                json!({"bdev_name": "base", "lvs_name": "s", "cluster_sz": 1 << 20}),
            ),
            (
                "bdev_lvol_create",
                json!({"lvs_name": "s", "lvol_name": "v", "size_in_mib": 4, "thin_provision": true}),
            ),
            ("nbd_export", json!({"bdev_name": "s/v", "name": "v"})),
            ("nbd_export", json!({"bdev_name": "outside"})),
        ] {
            client.call(method, Some(&params.to_string())).await.unwrap();
        }
        let huge = json!({"name": "huge", "num_blocks": 1_u64 << 52, "block_size": 4096});
        let uuid = client.call("bdev_get_bdevs", Some(r#"{"name": "s/v"}"#)).await.unwrap();
        let uuid = serde_json::to_value(uuid).unwrap()[0]["name"].as_str().unwrap().to_owned();
        for (method, params, words) in [
            ("bdev_malloc_create", huge, &["Cannot allocate memory", "\"huge\"", "num_blocks"][..]),
            ("bdev_malloc_create", json!([]), &["spdk_json_decode_object failed: 'params' is an array"]),
            ("bdev_get_bdevs", json!({"name": "nope"}), &["No such device", "\"nope\"", "bdev_get_bdevs"]),
            ("bdev_lvol_delete", json!({"name": "nope"}), &["\"nope\"", "bdev_lvol_get_lvols"]),
            ("bdev_lvol_grow_lvstore", json!({"lvs_name": "nope"}), &["\"nope\"", "bdev_lvol_get_lvstores"]),
            (
                "bdev_lvol_create_lvstore",
                json!({"bdev_name": "other", "lvs_name": "t", "cluster_sz": 4_294_967_296_u64}),
                &["'cluster_sz' is 4294967296, not an integer from 0 to 4294967295"],
            ),
            (
                "bdev_null_create",
                json!({"name": "n", "num_blocks": 8, "block_size": 512, "uuid": "abc"}),
                &["spdk_json_decode_object failed: 'uuid' is \"abc\", not a UUID of the form xxxxxxxx-xxxx-"],
            ),
            (
                "bdev_delay_create",
                json!({"name": "d", "base_bdev_name": "other", "uuid": 5}),
                &["'uuid' is 5, not a UUID of the form"],
            ),
            (
                "bdev_lvol_create_lvstore",
                json!({"bdev_name": "base", "lvs_name": "t"}),
                &["Operation not permitted", "\"base\"", "by lvolstore \"s\""],
            ),
            ("bdev_lvol_resize", json!({"name": "s/v", "size_in_mib": 1}), &["\"s/v\"", "NBD export \"v\""]),
            (
                "bdev_split_delete",
                json!({"base_bdev": "Mp0"}),
                &["\"Mp0\"", "split", "give the base that they were created on"],
            ),
            (
                "bdev_lvol_clone_bdev",
                json!({"bdev": "outside", "lvs_name": "s", "clone_name": "c"}),
                &["Operation not permitted", "\"outside\"", "NBD export \"outside\""],
            ),
            (
                "bdev_lvol_set_parent_bdev",
                json!({"lvol_name": "s/v", "parent_name": uuid}),
                &["Invalid argument", "\"s/v\"", "a volume is not its own parent"],
            ),
            (
                "bdev_lvol_start_shallow_copy",
                json!({"src_lvol_name": "s/v", "dst_bdev_name": uuid}),
                &["Invalid argument", "\"s/v\"", "not copied onto itself"],
            ),
        ] {
            let (_, message) = refused(&mut client, method, &params).await;
            for words in words {
                assert!(message.contains(words), "{method} {params}: {message}: {words}");
            }
        }
        let copy = json!({"src_lvol_name": "s/v", "dst_bdev_name": "other"}).to_string();
        let id = client.call("bdev_lvol_start_shallow_copy", Some(&copy)).await.unwrap();
        let id = serde_json::to_value(id).unwrap().to_string();
        let copied = loop {
            let copied = client.call("bdev_lvol_check_shallow_copy", Some(&id)).await.unwrap();
            let copied = serde_json::to_value(copied).unwrap();
            if copied["state"] != "in progress" {
                break copied["error"].as_str().unwrap().to_owned();
            }
        };
        assert!(copied.starts_with("Operation not permitted: volume \"s/v\""), "{copied}");
        daemon.stop().await;
    };
    Runtime::builder().world(World::new(7)).reactors(2).build().unwrap().run(main).unwrap();
}

#[test]
fn a_stop_ends_an_inflate_early_and_its_caller_is_told_what_to_do() {
    let main = async || {
        let options = DaemonOptions { rpc_socket: Some(RPC.into()), ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        let slow = json!({"name": "slow", "base_bdev_name": "base", "avg_read_latency": 20000, "p99_read_latency": 20000,
            "avg_write_latency": 20000, "p99_write_latency": 20000});
        for (method, params) in [
            ("bdev_malloc_create", json!({"name": "base", "num_blocks": 131_072, "block_size": 512})),
            ("bdev_delay_create", slow),
            (
                "bdev_lvol_create_lvstore",
                json!({"bdev_name": "slow", "lvs_name": "s", "cluster_sz": 1 << 20, "clear_method": "none"}),
            ),
            (
                "bdev_lvol_create",
                json!({"lvs_name": "s", "lvol_name": "v", "size_in_mib": 48, "thin_provision": true}),
            ),
        ] {
            client.call(method, Some(&params.to_string())).await.unwrap();
        }
        let mut waiting = Client::connect(Path::new(RPC)).await.unwrap();
        let inflate =
            spawn_local(
                async move { refused(&mut waiting, "bdev_lvol_inflate", &json!({"name": "s/v"})).await },
            );
        while daemon.control().lvols().lvols()[0].info().await.unwrap().num_allocated_clusters == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let store = json!({"lvs_name": "s"});
        let (code, message) = refused(&mut client, "bdev_lvol_delete_lvstore", &store).await;
        assert_eq!(code, -32602);
        for words in ["Device or resource busy", "lvolstore \"s\"", "inflate of volume \"s/v\""] {
            assert!(message.contains(words), "{message}: {words}");
        }
        assert_eq!(daemon.stop().await.failed_unloads, 0);
        let (code, message) = inflate.await.unwrap();
        assert_eq!(code, -32602);
        for words in ["Operation canceled", "inflate of volume \"s/v\"", "the same call goes on from there"] {
            assert!(message.contains(words), "{message}: {words}");
        }
    };
    Runtime::builder().world(World::new(7)).reactors(2).build().unwrap().run(main).unwrap();
}

#[test]
fn a_stop_ends_although_bdevs_keep_what_clients_and_stores_write() {
    let main = async || {
        let options = DaemonOptions { rpc_socket: Some(RPC.into()), ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        let keep = json!({"name": "EE_base", "io_type": "write", "error_type": "pending", "num": 1_000_000});
        for (method, params) in [
            ("bdev_malloc_create", json!({"name": "base", "num_blocks": 131_072, "block_size": 512})),
            ("bdev_error_create", json!({"base_name": "base"})),
            ("bdev_lvol_create_lvstore", json!({"bdev_name": "EE_base", "lvs_name": "s"})),
            ("bdev_lvol_create", json!({"lvs_name": "s", "lvol_name": "v", "size_in_mib": 8})),
            ("bdev_error_inject_error", keep),
        ] {
            client.call(method, Some(&params.to_string())).await.unwrap();
        }
        let creates = spawn_local(async move {
            let params = json!({"lvs_name": "s", "lvol_name": "w", "size_in_mib": 8}).to_string();
            client.call("bdev_lvol_create", Some(&params)).await.is_err()
        });
        yield_now().await;
        assert_eq!(daemon.stop().await.failed_unloads, 1);
        assert!(creates.await.unwrap(), "it was not carried out");
    };
    Runtime::builder().world(World::new(7)).reactors(2).build().unwrap().run(main).unwrap();
}
