//! Runtimes with a registry, in simulation and on the machine.

use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::{Bdev, Registry};
use spindle_reactor::{EngineKind, Runtime, Thread};

/// Runs a test on the app thread of a runtime with two reactors and a registry.
pub fn on(kind: EngineKind, test: impl AsyncFnOnce(Registry) + Send + 'static) {
    let runtime = Runtime::builder().reactors(2).engine(kind).build().unwrap();
    let main = async move || {
        let registry = Registry::start().unwrap();
        test(registry.clone()).await;
        registry.shutdown().await.unwrap();
        assert!(registry.bdevs().is_empty(), "a shutdown leaves {registry:?}");
    };
    runtime.run(main).unwrap();
}

/// The same in simulation, with one seed.
pub fn simulated(test: impl AsyncFnOnce(Registry) + Send + 'static) {
    on(EngineKind::Sim(1), test);
}

/// A RAM disk of 64 blocks.
pub async fn malloc(registry: &Registry, name: &str) -> Bdev {
    let spec =
        MallocSpec { name: Some(name.to_owned()), block_size: 512, num_blocks: 64, ..MallocSpec::default() };
    malloc::create(registry, spec).await.unwrap()
}

/// A thread on any reactor.
pub fn thread(name: &str) -> Thread {
    Thread::create(name, "[0-1023]").unwrap()
}
