//! Who may write to a device, and to parts of it, within this process.
//!
//! A lock on a file keeps other openers of that file out; this keeps out other users of the same device in the
//! same process, on whatever thread. It is asked for by whoever must not share, and stops only those who ask,
//! too. A part of a device has its claims in the list of the whole, so that whole and part, and parts that
//! overlap, exclude each other. The kinds are SPDK's.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use crate::mailbox::locked;
use crate::{Device, OpenError};

/// What a holder demands of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// Nothing of other writers: only that no claim is there, and that none comes but an exclusive one.
    Writer,
    /// To be the only claim.
    Exclusive,
    /// To be the only claim and the only writer.
    ReadManyWriteOne,
    /// That nobody writes; many may demand that at once.
    ReadManyWriteNone,
    /// That only those write who claim with the same key.
    ReadManyWriteShared(NonZeroU64),
}

impl ClaimKind {
    /// Whether a holder of `self` and one of `other` can be there at once, `other` having come first.
    fn goes_with(self, other: ClaimKind) -> bool {
        use ClaimKind::{Exclusive, ReadManyWriteNone, ReadManyWriteShared, Writer};
        match (self, other) {
            // SPDK's exclusive claim does not look at writers that are open already.
            (Writer | Exclusive, Writer) => true,
            (ReadManyWriteNone, ReadManyWriteNone) => true,
            (ReadManyWriteShared(mine), ReadManyWriteShared(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

/// The claims on a device, or on the part of another that a device is.
#[derive(Clone, Debug)]
pub struct Claim {
    list: Arc<Mutex<List>>,
    /// The bytes of the whole that these are about.
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
    /// Of a whole device.
    fn default() -> Claim {
        Claim { list: Arc::default(), from: 0, end: u64::MAX }
    }
}

impl Claim {
    /// Of a device that is `bytes` bytes from byte `from` on of the one that `self` belongs to.
    #[must_use]
    pub fn part(&self, from: u64, bytes: u64) -> Claim {
        let from = self.from.saturating_add(from);
        Claim { list: self.list.clone(), from, end: from.saturating_add(bytes).min(self.end) }
    }
}

/// A claim that is held, until it is dropped.
pub struct Claimed {
    device: Arc<dyn Device>,
    held: Option<(Claim, u64)>,
}

impl Claimed {
    /// Claims a device for a store. One that keeps no [`Claim`] is given to everybody.
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

    /// Who holds what of a device, or of a part or a whole that overlaps it.
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
