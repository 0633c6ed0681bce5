//! The configuration as the calls that restore it: what SPDK's `save_config` asks for, part by part.
//!
//! Volumes are not in it, as their stores bring them back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spindle_bdev::{Bdev, Recipe};
use spindle_block::HistogramOptions;
use spindle_rpc::{BadParams, Method, RpcError, States, Table};

use super::common::Added;
use super::delay::UpdateLatency;
use super::limits::SetLimits;
use super::nbd::NewExport;
use super::scheduler;
use crate::control::Control;
use crate::settings::histograms::Asked;
use crate::settings::{bdev_options, iobuf, keyring, sockets};
use crate::values::Details;

/// Modules whose bdevs are one batch each, in SPDK's order; an empty batch is written too.
const BATCHES: [&str; 3] = ["malloc", "null", "aio"];

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let no_arguments =
        BadParams::new(RpcError::INVALID_PARAMS, "'framework_get_subsystems' requires no arguments");
    let arguments = BadParams::new(RpcError::INVALID_PARAMS, "Invalid arguments");
    table.add(Method::without("framework_get_subsystems", States::RUNTIME, no_arguments, get_subsystems))?;
    table.add(Method::with("framework_get_config", States::RUNTIME, arguments, get_config))
}

#[derive(Serialize)]
pub(super) struct Subsystem {
    /// Its name.
    pub(super) subsystem: &'static str,
    depends_on: &'static [&'static str],
}

/// The parts, each after those on which it depends.
pub(super) const SUBSYSTEMS: [Subsystem; 6] = [
    Subsystem { subsystem: "scheduler", depends_on: &[] },
    Subsystem { subsystem: "keyring", depends_on: &[] },
    Subsystem { subsystem: "iobuf", depends_on: &[] },
    Subsystem { subsystem: "sock", depends_on: &[] },
    Subsystem { subsystem: "bdev", depends_on: &["iobuf", "keyring", "sock"] },
    Subsystem { subsystem: "nbd", depends_on: &["bdev"] },
];

async fn get_subsystems(_: Control) -> Result<&'static [Subsystem], RpcError> {
    Ok(&SUBSYSTEMS)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    with_batches: Option<bool>,
}

/// A call.
#[derive(Serialize)]
struct Entry {
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Params>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Params {
    Bdev(Details),
    BdevOptions(bdev_options::Values),
    Iobuf(iobuf::Values),
    Scheduler {
        name: &'static str,
        /// In microseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        period: Option<u64>,
    },
    DefaultSocket {
        impl_name: &'static str,
    },
    Socket(SocketOptions),
    Key {
        name: String,
        path: PathBuf,
    },
    Examine {
        name: String,
    },
    Latency(UpdateLatency),
    Limits(SetLimits),
    QdSampling {
        name: String,
        period: u64,
    },
    Histogram(EnableHistogram),
    Listen {
        address: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<PathBuf>,
    },
    Export(NewExport),
}

#[derive(Serialize)]
struct SocketOptions {
    impl_name: &'static str,
    #[serde(flatten)]
    values: sockets::Values,
}

#[derive(Serialize)]
struct EnableHistogram {
    name: String,
    enable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    opc: Option<&'static str>,
    /// SPDK saves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    granularity: Option<u32>,
}

/// A call, or calls that may run at the same time.
#[derive(Serialize)]
#[serde(untagged)]
enum Step {
    One(Entry),
    Batch(Vec<Entry>),
}

async fn get_config(control: Control, params: GetConfig) -> Result<Vec<Step>, RpcError> {
    let steps = match params.name.as_str() {
        "scheduler" => {
            let period = control.scheduler().period(spindle_reactor::now());
            let period = Some(period).filter(|period| *period != 0);
            vec![one("framework_set_scheduler", Params::Scheduler { name: scheduler::STATIC, period })]
        }
        "iobuf" => vec![one("iobuf_set_options", Params::Iobuf(control.iobuf().get()))],
        "keyring" => keys(&control),
        "sock" => sockets(&control),
        "bdev" => bdevs(&control),
        "nbd" => nbd(&control),
        other => {
            let what = format!("Subsystem '{other}' not found; framework_get_subsystems lists them");
            return Err(RpcError::new(RpcError::INVALID_PARAMS, what));
        }
    };
    if params.with_batches == Some(true) {
        return Ok(steps);
    }
    let flat = steps.into_iter().flat_map(|step| match step {
        Step::One(entry) => vec![Step::One(entry)],
        Step::Batch(entries) => entries.into_iter().map(Step::One).collect(),
    });
    Ok(flat.collect())
}

fn one(method: &'static str, params: Params) -> Step {
    Step::One(Entry { method, params: Some(params) })
}

fn bdevs(control: &Control) -> Vec<Step> {
    let all = control.registry().bdevs();
    let entry = |Recipe { method, params }| Entry { method, params: Some(Params::Bdev(Details(params))) };
    let of = |bdev: &Bdev| bdev.disk().recipe(bdev).map(entry);
    let stands_alone = |bdev: &&Bdev| bdev.base().is_none() && !BATCHES.contains(&bdev.module());
    let mut steps = vec![one("bdev_set_options", Params::BdevOptions(control.bdev_options().get()))];
    let examined = control.registry().named_to_examine().into_iter();
    steps.extend(examined.map(|name| one("bdev_examine", Params::Examine { name })));
    steps.extend(all.iter().filter(stands_alone).filter_map(of).map(Step::One));
    // A bdev on another one is made when its base comes, and may be requested before.
    steps.extend(control.registry().virtual_recipes().into_iter().map(entry).map(Step::One));
    for module in BATCHES {
        let entries = all.iter().filter(|bdev| bdev.module() == module).filter_map(of);
        steps.push(Step::Batch(entries.collect()));
    }
    steps.extend(all.iter().flat_map(latencies));
    let settings = |bdev| [limits(bdev), histogram(control, bdev), qd_sampling(control, bdev)];
    steps.extend(all.iter().flat_map(settings).flatten());
    steps.push(Step::One(Entry { method: "bdev_wait_for_examine", params: None }));
    steps
}

fn keys(control: &Control) -> Vec<Step> {
    let step = |keyring::Key { name, path }| one("keyring_file_add_key", Params::Key { name, path });
    control.keyring().keys().into_iter().map(step).collect()
}

fn sockets(control: &Control) -> Vec<Step> {
    let default = Params::DefaultSocket { impl_name: sockets::DEFAULT };
    let options = sockets::IMPLEMENTATIONS.iter().filter_map(|impl_name| {
        let values = control.sockets().of(impl_name)?.get();
        Some(one("sock_impl_set_options", Params::Socket(SocketOptions { impl_name, values })))
    });
    std::iter::once(one("sock_set_default_impl", default)).chain(options).collect()
}

fn latencies(bdev: &Bdev) -> impl Iterator<Item = Step> {
    UpdateLatency::of(bdev).map(|params| one("bdev_delay_update_latency", Params::Latency(params)))
}

fn limits(bdev: &Bdev) -> Option<Step> {
    Some(one("bdev_set_qos_limit", Params::Limits(SetLimits::of(bdev)?)))
}

fn qd_sampling(control: &Control, bdev: &Bdev) -> Option<Step> {
    let period = control.queue_depths().of(bdev)?.period;
    let name = bdev.name().to_owned();
    Some(one("bdev_set_qd_sampling_period", Params::QdSampling { name, period }))
}

fn histogram(control: &Control, bdev: &Bdev) -> Option<Step> {
    let Asked { enabled: enable, kind: opc, options, .. } = control.histograms().of(bdev)?;
    let usual = HistogramOptions::default().granularity;
    let granularity = Some(options.granularity).filter(|granularity| *granularity != usual);
    let params = EnableHistogram { name: bdev.name().to_owned(), enable, opc, granularity };
    enable.then(|| one("bdev_enable_histogram", Params::Histogram(params)))
}

/// Exports whose bdev is a volume too: by then its store has been found.
fn nbd(control: &Control) -> Vec<Step> {
    let listen = control
        .nbd()
        .listeners()
        .into_iter()
        .map(|listener| Params::Listen { address: listener.address.to_string(), tls: listener.tls })
        .map(|params| one("nbd_listen", params));
    let exports = control.nbd().exports().into_iter().filter_map(NewExport::of);
    exports.map(|params| one("nbd_export", Params::Export(params))).chain(listen).collect()
}
