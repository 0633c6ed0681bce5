//! How fast new clusters are written, beside the bare device in the same run:
//! `cargo run --release -p spindle-blob --example fill -- FILE [CLUSTER_KIB] [MIB]`.
//!
//! Prints MB/s of sequential thin fill beside thick and the bare device, and clusters per second of one new
//! cluster per write beside the device's own zeroing of clusters, for depths 1 and 32, alternating, as
//! medians.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::rc::Rc;
use std::sync::Arc;

use spindle_blob::{Blob, BlobOptions, Blobstore, InitOptions, LayoutOptions, LoadOptions};
use spindle_block::{Channel, Device, File, FileOptions};
use spindle_mem::IoBuf;
use spindle_reactor::{Runtime, now, spawn_local};

const ROUNDS: usize = 3;
const BLOCK: u64 = 64 << 10;

#[derive(Clone)]
enum Target {
    Blob(Blob),
    Bare(Rc<Channel>),
    Zeroing(Rc<Channel>, u64),
}

impl Target {
    async fn write(&self, offset: u64, len: u64) {
        match self {
            Target::Blob(blob) => blob.write(offset, IoBuf::zeroed(len as usize)).await.0.unwrap(),
            Target::Bare(channel) => channel.write(offset, IoBuf::zeroed(len as usize)).await.0.unwrap(),
            Target::Zeroing(channel, cluster) => channel.write_zeroes(offset, *cluster).await.unwrap(),
        }
    }
}

/// Requests per second of `count` requests at these steps, a flush at the end.
async fn rate(target: &Target, count: u64, step: u64, len: u64, depth: u64) -> f64 {
    let start = now();
    let tasks: Vec<_> = (0..depth)
        .map(|first| {
            let target = target.clone();
            spawn_local(async move {
                let mut at = first;
                while at < count {
                    target.write(at * step, len).await;
                    at += depth;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    match target {
        Target::Blob(blob) => blob.flush().await.unwrap(),
        Target::Bare(channel) | Target::Zeroing(channel, _) => channel.flush().await.unwrap(),
    }
    count as f64 / (now() - start).as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn blob(store: &Blobstore, options: BlobOptions) -> Target {
    let id = store.create_blob(options).await.unwrap();
    Target::Blob(store.open_blob(id).await.unwrap())
}

async fn drop_blob(store: &Blobstore, target: Target) {
    if let Target::Blob(blob) = target {
        let id = blob.id();
        blob.close().await.unwrap();
        store.delete_blob(id).await.unwrap();
    }
}

async fn measure(device: Arc<dyn Device>, cluster: u64, bytes: u64, loaded: bool) {
    let layout = LayoutOptions { cluster_size: cluster as u32, ..LayoutOptions::default() };
    let options = InitOptions { layout, force: true, ..InitOptions::default() };
    let mut store = Blobstore::init(device.clone(), options).await.unwrap();
    if loaded {
        store.unload().await.unwrap();
        store = Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap();
    }
    let clusters = bytes / cluster;
    // Behind everything that the store uses here.
    let bare = spindle_block::Offset::new("rest", device.clone(), bytes * 2 / 4096, bytes / 4096).unwrap();
    let bare = Rc::new(Channel::open(bare).unwrap());
    for depth in [1, 32] {
        let mut rates = vec![Vec::new(); 6];
        for _ in 0..ROUNDS {
            let disk = Target::Bare(bare.clone());
            rates[0].push(rate(&disk, bytes / BLOCK, BLOCK, BLOCK, depth).await);
            let thick = blob(&store, BlobOptions::thick(clusters)).await;
            rates[1].push(rate(&thick, bytes / BLOCK, BLOCK, BLOCK, depth).await);
            drop_blob(&store, thick).await;
            let thin = blob(&store, BlobOptions::thin(clusters)).await;
            rates[2].push(rate(&thin, bytes / BLOCK, BLOCK, BLOCK, depth).await);
            drop_blob(&store, thin).await;
            let zeroing = Target::Zeroing(bare.clone(), cluster);
            rates[3].push(rate(&zeroing, clusters, cluster, 0, depth).await);
            let thin = blob(&store, BlobOptions::thin(clusters)).await;
            rates[4].push(rate(&thin, clusters, cluster, 4096, depth).await);
            rates[5].push(rate(&disk, clusters, cluster, 4096, depth).await);
            drop_blob(&store, thin).await;
        }
        let [bare, thick, thin, zeroing, new, blocks]: [f64; 6] =
            rates.into_iter().map(median).collect::<Vec<_>>().try_into().unwrap();
        let mib = BLOCK as f64 / f64::from(1 << 20);
        println!(
            "{} depth {depth}: bare {:.0} MiB/s, thick {:.0}, thin fill {:.0} ({:.2} of thick); \
             zeroing {zeroing:.0} clusters/s, one new cluster per write {new:.0} ({:.2} of zeroing, \
             {:.2} of bare 4 KiB writes at that distance)",
            if loaded { "loaded" } else { "fresh" },
            bare * mib,
            thick * mib,
            thin * mib,
            thin / thick,
            new / zeroing,
            new / blocks,
        );
    }
    store.unload().await.unwrap_or_default();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "/tmp/spindle-fill.img".into());
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (cluster, bytes) = (number(1024) << 10, number(256) << 20);
    let main = async move || {
        let options = FileOptions::new(path).writable(true).create(bytes * 4).block_size(4096);
        let device = File::open(options).await.unwrap();
        for loaded in [false, true] {
            measure(device.clone(), cluster, bytes, loaded).await;
        }
    };
    Runtime::builder().reactors(1).build().unwrap().run(main).unwrap();
}
