//! Histograms of the request times of a bdev.

use serde::{Deserialize, Serialize};
use spindle_bdev::{Bdev, IoType};
use spindle_block::{Histogram, HistogramOptions, Operation};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named};
use super::threads::TICK_RATE;
use crate::base64::base64;
use crate::control::Control;
use crate::settings::histograms::Asked;
use crate::values::refused;

/// Borders that one call may give.
const MOST_BORDERS: usize = 256;

/// The most buckets in each power of two, as a power of two itself.
const MOST_GRANULARITY: u8 = 15;

const NANOS_OF_MICRO: u64 = 1000;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_enable_histogram", runtime, decode, enable))?;
    table.add(Method::with("bdev_get_histogram", runtime, decode, get))?;
    table.add(Method::with("bdev_get_histogram_borders", runtime, decode, get_borders))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    name: String,
    enable: bool,
    opc: Option<String>,
    granularity: Option<u8>,
    /// A histogram has all times; a range without any is kept.
    min_nsec: Option<u64>,
    max_nsec: Option<u64>,
}

/// Operations that can be counted separately, with SPDK's names.
const OPERATIONS: [(&str, Operation); 11] = [
    ("read", Operation::Read),
    ("write", Operation::Write),
    ("unmap", Operation::Unmap),
    ("flush", Operation::Flush),
    ("reset", Operation::Reset),
    ("write_zeroes", Operation::WriteZeroes),
    ("compare", Operation::Compare),
    ("compare_and_write", Operation::CompareAndWrite),
    ("seek_hole", Operation::SeekHole),
    ("seek_data", Operation::SeekData),
    ("copy", Operation::Copy),
];

/// SPDK's name of a kind of request, and the operation, if bdevs here have it.
fn kind(name: &str) -> Result<(&'static str, Option<Operation>), RpcError> {
    if let Some((kind, operation)) = OPERATIONS.iter().find(|(known, _)| *known == name) {
        return Ok((kind, Some(*operation)));
    }
    if let Some(kind) = IoType::ALL.iter().find(|kind| kind.name() == name) {
        return Ok((kind.name(), None));
    }
    let names = OPERATIONS.map(|(name, _)| name).join(", ");
    Err(RpcError::new(RpcError::INTERNAL, format!("Invalid Io type: '{name}' is not one of {names}")))
}

async fn enable(control: Control, params: Enable) -> Result<bool, RpcError> {
    let bdev = control.registry().get(&params.name).map_err(refused)?;
    let kind = params.opc.as_deref().map(kind).transpose()?;
    let mut options = HistogramOptions::default();
    if let Some(granularity) = params.granularity {
        if granularity > MOST_GRANULARITY {
            let what = format!("'granularity' {granularity} is more than {MOST_GRANULARITY}; 7 is usual");
            return Err(RpcError::errno(Errno::INVAL, what));
        }
        options.granularity = granularity.into();
    }
    options.operation = kind.and_then(|(_, operation)| operation);
    // Of a kind that no bdev has there is nothing to count.
    let counts = params.enable && !matches!(kind, Some((_, None)));
    bdev.keep_histogram(counts.then_some(options)).await.map_err(refused)?;
    let asked = Asked {
        enabled: params.enable,
        kind: kind.map(|(name, _)| name),
        options,
        is_empty: params.min_nsec.unwrap_or(0) >= params.max_nsec.unwrap_or(u64::MAX),
    };
    control.histograms().set(&bdev, asked);
    Ok(true)
}

/// The histogram of a bdev, or SPDK's refusal. One that was ended is empty as long as nothing has the bdev open.
fn histogram(control: &Control, name: &str) -> Result<Histogram, RpcError> {
    let bdev: Bdev = control.registry().get(name).map_err(refused)?;
    let what = || format!("no histogram is kept of bdev '{name}'; call bdev_enable_histogram first");
    match control.histograms().of(&bdev) {
        Some(Asked { is_empty: true, .. }) => {
            let what = format!("the histogram of bdev '{name}' has no times; enable it with a longer range");
            Err(RpcError::errno(Errno::NOMEM, what))
        }
        Some(Asked { enabled: false, .. }) if !bdev.thread_statistics().is_empty() => {
            Err(RpcError::named(RpcError::INTERNAL, Errno::FAULT, what()))
        }
        Some(Asked { options, .. }) => Ok(bdev.histogram().unwrap_or_else(|| Histogram::new(options))),
        None => Err(RpcError::errno(Errno::NOMEM, what()).of_missing_object()),
    }
}

#[derive(Serialize)]
struct Whole {
    /// The counts as 64-bit numbers, little-endian, in base64.
    histogram: String,
    granularity: u32,
    min_range: u32,
    max_range: u32,
    tsc_rate: u64,
}

impl Whole {
    fn of(histogram: &Histogram) -> Whole {
        let granularity = histogram.options().granularity;
        let bytes: Vec<u8> = histogram.counts().iter().flat_map(|count| count.to_le_bytes()).collect();
        Whole {
            histogram: base64(&bytes),
            granularity,
            min_range: 0,
            max_range: u64::BITS - granularity,
            tsc_rate: TICK_RATE,
        }
    }
}

async fn get(control: Control, params: Named) -> Result<Whole, RpcError> {
    Ok(Whole::of(&histogram(&control, &params.name)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBorders {
    name: String,
    /// In microseconds, growing.
    borders: Vec<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Borders {
    Whole(Whole),
    Counts { borders_count: Vec<u64> },
}

/// For each border the requests that took less, and at the end all.
async fn get_borders(control: Control, params: GetBorders) -> Result<Borders, RpcError> {
    let GetBorders { name, borders } = params;
    if borders.len() > MOST_BORDERS {
        let what = format!(
            "'borders' has {} numbers, and {MOST_BORDERS} at most are taken; ask for bdev {name:?} in several calls",
            borders.len()
        );
        return Err(BadParams::DECODE_FAILED.error(what));
    }
    let histogram = histogram(&control, &name)?;
    if borders.is_empty() {
        return Ok(Borders::Whole(Whole::of(&histogram)));
    }
    let below = |border: &u64| {
        let nanos = u128::from(border.saturating_mul(NANOS_OF_MICRO));
        let buckets = histogram.counts().iter().enumerate();
        buckets
            .take_while(|(bucket, _)| histogram.end_of(*bucket).as_nanos() <= nanos)
            .map(|(_, count)| count)
            .sum()
    };
    let mut borders_count: Vec<u64> = borders.iter().map(below).collect();
    borders_count.push(histogram.total());
    Ok(Borders::Counts { borders_count })
}
