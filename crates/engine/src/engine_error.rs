//! Why an engine is not available.

use std::io;

/// Why an engine is not available.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// io_uring was asked for by name and is not available in the kernel.
    #[error("io_uring cannot be used here: {why}; SPINDLE_ENGINE=auto falls back to epoll by itself")]
    NoUring {
        /// What was missing.
        why: String,
    },
    /// The kernel refused something a driver needs.
    #[error("the {engine} engine cannot make a driver: {what}: {source}")]
    Driver {
        /// Which engine.
        engine: &'static str,
        /// What was asked of the kernel.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
}
