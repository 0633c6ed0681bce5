//! Runs the work of a writing command: one Spindle thread, stepped on the process's main thread.
//!
//! SIGINT, SIGTERM and SIGHUP ask the work to stop, so that it can leave the store in order; a second one
//! ends the process at once, as a crash would, and the next load recovers the store. SIGUSR1 prints what the
//! thread does. Not promised: an early end of work that never checks its [`Stop`].

use crate::cli::failure::Failure;
use crate::cli::output::note;
use spindle_engine::{Bell, Signal, Signals, StopRequest, StopRequests, Time};
use spindle_reactor::{Busy, EngineKind, ThreadRunner, timeout};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a signal may remain unnoticed while the work waits.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The signals that ask for a stop, and the exit code of each.
const CODES: [(Signal, u8); 3] = [(Signal::Interrupt, 130), (Signal::Terminate, 143), (Signal::Hangup, 129)];

/// The request to stop: its exit code, 0 if there is none. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicU8>);

impl Stop {
    /// As after a signal.
    #[cfg(test)]
    pub(super) fn asked(code: u8) -> Stop {
        Stop(Arc::new(AtomicU8::new(code)))
    }

    /// An error if the work was asked to stop.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(Failure::Interrupted { code }),
        }
    }

    /// Does some work to its end, or drops it with an error once a stop is asked for.
    pub(super) async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            self.check()?;
            if let Ok(done) = timeout(LONGEST_WAIT, work.as_mut()).await {
                return Ok(done);
            }
        }
    }
}

/// Runs the work to its end on a Spindle thread that this OS thread steps.
pub(super) fn run<F, T>(work: F) -> Result<T, Failure>
where
    F: AsyncFnOnce(Stop) -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    let kind = EngineKind::from_env().map_err(|error| Failure::Usage(error.to_string()))?;
    if let EngineKind::Sim(_) = kind {
        let why = "a simulated world has no image files: unset SPINDLE_ENGINE, or set it to auto";
        return Err(Failure::Usage(why.into()));
    }
    let engine = |error: &dyn std::fmt::Display| Failure::Engine(error.to_string());
    let mut runner = ThreadRunner::new("spindle blob", kind).map_err(|error| engine(&error))?;
    let bell = Bell::new().map_err(|error| engine(&error))?;
    let asked = [Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::User1];
    let signals = Signals::take("spindle blob", &asked, bell.unparker());
    let signals = signals.map_err(|error| engine(&error))?;
    let (stop, mut requests) = (Stop::default(), StopRequests::default());
    let asked = stop.clone();
    let mut job = pin!(runner.thread().spawn(async move || work(asked).await));
    loop {
        if let Poll::Ready(ended) = job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return ended.unwrap_or_else(|error| Err(engine(&error)));
        }
        handle(&signals, &mut requests, bell.now(), &stop);
        if signals.arrived(Signal::User1) > 0 {
            note(&runner.dump().to_string());
        }
        if runner.step() == Busy::No {
            runner.park(Some(LONGEST_WAIT));
        }
    }
}

/// Turns signals that have arrived into a request to stop; a second request ends the process.
fn handle(signals: &Signals, requests: &mut StopRequests, now: Time, stop: &Stop) {
    for (signal, code) in CODES {
        for _ in 0..signals.arrived(signal) {
            // The first signal's code stays.
            let _ = stop.0.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
            match requests.came(now) {
                StopRequest::First => note("stopping: leaving the store in order; once more to stop at once"),
                StopRequest::Same => {}
                StopRequest::Again => {
                    note("stopped at once: the next command on the store recovers it");
                    std::process::exit(stop.0.load(Ordering::Relaxed).into());
                }
            }
        }
    }
}

/// Runs a test's work to its end on a reactor of a simulation.
#[cfg(test)]
pub(super) fn run_simulated<F, T>(work: F) -> T
where
    F: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let simulation = spindle_reactor::Runtime::builder().reactors(1).engine(EngineKind::Sim(1));
    simulation.build().unwrap().run(work).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_reactor::{sleep, spawn_local};

    #[test]
    fn work_that_waits_ends_once_a_stop_is_asked_for_and_other_work_at_its_own_end() {
        let ended = run_simulated(async || {
            let stop = Stop::default();
            assert_eq!(stop.or(async { sleep(10 * LONGEST_WAIT).await }).await.unwrap(), ());
            let asked = stop.clone();
            drop(spawn_local(async move {
                sleep(3 * LONGEST_WAIT).await;
                asked.0.store(143, Ordering::Relaxed);
            }));
            stop.or(std::future::pending::<()>()).await
        });
        assert!(matches!(ended, Err(Failure::Interrupted { code: 143 })));
    }
}
