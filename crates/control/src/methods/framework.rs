//! The framework: its start, its reactors, its settings.

use serde::{Deserialize, Serialize};
use spindle_reactor::{Mode, OsThread, ReactorDump};
use spindle_rpc::{BadParams, Method, RpcError, State, States, Table};

use super::common::Added;
use super::threads;
use crate::control::Control;
use crate::settings::core_times::CoreTimes;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let no_parameters =
        BadParams::new(RpcError::INVALID_PARAMS, "framework_start_init requires no parameters");
    let no_arguments =
        BadParams::new(RpcError::INVALID_PARAMS, "`framework_get_reactors` requires no arguments");
    table.add(Method::ignoring("framework_wait_init", States::BOTH, wait_init))?;
    table.add(Method::without("framework_start_init", States::STARTUP, no_parameters, start_init))?;
    table.add(Method::without("framework_get_reactors", States::RUNTIME, no_arguments, get_reactors))?;
    let (name, bad) = ("framework_monitor_context_switch", BadParams::INVALID);
    table.add(Method::with_optional(name, States::RUNTIME, bad, monitor_context_switch))?;
    let enable = "framework_enable_cpumask_locksrequires no arguments";
    let disable = "framework_disable_cpumask_locksrequires no arguments";
    let refusal = |words| BadParams::new(RpcError::INVALID_PARAMS, words);
    let (name, refused) = ("framework_enable_cpumask_locks", refusal(enable));
    table.add(Method::without(name, States::BOTH, refused, enable_cpumask_locks))?;
    let (name, refused) = ("framework_disable_cpumask_locks", refusal(disable));
    table.add(Method::without(name, States::BOTH, refused, disable_cpumask_locks))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MonitorContextSwitch {
    enabled: Option<bool>,
}

#[derive(Serialize)]
struct Monitors {
    enabled: bool,
}

/// Kept and answered. Parameters without a value turn it off, as in SPDK.
async fn monitor_context_switch(
    control: Control,
    params: Option<MonitorContextSwitch>,
) -> Result<Monitors, RpcError> {
    let monitors = &control.framework().monitors_context_switches;
    if let Some(params) = params {
        monitors.set(params.enabled.unwrap_or(false));
    }
    Ok(Monitors { enabled: monitors.get() })
}

/// Takes the lock files of the cores that are not locked yet.
async fn enable_cpumask_locks(control: Control) -> Result<bool, RpcError> {
    control.core_locks().claim(control.runtime().cores()).map_err(|taken| {
        RpcError::new(RpcError::INTERNAL, format!("Failed to claim CPU core: {}: {taken}", taken.core()))
    })?;
    Ok(true)
}

async fn disable_cpumask_locks(control: Control) -> Result<bool, RpcError> {
    control.core_locks().release();
    Ok(true)
}

async fn wait_init(control: Control) -> Result<bool, RpcError> {
    control.phase().reached(State::Runtime).await;
    Ok(true)
}

/// Runs the rest of the configuration, if there is one; if that fails the application ends.
async fn start_init(control: Control) -> Result<bool, RpcError> {
    if control.framework().starting.replace(true) {
        return Err(RpcError::new(RpcError::INVALID_STATE, "the framework is being initialized already"));
    }
    control.scheduler().choose(spindle_reactor::now());
    let rest = control.framework().rest.take();
    if let Some(rest) = rest
        && let Err(what) = rest.await
    {
        control.framework().failure.replace(Some(what.clone()));
        control.runtime().stop(1);
        return Err(RpcError::new(RpcError::INTERNAL, what));
    }
    control.phase().set(State::Runtime);
    Ok(true)
}

#[derive(Serialize)]
struct Reactors {
    tick_rate: u64,
    pid: u32,
    reactors: Vec<Reactor>,
}

/// `busy` and `idle` are in nanoseconds since the runtime began; `busy` is the account from which `reactor_loads` takes its
/// share of the last second. `irq`, `sys` and `usr` are of the whole core since then, in hundredths of a second, as in SPDK.
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
    /// Since the reactor has it.
    elapsed: u64,
}

async fn get_reactors(control: Control) -> Result<Reactors, RpcError> {
    let dump = control.runtime().dump().await;
    let now = spindle_reactor::now().as_nanos();
    let times = control.core_clock().since_start();
    let of = |reactor: &ReactorDump| {
        let times = times.get(&reactor.core).copied().unwrap_or_default();
        Reactor::of(&control, reactor, now, times)
    };
    let reactors = dump.reactors.iter().map(of).collect();
    Ok(Reactors { tick_rate: threads::TICK_RATE, pid: std::process::id(), reactors })
}

impl Reactor {
    fn of(control: &Control, reactor: &ReactorDump, now: u64, times: CoreTimes) -> Reactor {
        let masks = threads::masks(control);
        let busy = reactor.busy.as_nanos() as u64;
        let lw_threads = reactor.threads.iter().map(|thread| LwThread {
            name: thread.name.clone(),
            id: thread.id,
            cpumask: masks.get(&thread.id).cloned().unwrap_or_default(),
            elapsed: thread.age.as_nanos() as u64,
        });
        Reactor {
            lcore: reactor.core,
            // Memory is not bound to nodes.
            numa_id: -1,
            tid: reactor.os_thread.map_or(0, OsThread::id),
            busy,
            idle: now.saturating_sub(busy),
            in_interrupt: reactor.mode != Mode::Poll,
            irq: times.interrupts,
            sys: times.system,
            usr: times.user,
            lw_threads: lw_threads.collect(),
        }
    }
}
