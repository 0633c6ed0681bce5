//! The scheduler: the only one moves no thread. A thread lives and dies on its reactor.

use serde::{Deserialize, Serialize};
use spindle_reactor::CpuSet;
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

/// The one scheduler.
pub(super) const STATIC: &str = "static";

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let refusal = |words| BadParams::new(RpcError::INVALID_PARAMS, words);
    let governor = refusal("'rpc_get_governor' requires no arguments");
    let scheduler = refusal("'rpc_get_scheduler' requires no arguments");
    let decode = refusal("spdk_json_decode_object failed");
    table.add(Method::without("framework_get_governor", States::RUNTIME, governor, get_governor))?;
    table.add(Method::without("framework_get_scheduler", States::BOTH, scheduler, get_scheduler))?;
    table.add(Method::with("framework_set_scheduler", States::BOTH, BadParams::INVALID, set_scheduler))?;
    table.add(Method::with("scheduler_set_options", States::STARTUP, BadParams::INVALID, set_options))?;
    table.add(Method::with("thread_set_cpumask", States::RUNTIME, decode, set_cpumask))
}

#[derive(Serialize)]
struct Governor {}

/// Always an error: there is no governor.
async fn get_governor(_: Control) -> Result<Governor, RpcError> {
    Ok(Governor {})
}

#[derive(Serialize)]
struct Scheduler {
    /// None before one is set, by a call or by the start of the framework.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler_name: Option<&'static str>,
    scheduler_period: u64,
    isolated_core_mask: String,
    scheduling_core: usize,
}

async fn get_scheduler(control: Control) -> Result<Scheduler, RpcError> {
    let scheduler = control.scheduler();
    Ok(Scheduler {
        scheduler_name: scheduler.is_chosen().then_some(STATIC),
        scheduler_period: scheduler.period(spindle_reactor::now()),
        isolated_core_mask: scheduler.isolated.get().to_string(),
        scheduling_core: scheduling_core(&control),
    })
}

/// The core that was set, or the first.
fn scheduling_core(control: &Control) -> usize {
    let first = control.runtime().cores().first().copied();
    control.scheduler().core.get().or(first).unwrap_or(0)
}

/// Other members are not looked at, such as the limits of SPDK's other schedulers: as with its static one.
#[derive(Deserialize)]
struct SetScheduler {
    name: String,
    period: Option<u64>,
    /// Threads and their cores, as "1:0,2:1".
    mappings: Option<String>,
}

/// The period is set first, also by a call that is refused then: so SPDK does it.
async fn set_scheduler(control: Control, params: SetScheduler) -> Result<bool, RpcError> {
    let now = spindle_reactor::now();
    control.scheduler().set_period(now, params.period.unwrap_or(0));
    if params.name != STATIC {
        let what = format!(
            "Unknown error -22: there is no scheduler '{}', as threads do not move; name 'static'",
            params.name
        );
        return Err(RpcError::new(RpcError::INTERNAL, what));
    }
    control.scheduler().choose(now);
    let mappings = params.mappings.iter().flat_map(|mappings| mappings.split(','));
    for mapping in mappings.filter(|mapping| !mapping.is_empty()) {
        check_mapping(&control, mapping)?;
    }
    Ok(true)
}

/// A thread may only be mapped to the core on which it is.
fn check_mapping(control: &Control, mapping: &str) -> Result<(), RpcError> {
    let refused = |what: &str| {
        let what = format!("Unknown error -22: '{mapping}' in 'mappings' {what}");
        Err(RpcError::new(RpcError::INTERNAL, what))
    };
    let parts =
        mapping.split_once(':').map(|(id, core)| (id.trim().parse::<u64>(), core.trim().parse::<usize>()));
    let Some((Ok(id), Ok(core))) = parts else {
        return refused("is not a thread's id and its core, as 1:0");
    };
    match control.runtime().threads().into_iter().find(|thread| thread.id() == id) {
        None => refused("names no thread; thread_get_stats lists them"),
        Some(thread) if thread.core() != core => {
            refused(&format!("names another core than {}, where the thread stays", thread.core()))
        }
        Some(_) => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    scheduling_core: Option<u32>,
    isolated_core_mask: Option<String>,
}

/// Kept and shown: as no thread moves, every core is left alone.
async fn set_options(control: Control, params: SetOptions) -> Result<bool, RpcError> {
    let refused =
        |words: &str, what: String| Err(RpcError::new(RpcError::INVALID_PARAMS, format!("{words}\n{what}")));
    let cores: CpuSet = control.runtime().cores().iter().copied().collect();
    let core = params.scheduling_core.map_or_else(|| scheduling_core(&control), |core| core as usize);
    if let Some(mask) = &params.isolated_core_mask {
        let words = "Invalid isolated core mask";
        let isolated: CpuSet = match mask.parse() {
            Ok(isolated) => isolated,
            Err(error) => return refused(words, format!("'{mask}' is not a mask: {error}")),
        };
        if isolated.contains(core) {
            let words = "Scheduling core cannot be included in isolated core mask.";
            return refused(words, format!("leave core {core} out of '{mask}', or set another core"));
        }
        if (isolated & cores) != isolated {
            let what = format!("'{mask}' has cores other than this daemon's, {cores}; leave the others out");
            return refused(words, what);
        }
        // As in SPDK, also if the core is refused.
        control.scheduler().isolated.set(isolated);
    }
    if !cores.contains(core) {
        let what = format!(
            "{core} is not one of this daemon's cores, {cores}; set 'scheduling_core' to one of them"
        );
        return refused("Invalid scheduling core.", what);
    }
    control.scheduler().core.set(Some(core));
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCpumask {
    id: u64,
    cpumask: String,
}

/// A thread's mask may only be set so that the thread stays where it is.
async fn set_cpumask(control: Control, params: SetCpumask) -> Result<bool, RpcError> {
    let SetCpumask { id, cpumask } = params;
    let Some(thread) = control.runtime().threads().into_iter().find(|thread| thread.id() == id) else {
        let what = format!("Thread {id} does not exist; thread_get_stats lists those there are");
        return Err(RpcError::new(RpcError::INVALID_PARAMS, what));
    };
    let cores: CpuSet = cpumask
        .parse()
        .map_err(|error| RpcError::new(RpcError::INTERNAL, format!("Invalid cpumask {cpumask}: {error}")))?;
    let reactors: CpuSet = control.runtime().cores().iter().copied().collect();
    if (cores & reactors).is_empty() {
        let what = format!(
            "No CPU is selected from reactor mask {reactors}: '{cpumask}' has none of them; add core {}, on which thread {id} \
             stays",
            thread.core()
        );
        return Err(RpcError::new(RpcError::INTERNAL, what));
    }
    if !cores.contains(thread.core()) {
        let what = format!("thread {id} lives on core {} and does not move; add that core", thread.core());
        return Err(RpcError::new(RpcError::INTERNAL, what));
    }
    Ok(true)
}
