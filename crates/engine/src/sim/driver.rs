//! One simulated reactor's driver.

use std::sync::Arc;

use super::World;
use super::world::SimUnpark;
use crate::{Completion, Driver, Op, SystemCalls, Time, Token, Unparker};

/// The driver of one simulated core, made by [`World::driver`].
///
/// [`park`](Driver::park) does not block: it marks the core as resting and, when every core rests, moves the
/// clock. Dropping the driver drops its operations and removes the core from the world.
pub struct SimDriver {
    world: World,
    core: usize,
    unpark: Arc<SimUnpark>,
}

impl World {
    /// The driver of simulated core `core`. Panics if that core has one: two reactors would share it.
    pub fn driver(&self, core: usize) -> SimDriver {
        SimDriver { world: self.clone(), core, unpark: self.add_core(core) }
    }
}

impl SimDriver {
    /// The world it belongs to.
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl Driver for SimDriver {
    fn now(&mut self) -> Time {
        let mut inner = self.world.inner();
        inner.look();
        inner.clock
    }

    fn submit(&mut self, token: Token, op: Op) {
        let refused = op.check(self.world.engine_id()).err();
        self.world.inner().submit(self.core, token, op, refused);
    }

    fn cancel(&mut self, token: Token) {
        self.world.inner().cancel(self.core, token);
    }

    fn hurry(&mut self, token: Token) {
        self.world.inner().hurry(self.core, token);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.world.inner().reap(self.core, out);
    }

    fn park(&mut self, deadline: Option<Time>) {
        self.world.inner().park(self.core, deadline);
    }

    fn unparker(&self) -> Unparker {
        self.unpark.clone()
    }

    fn choose(&mut self, n: usize) -> usize {
        self.world.choose(n)
    }

    fn random(&mut self) -> u64 {
        self.world.random()
    }

    fn cpu(&self) -> usize {
        self.core
    }

    fn in_flight(&self) -> usize {
        self.world.inner().in_flight(self.core)
    }

    fn system_calls(&self) -> SystemCalls {
        SystemCalls::default()
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.world.inner().abandon(self.core);
    }
}
