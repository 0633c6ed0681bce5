//! Which engine made a handle.

use std::fmt;
use std::io;
use std::sync::Arc;

/// The identity of an engine, carried by every handle it made. Compared by address, so two engines in
/// one process are two, with no counter shared between them.
#[derive(Clone)]
pub(crate) struct EngineId(Arc<u8>);

impl EngineId {
    pub(crate) fn new() -> EngineId {
        EngineId(Arc::new(0))
    }

    /// An error that names the object when `other` is not this engine.
    pub(crate) fn check(&self, other: &EngineId, what: &dyn fmt::Debug) -> io::Result<()> {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ok(());
        }
        let message = format!("{what:?} was opened by another engine; open it again with this one");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}
