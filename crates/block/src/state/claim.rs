//! Claims: which users of one process may write to a device, or to parts of it.
//!
//! A file lock keeps other openers of a file out; a claim keeps out other users of the same device in the
//! same process, on any thread. Claims are cooperative: they stop only users that ask for one, too. A part of
//! a device keeps its claims in the list of the whole, so that whole and part, and overlapping parts, exclude
//! each other. The kinds are SPDK's. A holder may announce that it is about to release its claim; the next
//! user can wait for that.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use spindle_reactor::WaitList;

use crate::state::mailbox::locked;

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
    claims: Arc<Claims>,
    /// The bytes of the whole device that these claims cover.
    from: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Claims {
    list: Mutex<List>,
    /// Users that wait for holders which leave.
    released: WaitList,
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
    /// The holder is about to release it.
    leaves: bool,
}

impl Default for Claim {
    /// Covers a whole device.
    fn default() -> Claim {
        Claim { claims: Arc::default(), from: 0, end: u64::MAX }
    }
}

impl Claim {
    /// The claims of a device that covers `bytes` bytes from byte `from` on of the device of `self`.
    #[must_use]
    pub fn part(&self, from: u64, bytes: u64) -> Claim {
        let from = self.from.saturating_add(from);
        Claim { claims: self.claims.clone(), from, end: from.saturating_add(bytes).min(self.end) }
    }

    fn overlaps(&self, held: &Held) -> bool {
        held.from < self.end && self.from < held.end
    }

    /// Adds a claim of `holder` on `device`. Returns its key, or the holder of a claim in the way.
    pub(crate) fn add(&self, device: &str, kind: ClaimKind, holder: String) -> Result<u64, String> {
        let mut list = locked(&self.claims.list);
        if let Some(other) =
            list.held.iter().filter(|held| self.overlaps(held)).find(|held| !kind.goes_with(held.kind))
        {
            return Err(match other.device == device {
                true => other.holder.clone(),
                false => format!("{} (which claims {})", other.holder, other.device),
            });
        }
        let key = list.next;
        list.next += 1;
        let (from, end, device) = (self.from, self.end, device.to_owned());
        list.held.push(Held { key, from, end, kind, holder, device, leaves: false });
        Ok(key)
    }

    /// Removes a claim.
    pub(crate) fn remove(&self, key: u64) {
        let mut list = locked(&self.claims.list);
        list.held.retain(|held| held.key != key);
        drop(list);
        self.claims.released.wake_all();
    }

    /// Notes that the holder of a claim will release it soon.
    pub(crate) fn announce(&self, key: u64) {
        let mut list = locked(&self.claims.list);
        list.held.iter_mut().filter(|held| held.key == key).for_each(|held| held.leaves = true);
    }

    /// True if all claims in the way of a store will be released soon, or are by now.
    pub(crate) fn is_left(&self) -> bool {
        let list = locked(&self.claims.list);
        let mut in_the_way = list.held.iter().filter(|held| self.overlaps(held) && !held.goes_with_store());
        in_the_way.all(|held| held.leaves)
    }

    /// Tasks that wait for the release of a claim.
    pub(crate) fn released(&self) -> &WaitList {
        &self.claims.released
    }

    /// The claims here and on overlapping parts, with their holders.
    pub(crate) fn holders(&self) -> Vec<(ClaimKind, String)> {
        let list = locked(&self.claims.list);
        let here = list.held.iter().filter(|held| self.overlaps(held));
        here.map(|held| (held.kind, held.holder.clone())).collect()
    }
}

impl Held {
    /// Whether a store may claim the same.
    fn goes_with_store(&self) -> bool {
        ClaimKind::Exclusive.goes_with(self.kind)
    }
}
