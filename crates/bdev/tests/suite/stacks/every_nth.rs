//! A module that fails every n-th request.

use std::sync::Arc;

use spindle_bdev::{Base, Bdev, BdevError, BdevSpec, PlainDisk, Recipe, Registry, Virtual};
use spindle_block::{Effect, Faulty, Operation};

/// Makes one on a base.
pub async fn create(registry: &Registry, n: u64, base: &str) -> Bdev {
    registry.create_virtual(Spec { n, base: base.into() }).await.unwrap().swap_remove(0)
}

struct Spec {
    n: u64,
    base: String,
}

impl Virtual for Spec {
    fn module(&self) -> &'static str {
        "every nth"
    }
    fn key(&self) -> &str {
        "N"
    }
    fn base(&self) -> &str {
        &self.base
    }
    fn recipe(&self) -> Option<Recipe> {
        None
    }
    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Faulty::new("N", base.device());
        device.inject_every(&Operation::ALL, self.n, Effect::Fail);
        Ok(vec![BdevSpec::new("N", "every nth", "every nth", Arc::new(PlainDisk::new(device)))])
    }
}
