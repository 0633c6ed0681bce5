//! The runtime: one reactor per core, with lightweight threads that share nothing and send messages.
//!
//! A [`Runtime`] owns its reactors; the only global is one thread-local pointer to the Spindle thread that
//! the OS thread is running now. A [`Thread`] is a handle: any thread can send to it, call it and await it;
//! it cannot be polled. The running half (`ThreadCore`) is `!Send` and private to its reactor, so that it
//! cannot run anywhere else: the program of spdk/spdk#3237 cannot be written.
//!
//! Waiting is `.await`: [`Thread::run`] makes and runs a future *there* and brings its result *here*.
//!
//! Not promised: an order between messages of different senders, and preemption. A task or poller that
//! does not return keeps its core.

#![forbid(unsafe_code)]

mod caught;
mod diagnosis;
mod error;
mod local;
mod message;
mod mode;
mod reactor;
mod runtime;
mod say;
mod shared;
mod task;
mod thread;
mod time;

pub use diagnosis::dump::{ChannelDump, Dump, PollerInfo, ReactorDump, TaskDump, ThreadDump};
pub use diagnosis::stall::Stall;
pub use error::{BuildError, CreateError, Panicked, RunError, ThreadGone};
pub use local::ops::{OpId, OpSink};
pub use message::join::{JoinHandle, LocalJoinHandle};
pub use message::run::Run;
pub use message::thread::Thread;
pub use mode::Mode;
pub use runtime::builder::Builder;
pub use runtime::handle::Handle;
pub use runtime::hangups::Hangups;
pub use runtime::pending_dump::PendingDump;
pub use runtime::runner::ThreadRunner;
pub use runtime::stop::StopRequested;
pub use runtime::{Running, Runtime};
pub use say::{ReportLevel, Reporter};
pub use shared::lock_state::LockAction;
pub use shared::wait_list::{WaitList, WaitPlace};
pub use spindle_engine::{CpuSet, EngineKind, OsThread, SystemCalls, Time};
pub use task::poller_cell::{Busy, Wake};
pub use thread::context::{
    clock, current_cpu, extension, now, random, reactor_index, reactor_loads, report, spawn_local, tell,
    waits_for, waits_for_this, yield_now,
};
pub use thread::failed_accepts::FailedAccepts;
pub use thread::hold::Hold;
pub use thread::io_device::{ChannelError, IoChannel, IoDevice, UnregisterError, VisitError};
pub use thread::lock::{Lock, LockFault, LockGuard};
pub use thread::op::{cancel_op, hurry_op, op, submit_op};
pub use thread::poller::Poller;
pub use thread::results::{Results, results};
pub use thread::sleep::{Elapsed, Interval, Sleep, interval, sleep, timeout};
