//! One simulated reactor's driver.

use crate::{Completion, Driver, Op, Time, Token, Unparker};

/// The driver of one simulated core, made by [`World::driver`](super::World::driver).
pub struct SimDriver(());

impl Driver for SimDriver {
    fn now(&mut self) -> Time {
        todo!()
    }
    fn submit(&mut self, _token: Token, _op: Op) {
        todo!()
    }
    fn cancel(&mut self, _token: Token) {
        todo!()
    }
    fn poll(&mut self, _out: &mut Vec<Completion>) {
        todo!()
    }
    fn park(&mut self, _deadline: Option<Time>) {
        todo!()
    }
    fn unparker(&self) -> Unparker {
        todo!()
    }
    fn choose(&mut self, _n: usize) -> usize {
        todo!()
    }
    fn random(&mut self) -> u64 {
        todo!()
    }
    fn cpu(&self) -> usize {
        todo!()
    }
    fn in_flight(&self) -> usize {
        todo!()
    }
}
