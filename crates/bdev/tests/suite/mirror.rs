//! A mirror: a module whose bdevs stand on several bases. Writes go to all of them, reads to one.

use std::sync::Arc;

use spindle_bdev::{Base, Bdev, BdevError, BdevSpec, Detail, PlainDisk, Recipe, Registry, Virtual};
use spindle_block::{
    Cx, Device, DeviceState, Geometry, GeometryError, Io, IoErrorKind, Lane, LaneCx, LaneId, OpenError,
    Operation, Submit,
};

pub const MODULE: &str = "mirror";

/// What to make.
pub struct MirrorSpec {
    pub name: String,
    pub bases: Vec<String>,
}

/// Creates a mirror, now or when its last base comes.
pub async fn create(registry: &Registry, name: &str, bases: &[&str]) -> Result<Option<Bdev>, BdevError> {
    let bases = bases.iter().map(|base| (*base).to_owned()).collect();
    registry.create_one_virtual(MirrorSpec { name: name.to_owned(), bases }).await
}

impl MirrorSpec {
    fn params(&self) -> Vec<(&'static str, Detail)> {
        let bases = self.bases.iter().map(|base| base.as_str().into()).collect();
        vec![("name", self.name.as_str().into()), ("base_bdevs", Detail::List(bases))]
    }
}

impl Virtual for MirrorSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn base(&self) -> &str {
        &self.bases[0]
    }

    fn other_bases(&self) -> Vec<&str> {
        self.bases[1..].iter().map(String::as_str).collect()
    }

    fn recipe(&self) -> Option<Recipe> {
        Some(Recipe { method: "bdev_mirror_create", params: Detail::Object(self.params()) })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let legs: Vec<Arc<dyn Device>> =
            std::iter::once(base).chain(base.others()).map(Base::device).collect();
        let shape = shape(&legs)
            .map_err(|source| BdevError::from(OpenError::Geometry { device: self.name.clone(), source }))?;
        let device = Mirror { name: self.name.clone(), legs, shape, state: DeviceState::new() };
        let disk = PlainDisk::new(Arc::new(device)).made_by("bdev_mirror_create", self.params());
        Ok(vec![BdevSpec::new(&self.name, "Mirror", MODULE, Arc::new(disk))])
    }
}

/// As many blocks as the smallest leg has.
fn shape(legs: &[Arc<dyn Device>]) -> Result<Geometry, GeometryError> {
    let blocks = legs.iter().map(|leg| leg.geometry().blocks()).min().unwrap_or(0);
    Geometry::new(legs[0].geometry().block_size(), blocks)
}

/// The device, shared by all threads.
struct Mirror {
    name: String,
    legs: Vec<Arc<dyn Device>>,
    shape: Geometry,
    state: DeviceState,
}

impl Device for Mirror {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.shape
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        self.legs.clone()
    }

    fn supports(&self, operation: Operation) -> bool {
        takes(operation) && self.legs.iter().all(|leg| leg.supports(operation))
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let legs = self.legs.iter().map(|leg| cx.open(leg)).collect::<Result<_, _>>()?;
        Ok(Box::new(MirrorLane { legs }))
    }
}

fn takes(operation: Operation) -> bool {
    use Operation::{Flush, Read, Unmap, Write, WriteZeroes};
    matches!(operation, Read | Write | WriteZeroes | Unmap | Flush)
}

/// Its half on one thread.
struct MirrorLane {
    legs: Vec<LaneId>,
}

impl Lane for MirrorLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match io.operation() {
            Operation::Read => cx.relay(self.legs[0], io),
            operation if takes(operation) => {
                let split = cx.split(io);
                for leg in &self.legs {
                    let copy = cx.mirror(&split);
                    cx.relay(*leg, copy);
                }
                cx.join(split);
            }
            _ => cx.done(io, Err(IoErrorKind::Unsupported)),
        }
        Submit::Taken
    }
}
