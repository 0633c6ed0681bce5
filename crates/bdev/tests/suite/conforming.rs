//! Every module's bdevs keep the rules of all bdevs, in simulation and on the machine; bdevs that break one are found
//! out.

use std::sync::Arc;

use spindle_bdev::conformance::{self, Contents};
use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, ErrorSpec};
use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, BdevSpec, PlainDisk, Registry};
use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, Malloc, OpenError, Operation,
    Status, Submit,
};
use spindle_reactor::EngineKind;

use crate::support::{malloc, on, simulated};

/// Checks what `make` makes, with several seeds and on the machine.
fn conforms<F>(contents: Contents, make: F)
where
    F: AsyncFn(&Registry) -> Bdev + Clone + Send + 'static,
{
    let kinds = (1..=8).map(EngineKind::Sim).chain([EngineKind::Auto]);
    for kind in kinds {
        let make = make.clone();
        on(kind, async move |registry| {
            let bdev = make(&registry).await;
            conformance::check(&bdev, contents).await.unwrap();
        });
    }
}

/// A RAM disk with room for two halves that the rules can be tried on.
async fn base(registry: &Registry) {
    let spec = spindle_bdev::modules::malloc::MallocSpec {
        name: Some("M0".into()),
        block_size: 4096,
        num_blocks: 256,
        ..Default::default()
    };
    spindle_bdev::modules::malloc::create(registry, spec).await.unwrap();
}

#[test]
fn malloc_bdevs_conform() {
    conforms(Contents::Kept, async |registry| malloc(registry, "M0").await);
}

#[test]
fn null_bdevs_conform() {
    conforms(Contents::Lost, async |registry| {
        let spec = NullSpec { name: "N0".into(), block_size: 512, num_blocks: 64, ..NullSpec::default() };
        null::create(registry, spec).await.unwrap()
    });
}

#[test]
fn file_bdevs_conform() {
    for kind in [EngineKind::Auto, EngineKind::Epoll] {
        on(kind, async move |registry| {
            let folder = tempfile::tempdir().unwrap();
            let filename = folder.path().join("disk");
            std::fs::File::create(&filename).unwrap().set_len(1 << 20).unwrap();
            let spec = FileSpec {
                name: "A0".into(),
                filename,
                block_size: Some(512),
                read_only: false,
                fallocate: true,
                uuid: None,
                spelling: Spelling::Aio,
            };
            let bdev = file::create(&registry, spec).await.unwrap();
            conformance::check(&bdev, Contents::Kept).await.unwrap();
        });
    }
}

#[test]
fn passthru_bdevs_conform() {
    conforms(Contents::Kept, async |registry| {
        base(registry).await;
        let spec = PassthruSpec { name: "P0".into(), base: "M0".into(), uuid: None };
        passthru::create(registry, spec).await.unwrap().unwrap()
    });
}

#[test]
fn delay_bdevs_conform() {
    conforms(Contents::Kept, async |registry| {
        base(registry).await;
        let spec =
            DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [5, 500, 10, 1000] };
        delay::create(registry, spec).await.unwrap().unwrap()
    });
}

#[test]
fn error_bdevs_conform() {
    conforms(Contents::Kept, async |registry| {
        base(registry).await;
        error::create(registry, ErrorSpec { base: "M0".into(), uuid: None }).await.unwrap().unwrap()
    });
}

#[test]
fn the_parts_of_a_split_bdev_conform() {
    conforms(Contents::Kept, async |registry| {
        base(registry).await;
        let spec = SplitSpec { base: "M0".into(), count: 2, size_mib: 0 };
        split::create(registry, spec).await.unwrap()[1].clone()
    });
}

/// A bdev whose device takes few blocks of each operation at once.
async fn limited(registry: &Registry) -> Bdev {
    let shape = Geometry::new(512, 256).unwrap().with_unmap_reads_zero(true).with_max_transfer(7).unwrap();
    let shape = shape.with_max_unmap(9).unwrap().with_max_write_zeroes(5).unwrap().with_max_copy(3).unwrap();
    let disk = Arc::new(PlainDisk::new(Malloc::with_geometry("limited", shape).unwrap()));
    registry.register(BdevSpec::new("L0", "limited", "test", disk)).await.unwrap()
}

#[test]
fn bdevs_whose_devices_take_few_blocks_at_once_conform() {
    conforms(Contents::Kept, limited);
}

#[test]
fn bdevs_on_such_a_bdev_conform() {
    conforms(Contents::Kept, async |registry| {
        limited(registry).await;
        let spec = SplitSpec { base: "L0".into(), count: 2, size_mib: 0 };
        let part = split::create(registry, spec).await.unwrap()[1].name().to_owned();
        let spec = PassthruSpec { name: "P0".into(), base: part, uuid: None };
        passthru::create(registry, spec).await.unwrap().unwrap()
    });
}

/// How a bdev of a bad module is wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// Reads come back with the first byte of block 9 changed.
    WrongData,
    /// Unmaps reach one block too many.
    UnmapsMore,
    /// Compares always succeed.
    NeverDiffers,
    /// A write of block 13 fails.
    FailsOne,
    /// Says that it zeroes eight blocks at once, and zeroes four.
    ZeroesLess,
}

/// A module that is wrong, over a RAM disk.
struct Bad {
    below: Arc<dyn Device>,
    state: DeviceState,
    fault: Fault,
}

impl Device for Bad {
    fn name(&self) -> &str {
        "bad"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry().with_max_write_zeroes(8).unwrap()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn supports(&self, operation: Operation) -> bool {
        self.below.supports(operation)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(BadLane { below: cx.open(&self.below)?, fault: self.fault }))
    }
}

struct BadLane {
    below: LaneId,
    fault: Fault,
}

impl Lane for BadLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        match (self.fault, io.operation()) {
            (Fault::NeverDiffers, Operation::Compare) => cx.done(io, Ok(())),
            (Fault::FailsOne, Operation::Write) if io.start() == 13 => cx.done(io, Err(IoErrorKind::Medium)),
            (Fault::ZeroesLess, Operation::WriteZeroes) if io.count() > 4 => cx.done(io, Ok(())),
            (Fault::UnmapsMore, Operation::Unmap) => {
                io.set_start(io.start() - 1);
                cx.forward(self.below, io, [0, 0]);
            }
            _ => cx.forward(self.below, io, [0, 0]),
        }
        Submit::Taken
    }
    fn complete(&mut self, mut io: Io, _saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        if matches!(self.fault, Fault::WrongData) && io.operation() == Operation::Read && io.start() == 9 {
            io.buffers_mut().copy_from(0, &[0xee]);
        }
        cx.done(io, status);
    }
}

#[test]
fn a_bdev_that_breaks_a_rule_is_found_out() {
    let faults = [
        (Fault::WrongData, "its own data"),
        (Fault::UnmapsMore, "unmapped blocks"),
        (Fault::NeverDiffers, "comparison"),
        (Fault::FailsOne, "aborted"),
        (Fault::ZeroesLess, "zeroed"),
    ];
    for (fault, rule) in faults {
        simulated(async move |registry| {
            let below = Malloc::new("below", 512, 64).unwrap();
            let disk = Arc::new(PlainDisk::new(Arc::new(Bad { below, state: DeviceState::new(), fault })));
            let spec = BdevSpec::new("bad", "bad", "bad", disk);
            let bdev = registry.register(spec).await.unwrap();
            let violation = conformance::check(&bdev, Contents::Kept).await.unwrap_err();
            assert!(violation.rule.contains(rule), "{violation}");
        });
    }
}
