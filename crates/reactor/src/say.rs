//! Reports of a runtime: panics, stalls, dumps, and what its parts do.
//!
//! Without a [`Reporter`] these reports are lines on standard error that begin with `spindle:`, except those about parts, which are dropped.

use std::fmt::{self, Arguments, Debug};
use std::sync::Arc;
use std::time::Duration;

use crate::Stall;

/// How long standard error has to accept a dump.
const DUMP_PATIENCE: Duration = Duration::from_millis(100);

/// The part of reports about the runtime itself.
const RUNTIME: &str = "runtime";

/// How much a report matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReportLevel {
    /// Something failed.
    Error,
    /// Something is not as it was meant to be.
    Warning,
    /// What a part does.
    Info,
}

/// Takes the reports of a runtime, for [`Builder::reporter`](crate::Builder::reporter).
///
/// Called on any OS thread of the runtime, also by reactors: it must not wait.
pub trait Reporter: Send + Sync + 'static {
    /// Whether reports of that level about a part are wanted. The text of others is not made.
    fn wants(&self, level: ReportLevel, part: &str) -> bool;

    /// Takes a report: `part` is "runtime", or what [`tell`](crate::tell) was called with.
    fn report(&self, level: ReportLevel, part: &'static str, text: &str);

    /// Takes a dump, of several lines, that was asked for by SIGUSR1.
    fn dump(&self, text: &str);

    /// Takes a call that has held a reactor longer than the watchdog's limit; the same one again when it has held it ten times
    /// as long. [`Stall::times`] is 0 for one that was not kept, as there are too many others. By default a warning for
    /// programmers is reported at the first, the tenth, the hundredth time.
    fn stall(&self, stall: &Stall) {
        if stall.is_milestone() && self.wants(ReportLevel::Warning, RUNTIME) {
            self.report(ReportLevel::Warning, RUNTIME, &stall.advice());
        }
    }
}

/// Where the reports of a runtime go.
#[derive(Clone, Default)]
pub(crate) struct Reports(Option<Arc<dyn Reporter>>);

impl Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reports(to a reporter)" } else { "Reports(to standard error)" })
    }
}

impl Reports {
    pub(crate) fn to(reporter: Arc<dyn Reporter>) -> Reports {
        Reports(Some(reporter))
    }

    /// Says one line about the runtime. If standard error is closed or its pipe is full, the line is dropped: the runtime
    /// goes on.
    pub(crate) fn say(&self, level: ReportLevel, what: Arguments<'_>) {
        match &self.0 {
            None => spindle_engine::report(&format!("spindle: {what}\n"), Duration::ZERO),
            Some(reporter) if reporter.wants(level, RUNTIME) => {
                reporter.report(level, RUNTIME, &what.to_string());
            }
            Some(_) => {}
        }
    }

    /// Says that a call has held a reactor.
    pub(crate) fn stall(&self, stall: &Stall) {
        match &self.0 {
            None if stall.is_milestone() => {
                self.say(ReportLevel::Warning, format_args!("{}", stall.advice()));
            }
            None => {}
            Some(reporter) => reporter.stall(stall),
        }
    }

    /// Says a dump.
    pub(crate) fn dump(&self, text: &str) {
        match &self.0 {
            None => spindle_engine::report(text, DUMP_PATIENCE),
            Some(reporter) => reporter.dump(text),
        }
    }

    /// The reporter, if it wants reports of that level about a part.
    pub(crate) fn interested_in(&self, level: ReportLevel, part: &str) -> Option<&Arc<dyn Reporter>> {
        self.0.as_ref().filter(|reporter| reporter.wants(level, part))
    }

    /// Says what a part does.
    pub(crate) fn tell(&self, part: &'static str, what: Arguments<'_>) {
        if let Some(reporter) = self.interested_in(ReportLevel::Info, part) {
            reporter.report(ReportLevel::Info, part, &what.to_string());
        }
    }
}
