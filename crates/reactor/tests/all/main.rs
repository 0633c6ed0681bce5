//! Threads, messages, tasks, pollers and channels, as their callers see them. One binary for the tests of the crate: it links once.
//! Beside it stand the tests that need a process of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ends;
mod fairness;
mod idle;
mod io_device;
mod join;
mod lock;
mod operations;
mod panics;
mod reports;
mod rules;
mod runtime;
mod stress;
mod timers;

use spindle_reactor::{EngineKind, Runtime};

fn on_one_reactor(test: impl Fn(Runtime)) {
    test(Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap());
    for seed in 0..10 {
        test(Runtime::builder().reactors(1).engine(EngineKind::Sim(seed)).build().unwrap());
    }
}
