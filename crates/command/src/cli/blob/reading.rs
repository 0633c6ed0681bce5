//! Commands that only read run on the process's main thread without a reactor; this answers SIGUSR1 beside them.

use crate::cli::failure::Failure;
use crate::cli::output::note;
use spindle_engine::{Bell, Signal, Signals, spawn_pinned};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs the work of a reading command. SIGUSR1 prints a line that says what it does.
pub(super) fn attended<T>(command: &'static str, work: impl FnOnce() -> T) -> T {
    // If this fails, the work is still done: the signal is ignored then.
    let watch = Watch::start(command);
    let done = work();
    drop(watch);
    done
}

/// The OS thread that waits for the signal; ends when dropped.
struct Watch {
    bell: Arc<Bell>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(command: &'static str) -> Result<Watch, Failure> {
        let engine = |error: &dyn std::fmt::Display| Failure::Engine(error.to_string());
        let bell = Arc::new(Bell::new().map_err(|error| engine(&error))?);
        let signals = Signals::take(command, &[Signal::User1], bell.unparker());
        let signals = signals.map_err(|error| engine(&error))?;
        let over = Arc::new(AtomicBool::new(false));
        let (rung, ended) = (bell.clone(), over.clone());
        let run = move || {
            while !ended.load(Ordering::Acquire) {
                rung.wait(None);
                if signals.arrived(Signal::User1) > 0 {
                    note(&format!(
                        "spindle blob {command} reads the image on its main thread: no reactor runs here"
                    ));
                }
            }
        };
        spawn_pinned("signals", None, run).map_err(|error| engine(&error))?;
        Ok(Watch { bell, over })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.bell.unparker().unpark();
    }
}
