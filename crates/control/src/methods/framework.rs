//! The framework: its start, its reactors.

use serde::Serialize;
use spindle_reactor::{Mode, OsThread, ReactorDump};
use spindle_rpc::{BadParams, Method, RpcError, State, States, Table};

use super::{Added, threads};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let no_parameters =
        BadParams::new(RpcError::INVALID_PARAMS, "framework_start_init requires no parameters");
    let no_arguments =
        BadParams::new(RpcError::INVALID_PARAMS, "'framework_get_reactors' requires no arguments");
    table.add(Method::ignoring("framework_wait_init", States::BOTH, wait_init))?;
    table.add(Method::without("framework_start_init", States::STARTUP, no_parameters, start_init))?;
    table.add(Method::without("framework_get_reactors", States::RUNTIME, no_arguments, get_reactors))
}

async fn wait_init(control: Control) -> Result<bool, RpcError> {
    control.phase().reached(State::Runtime).await;
    Ok(true)
}

async fn start_init(control: Control) -> Result<bool, RpcError> {
    control.phase().set(State::Runtime);
    Ok(true)
}

#[derive(Serialize)]
struct Reactors {
    tick_rate: u64,
    pid: u32,
    reactors: Vec<Reactor>,
}

#[derive(Serialize)]
struct Reactor {
    lcore: usize,
    numa_id: i32,
    tid: u32,
    busy: u64,
    idle: u64,
    in_interrupt: bool,
    irq: u64,
    sys: u64,
    usr: u64,
    lw_threads: Vec<LwThread>,
}

#[derive(Serialize)]
struct LwThread {
    name: String,
    id: u64,
    cpumask: String,
    elapsed: u64,
}

async fn get_reactors(control: Control) -> Result<Reactors, RpcError> {
    let dump = control.runtime().dump().await;
    let now = spindle_reactor::now().as_nanos();
    let reactors = dump.reactors.iter().map(|reactor| Reactor::of(&control, reactor, now)).collect();
    Ok(Reactors { tick_rate: threads::TICK_RATE, pid: std::process::id(), reactors })
}

impl Reactor {
    fn of(control: &Control, reactor: &ReactorDump, now: u64) -> Reactor {
        let masks = threads::masks(control);
        let busy = reactor.busy.as_nanos() as u64;
        let lw_threads = reactor.threads.iter().map(|thread| LwThread {
            name: thread.name.clone(),
            id: thread.id,
            cpumask: masks.get(&thread.id).cloned().unwrap_or_default(),
            elapsed: thread.busy.as_nanos() as u64,
        });
        Reactor {
            lcore: reactor.core,
            // Memory is not bound to nodes.
            numa_id: -1,
            tid: reactor.os_thread.map_or(0, OsThread::id),
            busy,
            idle: now.saturating_sub(busy),
            in_interrupt: reactor.mode != Mode::Poll,
            irq: 0,
            sys: 0,
            usr: 0,
            lw_threads: lw_threads.collect(),
        }
    }
}
