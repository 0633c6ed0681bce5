//! Claims: which users of one process may write to a device, or to parts of it.
//!
//! A file lock keeps other openers of a file out; a claim keeps out other users of the same device in the
//! same process, on any thread. Claims are cooperative: they stop only users that ask for one, too. A part of
//! a device keeps its claims in the list of the whole, so that whole and part, and overlapping parts, exclude
//! each other. The kinds are SPDK's.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use crate::mailbox::locked;
use crate::{Device, OpenError};

/// What a holder demands of other users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// Allows other writers. No claim of another kind may be present; only an exclusive one may come later.
    Writer,
    /// No other claim.
    Exclusive,
    /// No other claim and no other writer.
    ReadManyWriteOne,
    /// No writer; any number of holders may demand this at once.
    ReadManyWriteNone,
    /// Writers only with the same key.
    ReadManyWriteShared(NonZeroU64),
}

impl ClaimKind {
    /// True if a claim `self` may be added beside an existing claim `other`.
    fn goes_with(self, other: ClaimKind) -> bool {
        use ClaimKind::{Exclusive, ReadManyWriteNone, ReadManyWriteShared, Writer};
        match (self, other) {
            // SPDK's exclusive claim ignores writers that are already open.
            (Writer | Exclusive, Writer) => true,
            (ReadManyWriteNone, ReadManyWriteNone) => true,
            (ReadManyWriteShared(mine), ReadManyWriteShared(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

/// The claims on a device, or on the part of a device that this one covers.
#[derive(Clone, Debug)]
pub struct Claim {
    list: Arc<Mutex<List>>,
    /// The bytes of the whole device that these claims cover.
    from: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct List {
    next: u64,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    key: u64,
    from: u64,
    end: u64,
    kind: ClaimKind,
    holder: String,
    device: String,
}

impl Default for Claim {
    /// Covers a whole device.
    fn default() -> Claim {
        Claim { list: Arc::default(), from: 0, end: u64::MAX }
    }
}

impl Claim {
    /// The claims of a device that covers `bytes` bytes from byte `from` on of the device of `self`.
    #[must_use]
    pub fn part(&self, from: u64, bytes: u64) -> Claim {
        let from = self.from.saturating_add(from);
        Claim { list: self.list.clone(), from, end: from.saturating_add(bytes).min(self.end) }
    }
}

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

    /// Claims a device; `holder` is the name that errors of other claimants show.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_as(
        device: Arc<dyn Device>,
        kind: ClaimKind,
        holder: impl Into<String>,
    ) -> Result<Claimed, OpenError> {
        let Some(claim) = device.claim().cloned() else { return Ok(Claimed { device, held: None }) };
        let mut list = locked(&claim.list);
        let overlaps = |held: &&Held| held.from < claim.end && claim.from < held.end;
        if let Some(other) = list.held.iter().filter(overlaps).find(|held| !kind.goes_with(held.kind)) {
            let holder = match other.device == device.name() {
                true => other.holder.clone(),
                false => format!("{} (which claims {})", other.holder, other.device),
            };
            return Err(OpenError::Busy { device: device.name().to_owned(), holder });
        }
        let key = list.next;
        list.next += 1;
        let (from, end, name) = (claim.from, claim.end, device.name().to_owned());
        list.held.push(Held { key, from, end, kind, holder: holder.into(), device: name });
        drop(list);
        Ok(Claimed { device, held: Some((claim, key)) })
    }

    /// The claims on a device, or on a part or whole that overlaps it, with their holders.
    pub fn holders(device: &Arc<dyn Device>) -> Vec<(ClaimKind, String)> {
        let Some(claim) = device.claim() else { return Vec::new() };
        let list = locked(&claim.list);
        let overlaps = |held: &&Held| held.from < claim.end && claim.from < held.end;
        list.held.iter().filter(overlaps).map(|held| (held.kind, held.holder.clone())).collect()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some((claim, key)) = &self.held {
            locked(&claim.list).held.retain(|held| held.key != *key);
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({})", self.device.name())
    }
}
