//! Rules that every bdev must keep, for the tests of any module.
//!
//! [`check`] tries the rules on a bdev one by one, on the calling Spindle thread and on one that it creates.
//! It writes to the bdev and removes it at the end. It can find a broken rule, but cannot prove that none is
//! ever broken: also run it in simulation with many seeds.

mod contents;
mod requests;
mod subject;

use std::fmt;
use std::time::Duration;

use spindle_reactor::timeout;
use subject::{Rule, Subject};

use crate::Bdev;

/// The contents that a bdev keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Reads return what was written.
    Kept,
    /// Reads return anything: a bdev that stores nothing.
    Lost,
}

/// A broken rule.
#[derive(Debug, thiserror::Error)]
#[error("bdev {bdev:?} breaks the rule that {rule}: {what}")]
pub struct Violation {
    /// The name of the bdev.
    pub bdev: String,
    /// The rule.
    pub rule: &'static str,
    /// The observed behaviour.
    pub what: String,
}

/// How long a rule may take, which takes milliseconds: then a request is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The rules, in the order in which they are tried.
const RULES: [(&str, Rule); 12] = [
    ("its device has the size that it shows", requests::sizes_agree),
    ("what was written is read", contents::keeps_what_was_written),
    ("what lies beyond its end is refused", requests::refuses_what_it_does_not_have),
    ("zeroed and unmapped blocks read as it says, and their neighbours are left alone", contents::zeroes),
    ("a comparison finds the first byte that differs", contents::compares),
    ("copied blocks hold what their source held", contents::copies),
    ("every operation ends, also those that it does not support", requests::answers_every_operation),
    ("each of many requests ends once and has its own data", requests::ends_each_of_many_once),
    ("what one thread wrote another reads", contents::shares_between_threads),
    ("it takes no request while it is frozen, and goes on after the thaw", requests::freezes_and_goes_on),
    ("requests that are aborted or given up end, and leave it usable", requests::survives_aborts),
    ("a removal under load ends every request, and completes", requests::goes_under_load),
];

/// Tries every rule on a bdev of at least 64 blocks that nothing else has open. Destroys its contents, and
/// removes it at the end. Must be called on a Spindle thread.
///
/// # Errors
/// The first [`Violation`].
pub async fn check(bdev: &Bdev, contents: Contents) -> Result<(), Violation> {
    let violation = |rule, what| Violation { bdev: bdev.name().to_owned(), rule, what };
    let opened = Subject::open(bdev, contents);
    let subject = opened.map_err(|error| violation("it can be opened for writing", error.to_string()))?;
    for (rule, holds) in RULES {
        let held = timeout(PATIENCE, holds(&subject)).await;
        held.unwrap_or_else(|_| Err(lost())).map_err(|what| violation(rule, what))?;
    }
    Ok(())
}

fn lost() -> String {
    format!(
        "a request or the removal has not ended after {} s: some lane keeps or loses it",
        PATIENCE.as_secs()
    )
}

/// Describes a value that is not the one that a rule requires.
fn unlike(what: impl fmt::Display, found: impl fmt::Debug, wanted: impl fmt::Debug) -> String {
    format!("{what} gave {found:?}, not {wanted:?}")
}
