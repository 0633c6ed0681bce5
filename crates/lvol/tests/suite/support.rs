//! Runtimes with a registry and logical volumes, in simulation and on the machine.

use std::sync::{Arc, Mutex};

use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::{Bdev, Registry};
use spindle_block::Channel;
use spindle_lvol::{Lvol, LvolSpec, LvolStore, Lvols, StoreSpec};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, ReportLevel, Reporter, Runtime};

/// A mebibyte: a cluster of all stores here.
pub const MIB: u64 = 1 << 20;

/// Keeps what a runtime reports.
#[derive(Default)]
struct Kept(Mutex<Vec<(ReportLevel, String)>>);

impl Reporter for Kept {
    fn wants(&self, _: ReportLevel, _: &str) -> bool {
        true
    }

    fn report(&self, level: ReportLevel, _: &'static str, text: &str) {
        self.0.lock().unwrap().push((level, text.to_owned()));
    }

    fn dump(&self, _: &str) {}
}

/// Runs a test on the app thread of a runtime with two reactors, and leaves everything in order.
pub fn on(kind: EngineKind, test: impl AsyncFnOnce(Registry, Lvols) + Send + 'static) {
    on_reporting(kind, test);
}

/// As [`on`]; what the runtime reported.
pub fn on_reporting(
    kind: EngineKind,
    test: impl AsyncFnOnce(Registry, Lvols) + Send + 'static,
) -> Vec<(ReportLevel, String)> {
    let kept = Arc::new(Kept::default());
    let runtime = Runtime::builder().reactors(2).engine(kind).reporter(kept.clone()).build().unwrap();
    let main = async move || {
        let registry = Registry::start().unwrap();
        let lvols = Lvols::start(&registry).await.unwrap();
        test(registry.clone(), lvols.clone()).await;
        registry.shutdown().await.unwrap();
        assert!(registry.bdevs().is_empty() && lvols.stores().is_empty(), "a shutdown leaves {registry:?}");
    };
    runtime.run(main).unwrap();
    std::mem::take(&mut *kept.0.lock().unwrap())
}

/// The same in simulation, with one seed.
pub fn simulated(test: impl AsyncFnOnce(Registry, Lvols) + Send + 'static) {
    on(EngineKind::Sim(1), test);
}

/// A RAM disk of so many mebibytes.
pub async fn malloc(registry: &Registry, name: &str, mib: u64) -> Bdev {
    let (name, num_blocks) = (Some(name.to_owned()), mib * MIB / 512);
    let spec = MallocSpec { name, block_size: 512, num_blocks, ..MallocSpec::default() };
    malloc::create(registry, spec).await.unwrap()
}

/// How a store of clusters of one mebibyte is made.
pub fn store_spec(bdev: &str, name: &str) -> StoreSpec {
    StoreSpec { bdev: bdev.into(), name: name.into(), cluster_size: Some(MIB as u32), ..StoreSpec::default() }
}

/// A store `lvs` on a RAM disk `M0` of 64 MiB.
pub async fn lvs(registry: &Registry, lvols: &Lvols) -> LvolStore {
    malloc(registry, "M0", 64).await;
    lvols.create_store(store_spec("M0", "lvs")).await.unwrap()
}

/// A thin volume of so many mebibytes.
pub async fn thin(store: &LvolStore, name: &str, mib: u64) -> Lvol {
    store.create(LvolSpec::thin(name, mib * MIB)).await.unwrap()
}

/// This thread's way to a bdev, opened for writing for good.
pub fn channel(name: &str) -> Channel {
    let desc = Bdev::open(name).unwrap();
    let channel = desc.channel().unwrap();
    // Channels stay open without their descriptor; these tests look at data, not at openings.
    drop(desc);
    channel
}

/// Writes a block of one byte.
pub async fn fill(channel: &Channel, offset: u64, byte: u8) {
    channel.write(offset, IoBuf::copy_from(&[byte; 512])).await.0.unwrap();
}

/// The first byte of a block, which must be all of one byte.
pub async fn byte(channel: &Channel, offset: u64) -> u8 {
    let (read, buffers) = channel.read(offset, IoBuf::zeroed(512)).await;
    read.unwrap();
    let bytes = buffers.to_vec();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a block is written whole");
    bytes[0]
}
