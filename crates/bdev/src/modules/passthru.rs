//! `bdev_passthru_*`: a bdev that passes every request on to another, unchanged.
//!
//! A minimal but complete module, to copy: `docs/write-a-bdev.md` explains one like it.

use std::sync::Arc;

use spindle_block::{Cx, Device, DeviceState, Io, Lane, LaneCx, LaneId, Layer, OpenError, Submit};
use uuid::Uuid;

use crate::{Base, Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Recipe, Registry, Virtual};

/// The module's name.
pub const MODULE: &str = "passthru";

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

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Passthru { name: self.name.clone(), below: base.device(), state: DeviceState::new() };
        let disk = Arc::new(PassthruDisk { device: Arc::new(device), base: base.name().to_owned() });
        let spec = BdevSpec::new(&self.name, "passthru", MODULE, disk);
        Ok(vec![spec.with_uuid(Some(base.derive_uuid(NAMESPACE))).with_uuid(self.uuid)])
    }
}

/// The module's side of the bdev.
struct PassthruDisk {
    device: Arc<Passthru>,
    base: String,
}

impl Disk for PassthruDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        let members =
            vec![("name", self.device.name.clone().into()), ("base_bdev_name", self.base.clone().into())];
        Box::pin(std::future::ready(Detail::Object(vec![("passthru", Detail::Object(members))])))
    }

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let params = vec![
            ("base_bdev_name", self.base.clone().into()),
            ("name", bdev.name().into()),
            ("uuid", bdev.uuid().to_string().into()),
        ];
        Some(Recipe { method: "bdev_passthru_create", params: Detail::Object(params) })
    }
}

/// The device, shared by all threads.
struct Passthru {
    name: String,
    below: Arc<dyn Device>,
    state: DeviceState,
}

impl Layer for Passthru {
    fn name(&self) -> &str {
        &self.name
    }

    fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }

    fn state(&self) -> &DeviceState {
        &self.state
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
        cx.forward(self.below, io, [0, 0]);
        Submit::Taken
    }
}
