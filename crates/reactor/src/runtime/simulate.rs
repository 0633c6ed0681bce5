//! A whole runtime in simulation: its reactors take turns on one OS thread, in the order picked by the seed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use spindle_engine::sim::World;

use crate::diagnosis::dump::Dump;
use crate::error::RunError;
use crate::message::join::JoinHandle;
use crate::reactor::Reactor;
use crate::runtime::{Runtime, stopped};

/// How long an idle simulated world waits for other OS threads, in real time, before that is a deadlock.
const DEADLOCK_WAIT: Duration = Duration::from_millis(200);

/// The reactors of a simulation, by number: in the world each has its own core, even if the runtime's list
/// makes some share one.
type Simulated = BTreeMap<usize, Reactor>;

fn simulated_reactors(world: &World, runtime: &Runtime) -> Simulated {
    let make = |index| {
        let driver = Box::new(world.driver(index));
        (index, Reactor::new(runtime.shared.clone(), index, driver, true))
    };
    (0..runtime.shared.cores.len()).map(make).collect()
}

/// Gives one turn to the reactor that the seed picks. False if none can run.
fn simulate_turn(world: &World, reactors: &mut Simulated) -> bool {
    let Some(index) = world.next_core() else { return false };
    let Some(reactor) = reactors.get_mut(&index) else { return false };
    let busy = reactor.turn();
    reactor.go_on();
    if reactor.is_finished() {
        reactor.close();
        reactors.remove(&index);
    } else if !busy {
        reactor.rest();
    }
    true
}

/// Runs a runtime that was started beside another program, until its stop.
pub(crate) fn simulate(world: &World, runtime: &Runtime) {
    let mut reactors = simulated_reactors(world, runtime);
    while !reactors.is_empty() {
        if !simulate_turn(world, &mut reactors) {
            world.wait_for_unpark(None);
        }
    }
}

/// Runs the whole runtime to the end of main, on this OS thread.
pub(crate) fn simulate_main<T: Send + 'static>(
    world: &World,
    runtime: &Runtime,
    mut main: JoinHandle<T>,
) -> Result<T, RunError> {
    let mut reactors = simulated_reactors(world, runtime);
    let mut result = None;
    while !reactors.is_empty() {
        let went_on = simulate_turn(world, &mut reactors) || world.wait_for_unpark(Some(DEADLOCK_WAIT));
        if result.is_some() {
            continue;
        }
        // Polled after every turn, so no waker is needed.
        if let Poll::Ready(ended) = Pin::new(&mut main).poll(&mut Context::from_waker(Waker::noop())) {
            result = Some(ended.map_err(|error| stopped(error, &runtime.shared)));
            runtime.shared.shut_down();
        } else if !went_on {
            let dump = Dump::of(reactors.values()).to_string();
            result = Some(Err(RunError::Deadlock { dump }));
            runtime.shared.shut_down();
        }
    }
    result.unwrap_or(Err(RunError::Cancelled))
}
