//! `bdev_passthru_*`: a bdev that passes every request on to another, unchanged.
//!
//! A minimal but complete module, to copy: `docs/write-a-bdev.md` explains one like it.

use std::sync::Arc;

use spindle_block::{Cx, Io, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Submit};
use uuid::Uuid;

use crate::{Base, Bdev, BdevError, BdevSpec, Detail, PlainDisk, Recipe, Registry, Virtual};

/// The module's name.
pub const MODULE: &str = "passthru";

/// The method that asks for one.
const CREATE: &str = "bdev_passthru_create";

/// SPDK's namespace for the UUIDs of passthru bdevs: the same base gives the same UUID in both programs.
const NAMESPACE: Uuid = Uuid::from_u128(0x7e25812e_c8c0_4d3f_8599_16d790555b85);

/// Describes a passthru bdev to create.
#[derive(Clone, Debug)]
pub struct PassthruSpec {
    /// Its name.
    pub name: String,
    /// The base bdev's name, alias or UUID.
    pub base: String,
    /// Its UUID; by default derived from the base's.
    pub uuid: Option<Uuid>,
}

/// Creates a passthru bdev, now or when its base comes. Returns the bdev if it was created now.
///
/// # Errors
/// As [`Registry::create_virtual`].
pub async fn create(registry: &Registry, spec: PassthruSpec) -> Result<Option<Bdev>, BdevError> {
    registry.create_one_virtual(spec).await
}

/// Deletes a passthru bdev.
///
/// # Errors
/// As [`Registry::delete_virtual`].
pub async fn delete(registry: &Registry, name: &str) -> Result<(), BdevError> {
    registry.delete_virtual(MODULE, name).await
}

impl Virtual for PassthruSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn recipe(&self) -> Option<Recipe> {
        let mut params =
            vec![("base_bdev_name", self.base.clone().into()), ("name", self.name.clone().into())];
        params.extend(self.uuid.map(|uuid| ("uuid", uuid.to_string().into())));
        Some(Recipe { method: CREATE, params: Detail::Object(params) })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Arc::new(Passthru(LayerParts::new(&self.name, base.device())));
        let uuid = base.uuid_or_derived(self.uuid, NAMESPACE);
        let below = || ("base_bdev_name", base.name().into());
        let name = || ("name", self.name.as_str().into());
        let params = vec![below(), name(), ("uuid", uuid.to_string().into())];
        let disk = PlainDisk::new(device).showing("passthru", vec![name(), below()]);
        let disk = disk.made_by(CREATE, params);
        Ok(vec![BdevSpec::new(&self.name, "passthru", MODULE, Arc::new(disk)).with_uuid(Some(uuid))])
    }
}

/// The device, shared by all threads.
struct Passthru(LayerParts);

impl Layer for Passthru {
    fn parts(&self) -> &LayerParts {
        &self.0
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PassthruLane { below }))
    }
}

/// The device's part on one thread.
struct PassthruLane {
    below: LaneId,
}

impl Lane for PassthruLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.relay(self.below, io);
        Submit::Taken
    }
}
