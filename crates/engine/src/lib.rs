//! Every effect of the program goes through here: time, randomness, files, sockets, sleeping and waking.
//!
//! An [`Engine`] is chosen once for a runtime; it makes one [`Driver`] for each reactor (or each
//! hand-stepped thread runner), and a driver never leaves its OS thread. Three implementations: io_uring,
//! epoll with worker threads for files, and the [simulation](sim). The crate also owns what else touches
//! the machine: [`CpuSet`] and [`available_cores`], [pinned OS threads](spawn_pinned), [`Signals`], and the
//! [`Bell`] at which an OS thread without a driver waits.
//!
//! ```
//! use spindle_engine::{Driver, Engine, EngineKind, Op, OpenOptions, Output, Token};
//!
//! let engine = Engine::open(EngineKind::Sim(7))?;
//! let mut driver = engine.driver(0)?;
//! let options = OpenOptions::new("disk").writable(true).create(1 << 20);
//! driver.submit(Token(1), Op::Open { options: Box::new(options) });
//! let mut done = Vec::new();
//! while done.is_empty() {
//!     driver.park(None); // until something happens
//!     driver.poll(&mut done);
//! }
//! let Ok(Output::File(file)) = done.remove(0).result else { panic!("not opened") };
//! assert_eq!(file.info().size, 1 << 20);
//! # Ok::<(), spindle_engine::EngineError>(())
//! ```
//!
//! Not promised: fairness between operations, an order among operations in flight at once, and wall-clock
//! time. Only sends keep their order: those that one driver has on one stream go out whole, one after the
//! other. In this crate `unsafe` is used only at the kernel interface; each block states why it is sound.

mod address;
mod bell;
mod cores;
mod cpu_set;
mod driver;
mod engine;
mod engine_error;
mod engine_id;
mod epoll;
mod handle;
mod inherited;
mod kind;
mod op;
mod open;
mod os;
mod os_thread;
mod owned;
mod places;
mod receive_pool;
mod report;
mod rng;
mod signals;
pub mod sim;
mod sim_handle;
mod standard_streams;
mod stop_requests;
mod system_calls;
mod time;
mod uring;
mod wall_clock;

pub use address::{Address, Interest, Peer, Shutdown};
pub use bell::Bell;
pub use cores::{AvailableCores, available_cores};
pub use cpu_set::{BadCpuSet, CpuSet, MAX_CPUS};
pub use driver::{Driver, Unparker};
pub use engine::Engine;
pub use engine_error::EngineError;
pub use handle::{File, Listener, Socket};
pub use inherited::{inherited, write_at_once};
pub use kind::{BadEngineKind, ENGINE_VARIABLE, EngineKind};
pub use op::{Completion, Op, Output, Token};
pub use open::{Asker, Direct, FileInfo, OpenOptions};
pub use os_thread::{OsThread, OsThreadTimes, run_on, spawn_pinned};
pub use owned::{Held, WriteLock, drop_pages, hold, share_bytes, write_lock};
pub use receive_pool::ReceivePool;
pub use report::{accepts, open_log, report, report_to};
pub use signals::{Signal, SignalError, Signals, ignore_deadly_signals};
pub use spindle_ring::Unpark;
pub use standard_streams::{StandardStream, was_closed};
pub use stop_requests::{StopRequest, StopRequests};
pub use system_calls::SystemCalls;
pub use time::Time;
pub use wall_clock::wall_clock;
