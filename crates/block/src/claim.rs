//! Claims: which users of one process may write to a device, or to parts of it.
//!
//! A file lock keeps other openers of a file out; a claim keeps out other users of the same device in the
//! same process, on any thread. Claims are cooperative: they stop only users that ask for one, too. A part of
//! a device keeps its claims in the list of the whole, so that whole and part, and overlapping parts, exclude
//! each other. The kinds are SPDK's. A holder may announce that it is about to release its claim; the next
//! user can wait for that.

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

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
    /// Users that wait for holders which leave.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Held {
    key: u64,
    from: u64,
    end: u64,
    kind: ClaimKind,
    holder: String,
    device: String,
    /// The holder is about to release it.
    leaves: bool,
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

    fn overlaps(&self, held: &Held) -> bool {
        held.from < self.end && self.from < held.end
    }
}

impl Held {
    /// Whether a store may claim the same.
    fn goes_with_store(&self) -> bool {
        ClaimKind::Exclusive.goes_with(self.kind)
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

    /// As [`take`](Self::take), but waits for holders in the way that [leave](Self::leave).
    ///
    /// # Errors
    /// As `take`, naming a holder that stays.
    pub async fn take_when_left(device: Arc<dyn Device>) -> Result<Claimed, OpenError> {
        poll_fn(|cx| {
            let taken = Claimed::take(device.clone());
            let Some(claim) = device.claim().filter(|_| taken.is_err()) else { return Poll::Ready(taken) };
            let mut list = locked(&claim.list);
            let in_the_way = list.held.iter().filter(|held| claim.overlaps(held) && !held.goes_with_store());
            if in_the_way.clone().any(|held| !held.leaves) {
                return Poll::Ready(taken);
            }
            if in_the_way.count() == 0 {
                // Released since `take` looked.
                cx.waker().wake_by_ref();
            }
            list.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Announces that the holder will release the claim soon.
    pub fn leave(&self) {
        if let Some((claim, key)) = &self.held {
            let mut list = locked(&claim.list);
            list.held.iter_mut().filter(|held| held.key == *key).for_each(|held| held.leaves = true);
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
        let mut list = locked(&claim.list);
        if let Some(other) =
            list.held.iter().filter(|held| claim.overlaps(held)).find(|held| !kind.goes_with(held.kind))
        {
            let holder = match other.device == device.name() {
                true => other.holder.clone(),
                false => format!("{} (which claims {})", other.holder, other.device),
            };
            return Err(OpenError::Busy { device: device.name().to_owned(), holder });
        }
        let key = list.next;
        list.next += 1;
        let (from, end, name) = (claim.from, claim.end, device.name().to_owned());
        let holder = holder.into();
        list.held.push(Held { key, from, end, kind, holder, device: name, leaves: false });
        drop(list);
        Ok(Claimed { device, held: Some((claim, key)) })
    }

    /// The claims on a device, or on a part or whole that overlaps it, with their holders.
    pub fn holders(device: &Arc<dyn Device>) -> Vec<(ClaimKind, String)> {
        let Some(claim) = device.claim() else { return Vec::new() };
        let list = locked(&claim.list);
        list.held
            .iter()
            .filter(|held| claim.overlaps(held))
            .map(|held| (held.kind, held.holder.clone()))
            .collect()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some((claim, key)) = &self.held {
            let mut list = locked(&claim.list);
            list.held.retain(|held| held.key != *key);
            let waiting = std::mem::take(&mut list.waiting);
            drop(list);
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({})", self.device.name())
    }
}
