//! A device that belongs to one user as a whole, who alone writes to it: a store.
//!
//! A lock on a file keeps other openers of that file out; this keeps out another user of the same device in the
//! same process, on whatever thread. It is asked for by whoever must not share, and stops nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Device, OpenError};

/// Whether a device belongs to somebody; a device has one.
#[derive(Debug, Default)]
pub struct Claim(AtomicBool);

/// A device that belongs to whoever has this, until it is dropped.
pub struct Claimed(Arc<dyn Device>);

impl Claimed {
    /// Claims a device. One that keeps no [`Claim`] is given to everybody.
    ///
    /// # Errors
    /// [`Busy`](OpenError::Busy) if it belongs to somebody.
    pub fn take(device: Arc<dyn Device>) -> Result<Claimed, OpenError> {
        match device.claim() {
            Some(claim) if claim.0.swap(true, Ordering::AcqRel) => Err(OpenError::Busy {
                device: device.name().to_owned(),
                holder: "a store that this process has loaded".into(),
            }),
            _ => Ok(Claimed(device)),
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(claim) = self.0.claim() {
            claim.0.store(false, Ordering::Release);
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({})", self.0.name())
    }
}
