//! How much to measure.

use super::{Progress, clock};

/// How much to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Samples of each figure.
    pub(crate) samples: u64,
    /// Operations in a sample.
    pub(crate) batch: u64,
    /// Interleaved pairs of each figure that has them.
    pub(crate) pairs: u64,
    /// A short run with small numbers, as a test of the measurement.
    pub(crate) quick: bool,
    /// Shows what is being measured.
    pub(crate) progress: Progress,
}

impl Effort {
    /// Enough for comparisons.
    pub(crate) fn full() -> Effort {
        Effort { samples: 200, batch: 1000, pairs: 201, quick: false, progress: Progress::new() }
    }

    /// A few samples, as a test of the measurement.
    pub(crate) fn quick() -> Effort {
        Effort { samples: 3, batch: 16, pairs: 2, quick: true, progress: Progress::new() }
    }
}

impl Effort {
    /// The numbers of up to `most` samples and of one warm-up before them. On a busy machine it ends sooner,
    /// after 2 s, but not before the third sample.
    pub(super) fn rounds(self, most: u64) -> impl Iterator<Item = u64> {
        let end = clock::wall_ns() + 2_000_000_000;
        (0..most + 1).take_while(move |&round| round <= 3 || clock::wall_ns() < end)
    }
}
