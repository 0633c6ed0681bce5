//! Thousands of volumes.

use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::clients::{Nbd, Rpc};
use super::support::Daemon;

const VOLUMES: usize = 4096;

/// A folder in memory where there is one: on a disk thousands of creates, each of which is durable, take minutes.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a start takes is printed")]
fn four_thousand_volumes_come_back_after_a_kill() {
    let folder = folder();
    std::fs::File::create(folder.path().join("disk.img")).unwrap().set_len(8 << 30).unwrap();
    let disk = json!({"name": "base", "filename": "disk.img", "block_size": 512});
    let start = || {
        let daemon =
            Daemon::start(folder.path(), &["serve", "-r", "rpc.sock", "--nbd", "unix:nbd.sock"], "data");
        let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
        rpc.done("bdev_aio_create", &disk).unwrap();
        (daemon, rpc)
    };
    let (daemon, mut rpc) = start();
    let store = json!({"bdev_name": "base", "lvs_name": "lvs", "cluster_sz": 1 << 20});
    rpc.done("bdev_lvol_create_lvstore", &store).unwrap();
    let began = Instant::now();
    for number in 0..VOLUMES {
        let name = format!("v{number}");
        let made = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": 1, "thin_provision": true});
        rpc.done("bdev_lvol_create", &made).unwrap();
    }
    let made = began.elapsed();
    daemon.end(Signal::KILL);
    let began = Instant::now();
    let (daemon, mut rpc) = start();
    println!("{VOLUMES} volumes: made in {made:.2?}, back {:.2?} after the start", began.elapsed());
    let volumes = rpc.done("bdev_lvol_get_lvols", &Value::Null).unwrap();
    let mut names: Vec<&str> =
        volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), VOLUMES);
    for name in ["lvs/v0", "lvs/v4095"] {
        rpc.done("nbd_export", &json!({"bdev_name": name})).unwrap();
        let bytes = Nbd::connect(&folder.path().join("nbd.sock"), name).unwrap().read(0, 1 << 20).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}
