//! What SPDK refuses, and with which code and words; found by sending the same calls to both.

use std::path::Path;

use serde_json::{Value, json};
use spindle_control::{Daemon, DaemonOptions, methods};
use spindle_engine::sim::World;
use spindle_reactor::Runtime;
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
