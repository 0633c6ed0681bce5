//! Statistics of bdevs: counts and times of their requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spindle_bdev::Bdev;
use spindle_block::{
    DeviceState, ErrorCounts, IoErrorKind, OperationStatistics, Statistics, StatisticsReset,
};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::Added;
use super::threads::TICK_RATE;
use crate::control::Control;
use crate::settings::queue_depth::Sampled;
use crate::values::refused;

/// The most names in one call.
const MOST_NAMES: usize = 1024;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let decode = BadParams::DECODE_FAILED;
    table.add(Method::with_optional("bdev_get_iostat", States::RUNTIME, decode, get_iostat))?;
    table.add(Method::with_optional("bdev_reset_iostat", States::RUNTIME, decode, reset_iostat))?;
    let name = "bdev_set_qd_sampling_period";
    table.add(Method::with(name, States::RUNTIME, decode, set_qd_sampling_period))
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Reset {
    All,
    MaxMin,
    Error,
    None,
}

impl Reset {
    async fn apply(self, state: Option<&DeviceState>) {
        let what = match self {
            Reset::All => StatisticsReset::All,
            Reset::MaxMin => StatisticsReset::Extremes,
            Reset::Error => StatisticsReset::Errors,
            Reset::None => return,
        };
        if let Some(state) = state {
            state.reset_statistics(what).await;
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetIostat {
    names: Option<Vec<String>>,
    per_channel: Option<bool>,
    reset_mode: Option<Reset>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Iostat {
    Bdevs { tick_rate: u64, ticks: u64, bdevs: Vec<OfBdev> },
    Channels { tick_rate: u64, ticks: u64, name: String, channels: Vec<OfChannel> },
}

#[derive(Serialize)]
struct OfBdev {
    name: String,
    #[serde(flatten)]
    counts: Counts,
    io_error: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    queue_depth: Option<QueueDepth>,
}

/// Shown of a bdev whose queue depth is sampled.
#[derive(Serialize)]
struct QueueDepth {
    queue_depth_polling_period: u64,
    queue_depth: u64,
    io_time: u64,
    weighted_io_time: u64,
}

impl From<Sampled> for QueueDepth {
    fn from(sampled: Sampled) -> QueueDepth {
        QueueDepth {
            queue_depth_polling_period: sampled.period,
            queue_depth: sampled.depth,
            io_time: sampled.io_time,
            weighted_io_time: sampled.weighted_io_time,
        }
    }
}

#[derive(Serialize)]
struct OfChannel {
    thread_id: u64,
    #[serde(flatten)]
    counts: Counts,
    io_error: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Counts {
    bytes_read: u64,
    num_read_ops: u64,
    bytes_written: u64,
    num_write_ops: u64,
    bytes_unmapped: u64,
    num_unmap_ops: u64,
    bytes_copied: u64,
    num_copy_ops: u64,
    read_latency_ticks: u64,
    max_read_latency_ticks: u64,
    min_read_latency_ticks: u64,
    write_latency_ticks: u64,
    max_write_latency_ticks: u64,
    min_write_latency_ticks: u64,
    unmap_latency_ticks: u64,
    max_unmap_latency_ticks: u64,
    min_unmap_latency_ticks: u64,
    copy_latency_ticks: u64,
    max_copy_latency_ticks: u64,
    min_copy_latency_ticks: u64,
}

impl From<&Statistics> for Counts {
    fn from(statistics: &Statistics) -> Counts {
        let Statistics { read, write, unmap, copy, .. } = statistics;
        Counts {
            bytes_read: read.bytes,
            num_read_ops: read.operations,
            bytes_written: write.bytes,
            num_write_ops: write.operations,
            bytes_unmapped: unmap.bytes,
            num_unmap_ops: unmap.operations,
            bytes_copied: copy.bytes,
            num_copy_ops: copy.operations,
            read_latency_ticks: total(read),
            max_read_latency_ticks: longest(read),
            min_read_latency_ticks: shortest(read),
            write_latency_ticks: total(write),
            max_write_latency_ticks: longest(write),
            min_write_latency_ticks: shortest(write),
            unmap_latency_ticks: total(unmap),
            max_unmap_latency_ticks: longest(unmap),
            min_unmap_latency_ticks: shortest(unmap),
            copy_latency_ticks: total(copy),
            max_copy_latency_ticks: longest(copy),
            min_copy_latency_ticks: shortest(copy),
        }
    }
}

fn total(statistics: &OperationStatistics) -> u64 {
    statistics.latency.as_nanos() as u64
}

fn longest(statistics: &OperationStatistics) -> u64 {
    statistics.longest.as_nanos() as u64
}

/// The shortest time; 0 if there was no request.
fn shortest(statistics: &OperationStatistics) -> u64 {
    statistics.shortest.unwrap_or_default().as_nanos() as u64
}

/// The name of SPDK's status for a failure.
fn status(kind: IoErrorKind) -> &'static str {
    match kind {
        IoErrorKind::NoMemory => "nomem",
        IoErrorKind::Miscompare { .. } => "miscompare",
        IoErrorKind::Aborted => "aborted",
        IoErrorKind::Protocol(_) => "nvme_error",
        IoErrorKind::Device { .. } => "aio_error",
        _ => "failed",
    }
}

fn by_status(errors: ErrorCounts) -> BTreeMap<&'static str, u64> {
    let mut io_error = BTreeMap::new();
    for (kind, count) in errors {
        *io_error.entry(status(kind)).or_default() += count;
    }
    io_error
}

fn of_bdev(control: &Control, bdev: &Bdev) -> OfBdev {
    let device = bdev.disk().device();
    let (statistics, errors) = match device.state() {
        Some(state) => (state.statistics(), state.errors()),
        None => Default::default(),
    };
    let io_error = by_status(errors);
    let queue_depth = control.queue_depths().of(bdev).map(QueueDepth::from);
    OfBdev { name: bdev.name().to_owned(), counts: (&statistics).into(), io_error, queue_depth }
}

async fn get_iostat(control: Control, params: Option<GetIostat>) -> Result<Iostat, RpcError> {
    let GetIostat { names, per_channel, reset_mode } = params.unwrap_or_default();
    check_count(names.as_deref())?;
    let per_channel = per_channel == Some(true);
    if per_channel && names.as_ref().map(Vec::len) != Some(1) {
        return Err(RpcError::errno(Errno::INVAL, "'per_channel' needs 'names' with the name of one bdev"));
    }
    let bdevs = named(&control, names)?;
    let (tick_rate, ticks) = (TICK_RATE, spindle_reactor::now().as_nanos());
    let answer = if per_channel && let [bdev] = &bdevs[..] {
        let device = bdev.disk().device();
        let lanes = device.state().map(DeviceState::lane_statistics).unwrap_or_default();
        let channels = lanes.into_iter().map(|(thread, statistics, errors)| OfChannel {
            thread_id: thread.as_ref().map_or(0, spindle_reactor::Thread::id),
            counts: (&statistics).into(),
            io_error: by_status(errors),
        });
        Iostat::Channels { tick_rate, ticks, name: bdev.name().to_owned(), channels: channels.collect() }
    } else {
        Iostat::Bdevs { tick_rate, ticks, bdevs: bdevs.iter().map(|bdev| of_bdev(&control, bdev)).collect() }
    };
    for bdev in &bdevs {
        reset_mode.unwrap_or(Reset::None).apply(bdev.disk().device().state()).await;
    }
    Ok(answer)
}

fn check_count(names: Option<&[String]>) -> Result<(), RpcError> {
    match names.map_or(0, <[String]>::len) {
        0..=MOST_NAMES => Ok(()),
        more => {
            let what =
                format!("'names' has {more} names, and {MOST_NAMES} at most are taken; ask in several calls");
            Err(BadParams::DECODE_FAILED.error(what))
        }
    }
}

fn named(control: &Control, names: Option<Vec<String>>) -> Result<Vec<Bdev>, RpcError> {
    let registry = control.registry();
    let Some(names) = names else { return Ok(registry.bdevs()) };
    names.iter().map(|name| registry.get(name).map_err(refused)).collect()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetIostat {
    name: Option<String>,
    mode: Option<Reset>,
}

async fn reset_iostat(control: Control, params: Option<ResetIostat>) -> Result<bool, RpcError> {
    let ResetIostat { name, mode } = params.unwrap_or_default();
    if mode == Some(Reset::None) {
        // SPDK does not look for the bdev then.
        return Ok(true);
    }
    for bdev in named(&control, name.map(|name| vec![name]))? {
        mode.unwrap_or(Reset::All).apply(bdev.disk().device().state()).await;
    }
    Ok(true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetQdSamplingPeriod {
    name: String,
    /// In microseconds; 0 ends it.
    period: u64,
}

async fn set_qd_sampling_period(control: Control, params: SetQdSamplingPeriod) -> Result<bool, RpcError> {
    let bdev = control.registry().get(&params.name).map_err(refused)?;
    control.queue_depths().set(&bdev, params.period);
    Ok(true)
}
