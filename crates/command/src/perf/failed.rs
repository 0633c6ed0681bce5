//! Why a measurement failed.

/// Any error.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;
