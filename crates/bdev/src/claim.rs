//! Claims: what a user of a bdev demands of all others.
//!
//! A claim belongs to a descriptor and ends with it. While a bdev has a claim, it can be opened for reading
//! only. The kinds and their rules are SPDK's, except that an exclusive claim also considers writers that are
//! open already.

use crate::BdevError;
use crate::bdev::listed;

/// The demand of a claim on a bdev. A claim on a device, such as a store makes for itself, has a
/// [`ClaimKind`](spindle_block::ClaimKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimType {
    /// One user, which writes.
    Exclusive,
    /// One writer, many readers.
    ReadManyWriteOne,
    /// No writer; many may claim it at once.
    ReadManyWriteNone,
    /// Writers with the same key, which is not 0.
    ReadManyWriteShared(u64),
}

impl ClaimType {
    /// Its name in `claim_type` of `bdev_get_bdevs`.
    pub fn name(self) -> &'static str {
        match self {
            ClaimType::Exclusive => "exclusive_write",
            ClaimType::ReadManyWriteOne => "read_many_write_one",
            ClaimType::ReadManyWriteNone => "read_many_write_none",
            ClaimType::ReadManyWriteShared(_) => "read_many_write_shared",
        }
    }

    /// True if the holder of such a claim may write.
    pub(crate) fn writes(self) -> bool {
        self != ClaimType::ReadManyWriteNone
    }

    /// True if two descriptors may have it at once.
    fn goes_with(self, other: ClaimType) -> bool {
        match self {
            ClaimType::Exclusive | ClaimType::ReadManyWriteOne => false,
            ClaimType::ReadManyWriteNone | ClaimType::ReadManyWriteShared(_) => self == other,
        }
    }
}

/// A claim and its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimInfo {
    /// Its demand.
    pub kind: ClaimType,
    /// Its holder, for messages.
    pub holder: String,
    /// The holder's module, or empty.
    pub module: &'static str,
}

impl ClaimInfo {
    /// The error for a user that this claim excludes.
    fn refuses(&self, bdev: &str) -> BdevError {
        BdevError::Claimed { name: bdev.to_owned(), kind: self.kind.name(), holder: self.holder.clone() }
    }
}

/// The claims on one bdev, each by the number of its descriptor; all of one kind.
#[derive(Default, Debug)]
pub(crate) struct Claims(Vec<(u64, ClaimInfo)>);

impl Claims {
    /// An error if no such claim can be added. `writers` are the holders of other descriptors open for writing without a
    /// claim.
    pub(crate) fn check(&self, bdev: &str, kind: ClaimType, writers: &[String]) -> Result<(), BdevError> {
        if kind == ClaimType::ReadManyWriteShared(0) {
            return Err(BdevError::argument(
                format!("claim on bdev {bdev:?}"),
                "a shared claim needs a key other than 0",
            ));
        }
        if let Some((_, there)) = self.0.first()
            && !there.kind.goes_with(kind)
        {
            return Err(there.refuses(bdev));
        }
        if !writers.is_empty() {
            let by = listed(writers.to_vec());
            return Err(BdevError::OpenForWriting { name: bdev.to_owned(), kind: kind.name(), by });
        }
        Ok(())
    }

    /// Adds a claim of descriptor `desc`, which was checked.
    pub(crate) fn add(&mut self, desc: u64, claim: ClaimInfo) {
        self.0.push((desc, claim));
    }

    /// Gives the holder of a descriptor's claims another name.
    pub(crate) fn rename(&mut self, desc: u64, holder: &str) {
        let own = self.0.iter_mut().filter(|(of, _)| *of == desc);
        own.for_each(|(_, claim)| holder.clone_into(&mut claim.holder));
    }

    /// The holder of a descriptor's claim.
    pub(crate) fn holder(&self, desc: u64) -> Option<&str> {
        self.0.iter().find(|(of, _)| *of == desc).map(|(_, claim)| claim.holder.as_str())
    }

    /// Removes the claims of a closed descriptor.
    pub(crate) fn remove(&mut self, desc: u64) {
        self.0.retain(|(holder, _)| *holder != desc);
    }

    /// The first claim.
    pub(crate) fn first(&self) -> Option<&ClaimInfo> {
        self.0.first().map(|(_, claim)| claim)
    }

    /// True if that descriptor has a claim.
    pub(crate) fn has(&self, desc: u64) -> bool {
        self.0.iter().any(|(holder, _)| *holder == desc)
    }

    /// True if a module may examine the bdev: there is no claim, or it has one.
    pub(crate) fn lets_examine(&self, module: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, claim)| claim.module == module)
    }

    /// The error for a writer, if there is a claim.
    pub(crate) fn refusal(&self, bdev: &str) -> Option<BdevError> {
        self.first().map(|claim| claim.refuses(bdev))
    }
}
