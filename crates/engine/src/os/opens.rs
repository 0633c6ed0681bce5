//! The opens of one engine that may be given up, each from its submission until it has failed or its file is
//! closed.
//!
//! Part of the workers' queue, under its lock. An open that was given up may hold a file that the same caller
//! opens again: the later open waits for it.

use std::collections::BTreeMap;

use crate::{Asker, Op};

/// The opens by the numbers of their jobs, which are in the order of submission.
#[derive(Default)]
pub(crate) struct Opens(BTreeMap<u64, Asker>);

impl Opens {
    /// Notes a job if it is an open with an asker.
    pub(crate) fn begin(&mut self, number: u64, op: &Op) {
        if let Op::Open { options } = op
            && let Some(asker) = &options.asker
        {
            self.0.insert(number, asker.clone());
        }
    }

    /// The open has failed or was cancelled, or its file is closed.
    pub(crate) fn end(&mut self, number: u64) {
        self.0.remove(&number);
    }

    /// Whether an open submitted before `number` was given up and is not over.
    pub(crate) fn any_given_up_before(&self, number: u64) -> bool {
        self.0.range(..number).any(|(_, asker)| asker.has_given_up())
    }
}
