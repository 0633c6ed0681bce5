//! What code on a thread uses: time, pollers, operations of the engine, io devices, locks.

pub(crate) mod context;
pub(crate) mod failed_accepts;
pub(crate) mod hold;
pub(crate) mod io_device;
pub(crate) mod lock;
pub(crate) mod op;
pub(crate) mod poller;
pub(crate) mod results;
pub(crate) mod sleep;
