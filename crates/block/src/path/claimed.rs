//! A claim on a device while it is held.
//!
//! Belongs to its holder, on any thread.

use std::sync::Arc;

use crate::{Claim, ClaimKind, Device, OpenError};

/// A held claim; released when it is dropped.
pub struct Claimed {
    device: Arc<dyn Device>,
    held: Option<(Claim, u64)>,
}

impl Claimed {
    /// Claims a device for a store. A device without a [`Claim`] can be claimed any number of times.
    ///
    /// # Errors
    /// [`Busy`](OpenError::Busy) names the holder of another claim.
    pub fn take(device: Arc<dyn Device>) -> Result<Claimed, OpenError> {
        Claimed::take_as(
            device,
            ClaimKind::Exclusive,
            "a store that this process has loaded (unload it, or drop its handles and open blobs)",
        )
    }

    /// As [`take`](Self::take), but waits for holders in the way that [leave](Self::leave).
    ///
    /// # Errors
    /// As `take`, naming a holder that stays.
    pub async fn take_when_left(device: Arc<dyn Device>) -> Result<Claimed, OpenError> {
        let Some(claim) = device.claim() else { return Claimed::take(device.clone()) };
        let taken = || {
            let taken = Claimed::take(device.clone());
            (taken.is_ok() || !claim.is_left()).then_some(taken)
        };
        claim.released().until(taken).await
    }

    /// Announces that the holder will release the claim soon.
    pub fn leave(&self) {
        if let Some((claim, key)) = &self.held {
            claim.announce(*key);
        }
    }

    /// Claims a device; `holder` is what others are told.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_as(
        device: Arc<dyn Device>,
        kind: ClaimKind,
        holder: impl Into<String>,
    ) -> Result<Claimed, OpenError> {
        let Some(claim) = device.claim().cloned() else { return Ok(Claimed { device, held: None }) };
        match claim.add(device.name(), kind, holder.into()) {
            Ok(key) => Ok(Claimed { device, held: Some((claim, key)) }),
            Err(holder) => Err(OpenError::Busy { device: device.name().to_owned(), holder }),
        }
    }

    /// The claims on a device, or on a part or whole that overlaps it, with their holders.
    pub fn holders(device: &Arc<dyn Device>) -> Vec<(ClaimKind, String)> {
        device.claim().map(Claim::holders).unwrap_or_default()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some((claim, key)) = &self.held {
            claim.remove(*key);
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({})", self.device.name())
    }
}
