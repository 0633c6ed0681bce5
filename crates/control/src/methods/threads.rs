//! Lightweight threads: their counts, pollers and channels.

use std::collections::BTreeMap;

use serde::Serialize;
use spindle_reactor::{CpuSet, PollerInfo, Thread, ThreadDump};
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use crate::control::Control;

/// Ticks in a second: times are in nanoseconds.
pub(super) const TICK_RATE: u64 = 1_000_000_000;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let stats = BadParams::new(RpcError::INVALID_PARAMS, "'thread_get_stats' requires no arguments");
    let channels = BadParams::new(RpcError::INVALID_PARAMS, "'thread_get_io_channels' requires no arguments");
    let pollers = BadParams::new(RpcError::INVALID_PARAMS, "'thread_get_pollers' requires no arguments");
    table.add(Method::without("thread_get_stats", States::RUNTIME, stats, get_stats))?;
    table.add(Method::without("thread_get_pollers", States::RUNTIME, pollers, get_pollers))?;
    table.add(Method::without("thread_get_io_channels", States::RUNTIME, channels, get_io_channels))
}

/// An answer about all threads.
#[derive(Serialize)]
struct Threads<T> {
    tick_rate: u64,
    threads: Vec<T>,
}

/// The cores of the living threads in hex, by id.
pub(super) fn masks(control: &Control) -> BTreeMap<u64, String> {
    let reactors: CpuSet = control.runtime().cores().iter().copied().collect();
    let mask = |thread: &Thread| (thread.cores() & reactors).to_string();
    control.runtime().threads().iter().map(|thread| (thread.id(), mask(thread))).collect()
}

async fn of_all<T>(control: &Control, f: impl Fn(ThreadDump) -> T) -> Threads<T> {
    let dump = control.runtime().dump().await;
    let mut threads: Vec<ThreadDump> =
        dump.reactors.into_iter().flat_map(|reactor| reactor.threads).collect();
    threads.sort_by_key(|thread| thread.id);
    Threads { tick_rate: TICK_RATE, threads: threads.into_iter().map(f).collect() }
}

#[derive(Serialize)]
struct Stats {
    name: String,
    id: u64,
    cpumask: String,
    busy: u64,
    idle: u64,
    active_pollers_count: usize,
    timed_pollers_count: usize,
    paused_pollers_count: usize,
}

async fn get_stats(control: Control) -> Result<Threads<Stats>, RpcError> {
    let masks = masks(&control);
    let now = spindle_reactor::now().as_nanos();
    let stats = |thread: ThreadDump| {
        let busy = thread.busy.as_nanos() as u64;
        let count = |which: &dyn Fn(&PollerInfo) -> bool| thread.pollers.iter().filter(|p| which(p)).count();
        Stats {
            cpumask: masks.get(&thread.id).cloned().unwrap_or_default(),
            busy,
            idle: now.saturating_sub(busy),
            active_pollers_count: count(&|poller| !poller.paused && poller.kind == "active"),
            timed_pollers_count: count(&|poller| !poller.paused && poller.kind == "timed"),
            paused_pollers_count: count(&|poller| poller.paused),
            id: thread.id,
            name: thread.name.clone(),
        }
    };
    Ok(of_all(&control, stats).await)
}

#[derive(Serialize)]
struct Pollers {
    name: String,
    id: u64,
    active_pollers: Vec<Poller>,
    timed_pollers: Vec<Poller>,
    paused_pollers: Vec<Poller>,
}

#[derive(Serialize)]
struct Poller {
    name: String,
    id: usize,
    state: &'static str,
    run_count: u64,
    busy_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_ticks: Option<u64>,
}

async fn get_pollers(control: Control) -> Result<Threads<Pollers>, RpcError> {
    let pollers = |thread: ThreadDump| {
        let mut answer = Pollers {
            name: thread.name,
            id: thread.id,
            active_pollers: Vec::new(),
            timed_pollers: Vec::new(),
            paused_pollers: Vec::new(),
        };
        for (index, info) in thread.pollers.into_iter().enumerate() {
            let timed = info.kind == "timed";
            let poller = Poller {
                name: info.name,
                id: index + 1,
                state: if info.paused { "paused" } else { "waiting" },
                run_count: info.runs.0,
                busy_count: info.runs.1,
                period_ticks: info.period.filter(|_| timed).map(|period| period.as_nanos() as u64),
            };
            match (info.paused, timed) {
                (true, _) => answer.paused_pollers.push(poller),
                (false, true) => answer.timed_pollers.push(poller),
                (false, false) => answer.active_pollers.push(poller),
            }
        }
        answer
    };
    Ok(of_all(&control, pollers).await)
}

#[derive(Serialize)]
struct Channels {
    name: String,
    io_channels: Vec<ChannelInfo>,
}

#[derive(Serialize)]
struct ChannelInfo {
    name: String,
    #[serde(rename = "ref")]
    handles: usize,
}

async fn get_io_channels(control: Control) -> Result<Threads<Channels>, RpcError> {
    let channels = |thread: ThreadDump| {
        let channels = thread.channels.into_iter();
        let channels = channels.map(|channel| ChannelInfo { name: channel.device, handles: channel.handles });
        Channels { name: thread.name, io_channels: channels.collect() }
    };
    Ok(of_all(&control, channels).await)
}
