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

mod activity;
mod builder;
mod core;
mod current;
mod deadlines;
mod due;
mod dump;
mod error;
mod extensions;
mod foreign;
mod handle;
mod hold;
mod io_device;
mod join;
mod local;
mod lock;
mod lock_order;
mod lock_state;
mod lock_wait;
mod mode;
mod ops;
mod origins;
mod panic_hook;
mod pending_dump;
mod poller;
mod pollers;
mod port;
mod reactor;
mod ready;
mod reaped;
mod reply;
mod run;
mod runner;
mod runtime;
mod say;
mod shared;
mod simulate;
mod spent;
mod stop;
mod supervisor;
mod task;
mod thread;
mod timer;
mod wait;

pub use builder::Builder;
pub use current::{clock, current_cpu, extension, now, random, reactor_index, spawn_local, yield_now};
pub use dump::{ChannelDump, Dump, ReactorDump, TaskDump, ThreadDump};
pub use error::{BuildError, CreateError, Panicked, RunError, ThreadGone};
pub use handle::Handle;
pub use hold::Hold;
pub use io_device::{ChannelError, IoChannel, IoDevice, UnregisterError, VisitError};
pub use join::{JoinHandle, LocalJoinHandle};
pub use lock::{Lock, LockAction, LockFault, LockGuard};
pub use mode::Mode;
pub use ops::{OpId, OpSink, cancel_op, op, submit_op};
pub use pending_dump::PendingDump;
pub use poller::{Busy, Poller, PollerInfo, Wake};
pub use run::Run;
pub use runner::ThreadRunner;
pub use runtime::{Running, Runtime};
pub use spindle_engine::{CpuSet, EngineKind, OsThread, SystemCalls, Time};
pub use stop::StopRequested;
pub use supervisor::Stall;
pub use thread::Thread;
pub use timer::{Elapsed, Interval, Sleep, interval, sleep, timeout};
pub use wait::waits_for;
