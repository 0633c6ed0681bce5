//! Samples of the queue depth of bdevs, as `bdev_set_qd_sampling_period` asks for them.
//!
//! A task for each bdev that is sampled, on the app thread. It ends with its bdev.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use spindle_bdev::{Bdev, WeakBdev};
use spindle_reactor::{LocalJoinHandle, sleep, spawn_local};

/// The sums of the samples of a bdev. Times are in microseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sampled {
    /// Between two samples.
    pub(crate) period: u64,
    /// Requests at the last sample.
    pub(crate) depth: u64,
    /// Time at whose samples there was a request.
    pub(crate) io_time: u64,
    /// The same, each sample times its requests.
    pub(crate) weighted_io_time: u64,
}

struct Sampler {
    of: WeakBdev,
    sampled: Rc<Cell<Sampled>>,
    _task: LocalJoinHandle<()>,
}

/// The bdevs that are sampled, by name.
#[derive(Default)]
pub(crate) struct QueueDepths(RefCell<BTreeMap<String, Sampler>>);

impl QueueDepths {
    /// Samples a bdev at this period, in microseconds; 0 ends it. A bdev that is sampled already keeps its times.
    pub(crate) fn set(&self, bdev: &Bdev, period: u64) {
        let before = self.of(bdev);
        let mut samplers = self.0.borrow_mut();
        samplers.retain(|_, sampler| sampler.of.upgrade().is_some());
        if period == 0 {
            samplers.remove(bdev.name());
            return;
        }
        let sampled = Rc::new(Cell::new(Sampled { period, ..before.unwrap_or_default() }));
        let task = spawn_local(sample(bdev.downgrade(), sampled.clone())).cancel_on_drop();
        samplers.insert(bdev.name().to_owned(), Sampler { of: bdev.downgrade(), sampled, _task: task });
    }

    /// The sums of the samples; `None` for a bdev that is not sampled.
    pub(crate) fn of(&self, bdev: &Bdev) -> Option<Sampled> {
        let samplers = self.0.borrow();
        let sampler = samplers.get(bdev.name())?;
        (sampler.of.upgrade().as_ref() == Some(bdev)).then(|| sampler.sampled.get())
    }
}

async fn sample(of: WeakBdev, sampled: Rc<Cell<Sampled>>) {
    let period = sampled.get().period;
    loop {
        sleep(Duration::from_micros(period)).await;
        let Some(bdev) = of.upgrade() else { return };
        let depth = bdev.statistics().in_flight;
        let before = sampled.get();
        let busy = if depth > 0 { period } else { 0 };
        sampled.set(Sampled {
            depth,
            io_time: before.io_time.saturating_add(busy),
            weighted_io_time: before.weighted_io_time.saturating_add(busy.saturating_mul(depth)),
            ..before
        });
    }
}
