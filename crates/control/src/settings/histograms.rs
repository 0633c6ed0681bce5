//! What the last call of `bdev_enable_histogram` asked for, by bdev.

use std::cell::RefCell;
use std::collections::BTreeMap;

use spindle_bdev::{Bdev, WeakBdev};
use spindle_block::HistogramOptions;

/// What a call asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) enabled: bool,
    /// SPDK's name of the only kind of request that is counted.
    pub(crate) kind: Option<&'static str>,
    pub(crate) options: HistogramOptions,
    /// The range of times has none in it.
    pub(crate) is_empty: bool,
}

/// The last call of each bdev.
#[derive(Default)]
pub(crate) struct Histograms(RefCell<BTreeMap<String, (WeakBdev, Asked)>>);

impl Histograms {
    pub(crate) fn set(&self, bdev: &Bdev, asked: Asked) {
        let mut known = self.0.borrow_mut();
        known.retain(|_, (of, _)| of.upgrade().is_some());
        known.insert(bdev.name().to_owned(), (bdev.downgrade(), asked));
    }

    /// `None` if nothing was asked for.
    pub(crate) fn of(&self, bdev: &Bdev) -> Option<Asked> {
        let known = self.0.borrow();
        let (of, asked) = known.get(bdev.name())?;
        (of.upgrade().as_ref() == Some(bdev)).then_some(*asked)
    }
}
