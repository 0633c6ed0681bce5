//! A process that works on a store in a file is killed with SIGKILL in the middle of its work, a hundred
//! times over: what it had acknowledged is there, and nothing else is wrong.
//!
//! The process is this test itself, started again to run [`work_until_killed`]. It says what it is about to do
//! and what is done, a line each, and the test keeps a model of that.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spindle::blob::{BlobError, BlobId, BlobInfo, InitOptions, LayoutOptions, LoadOptions};
use spindle::block::{File, FileOptions, OpenError};
use spindle::{Blob, BlobOptions, Blobstore, IoBuf, Runtime, Thread, spawn_local};

const ROUNDS: u64 = 100;
const CLUSTER: u64 = 64 << 10;
const CLUSTERS: u64 = 24;
const UNIT: u64 = 4096;
const UNITS: u64 = CLUSTERS * CLUSTER / UNIT;
const BLOBS: u64 = 3;
/// Set for the process that will be killed: its file, and its round.
const FILE: &str = "SPINDLE_KILL_FILE";
const ROUND: &str = "SPINDLE_KILL_ROUND";

/// The file as a device. What a killed process had in the kernel holds its lock for a moment longer.
async fn device(path: &Path, writable: bool) -> std::sync::Arc<File> {
    for _ in 0..1000 {
        let options = FileOptions::new(path).writable(writable).name("killed");
        match File::open(if writable { options.create(32 << 20) } else { options }).await {
            Err(OpenError::Busy { .. }) => spindle::sleep(std::time::Duration::from_millis(5)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", path.display());
}

fn on_cores<R: Send + 'static>(count: usize, main: impl AsyncFnOnce() -> R + Send + 'static) -> R {
    Runtime::builder().reactors(count).build().unwrap().run(main).unwrap()
}

// The process that is killed.

/// A line for the test, whole or not at all: a pipe takes one this short in one piece.
fn say(line: String) {
    std::io::stdout().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

#[test]
#[ignore = "runs in the process that `a_hundred_kills_lose_nothing` starts and kills"]
fn work_until_killed() {
    let (Ok(path), Ok(round)) = (std::env::var(FILE), std::env::var(ROUND)) else { return };
    let (path, round): (PathBuf, u64) = (path.into(), round.parse().unwrap());
    on_cores(2, async move || {
        let store = open_store(&path).await;
        let ids = store.blobs().await.unwrap();
        for id in ids {
            // A snapshot whose creation was never acknowledged.
            if store.blob_info(id).await.unwrap().read_only && round.is_multiple_of(3) {
                say(format!("delete {}", id.raw()));
                store.delete_blob(id).await.unwrap();
                say(format!("deleted {}", id.raw()));
            }
        }
        let mut jobs = Vec::new();
        for at in 0..BLOBS {
            let store = store.clone();
            let cores = Thread::current().unwrap().cores().to_string();
            let thread = Thread::create(&format!("worker{at}"), &cores).unwrap();
            let job = thread.spawn(async move || work(store, at, round).await);
            jobs.push((thread, job));
        }
        for (_thread, job) in jobs {
            job.await.unwrap();
        }
    });
}

async fn open_store(path: &Path) -> Blobstore {
    let device = device(path, true).await;
    if let Ok(store) = Blobstore::load(device.clone(), LoadOptions::default()).await {
        return store;
    }
    let layout = LayoutOptions { cluster_size: CLUSTER as u32, ..LayoutOptions::default() };
    let store = Blobstore::init(device, InitOptions { layout, ..InitOptions::default() }).await.unwrap();
    for at in 0..BLOBS {
        let options = BlobOptions::thin(CLUSTERS).xattr("name", format!("{at}"));
        store.create_blob(options).await.unwrap();
    }
    say("made".into());
    store
}

async fn named(store: &Blobstore, at: u64) -> Option<BlobId> {
    for id in store.blobs().await.unwrap() {
        let xattrs = store.blob_xattrs(id).await.unwrap();
        if xattrs.iter().any(|xattr| xattr.name == b"name" && xattr.value == format!("{at}").as_bytes()) {
            return Some(id);
        }
    }
    None
}

fn below(n: u64) -> u64 {
    spindle::reactor::random() % n
}

/// Changes one blob until the process is killed.
async fn work(store: Blobstore, at: u64, round: u64) {
    let id = named(&store, at).await.expect("the first round made it");
    let blob = store.open_blob(id).await.unwrap();
    for step in 0_u64.. {
        match below(40) {
            0 => {
                say(format!("snapshot {at}"));
                match store.snapshot(id, Vec::new()).await {
                    Ok(snapshot) => say(format!("snapshotted {at} {}", snapshot.raw())),
                    Err(error) => full(error),
                }
            }
            1 => {
                let first = below(CLUSTERS);
                let len = 1 + below(CLUSTERS - first);
                say(format!("erase {at} {} {}", first * CLUSTER / UNIT, len * CLUSTER / UNIT));
                match blob.write_zeroes(first * CLUSTER, len * CLUSTER).await {
                    Ok(()) => say(format!("erased {at}")),
                    Err(error) => full(error),
                }
            }
            2 => blob.flush().await.unwrap(),
            3 => {
                blob.set_xattr("step", format!("{round}.{step}")).await.unwrap();
                blob.sync().await.unwrap();
            }
            _ => write_some(&blob, at, round << 32 | step).await,
        }
    }
}

/// Up to eight writes at a time, each of some units.
async fn write_some(blob: &Blob, at: u64, value: u64) {
    let mut writes = Vec::new();
    let mut free: Vec<u64> = (0..8).map(|part| part * UNITS / 8).collect();
    for _ in 0..=below(8) {
        let first = free.swap_remove(below(free.len() as u64) as usize) + below(UNITS / 8 - 4);
        let count = 1 + below(4);
        say(format!("write {at} {first} {count} {value}"));
        let blob = blob.clone();
        writes.push(spawn_local(async move {
            let bytes: Vec<u8> = value.to_le_bytes().repeat((count * UNIT / 8) as usize);
            match blob.write(first * UNIT, IoBuf::copy_from(&bytes)).await.0 {
                Ok(()) => say(format!("written {at} {first} {count} {value}")),
                Err(error) => full(error),
            }
        }));
    }
    for write in writes {
        write.await.unwrap();
    }
}

/// Snapshots fill the store; that is no fault.
fn full(error: BlobError) {
    assert!(matches!(error, BlobError::OutOfSpace { .. } | BlobError::OutOfMetadata { .. }), "{error}");
}

// The test that kills it.

/// What a unit may hold: what was acknowledged last, and what was begun since.
#[derive(Clone)]
struct Unit {
    sure: u64,
    begun: Vec<u64>,
}

#[derive(Default)]
struct Model {
    made: bool,
    blobs: BTreeMap<u64, Vec<Unit>>,
    erasing: BTreeMap<u64, (usize, usize)>,
    snapshots: BTreeMap<u64, Vec<Unit>>,
    operations: u64,
}

impl Model {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let verb = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        let blank = || vec![Unit { sure: 0, begun: Vec::new() }; UNITS as usize];
        let some = |first: u64, count: u64| first as usize..(first + count) as usize;
        match (verb, numbers.as_slice()) {
            ("made", []) => {
                self.made = true;
                self.blobs = (0..BLOBS).map(|at| (at, blank())).collect();
            }
            ("write", &[at, first, count, value]) => {
                let units = &mut self.blobs.get_mut(&at).unwrap()[some(first, count)];
                units.iter_mut().for_each(|unit| unit.begun.push(value));
            }
            ("written", &[at, first, count, value]) => {
                let units = &mut self.blobs.get_mut(&at).unwrap()[some(first, count)];
                units.iter_mut().for_each(|unit| *unit = Unit { sure: value, begun: Vec::new() });
                self.operations += 1;
            }
            ("erase", &[at, first, count]) => {
                self.erasing.insert(at, (first as usize, count as usize));
                let units = &mut self.blobs.get_mut(&at).unwrap()[some(first, count)];
                units.iter_mut().for_each(|unit| unit.begun.push(0));
            }
            ("erased", &[at]) => {
                let (first, count) = self.erasing.remove(&at).unwrap();
                let units = &mut self.blobs.get_mut(&at).unwrap()[first..first + count];
                units.iter_mut().for_each(|unit| *unit = Unit { sure: 0, begun: Vec::new() });
                self.operations += 1;
            }
            ("snapshot", &[_at]) => {}
            ("snapshotted", &[at, id]) => {
                self.snapshots.insert(id, self.blobs[&at].clone());
                self.operations += 1;
            }
            ("delete", &[id]) => drop(self.snapshots.remove(&id)),
            ("deleted", &[_id]) => self.operations += 1,
            _ => panic!("{line}"),
        }
    }

    /// What is on disk is what it may be; from now on it is that.
    async fn agree(&mut self, store: &Blobstore, round: u64) {
        let info = store.info().await.unwrap();
        assert_eq!(info.damaged, [], "round {round}");
        for (&at, units) in &mut self.blobs {
            let id = named(store, at).await.unwrap_or_else(|| panic!("round {round}: blob {at} is gone"));
            agree(store, id, units, round).await;
        }
        for (&id, units) in &mut self.snapshots {
            let id = BlobId::from_raw(id);
            let info: Result<BlobInfo, BlobError> = store.blob_info(id).await;
            assert!(info.is_ok_and(|info| info.read_only), "round {round}: snapshot {id} is gone");
            agree(store, id, units, round).await;
        }
        self.erasing.clear();
    }
}

async fn agree(store: &Blobstore, id: BlobId, units: &mut [Unit], round: u64) {
    let blob = store.open_blob(id).await.unwrap();
    let (result, buffers) = blob.read(0, IoBuf::zeroed((UNITS * UNIT) as usize)).await;
    result.unwrap();
    let bytes = buffers.to_vec();
    for (at, (unit, bytes)) in units.iter_mut().zip(bytes.chunks(UNIT as usize)).enumerate() {
        // The smallest block is what is old or new as a whole; a kill between two of them shows in no
        // larger piece here, for the system takes what a write gives it before it ends the process.
        let mut seen: Vec<u64> =
            bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        seen.dedup();
        for value in &seen {
            let may = *value == unit.sure || unit.begun.contains(value);
            assert!(
                may,
                "round {round}: unit {at} of {id} holds {value:#x}, not {:#x} or {:x?}",
                unit.sure, unit.begun
            );
        }
        // Torn: the next write says what it is.
        *unit = Unit { sure: seen[0], begun: seen[1..].to_vec() };
    }
    blob.close().await.unwrap();
}

#[test]
fn a_hundred_kills_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.img");
    let mut model = Model::default();
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::work_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FILE, &path)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different moment each time, the first words and the middle of the work alike.
        let kill_at = if round == 1 { 50 } else { round * 7919 % 613 };
        let mut heard = 0;
        for line in lines {
            // The harness's own words may stand before ours.
            let line = line.unwrap();
            let Some((_, line)) = line.split_once('@') else { continue };
            model.hear(line);
            heard += 1;
            if heard == kill_at {
                child.kill().unwrap();
            }
        }
        assert!(
            !child.wait().unwrap().success(),
            "round {round}: it ended before the kill, after {heard} lines"
        );
        assert!(model.made, "the first round makes the store");
        let file = path.clone();
        model = on_cores(1, async move || {
            let device = device(&file, false).await;
            let options = LoadOptions { read_only: true, ..LoadOptions::default() };
            let store = Blobstore::load(device, options).await.unwrap();
            model.agree(&store, round).await;
            store.unload().await.unwrap();
            model
        });
    }
    assert!(model.operations > 20 * ROUNDS, "only {} operations were acknowledged", model.operations);
}
