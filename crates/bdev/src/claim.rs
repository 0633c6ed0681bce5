//! Claims: what a user of a bdev demands of all others.
//!
//! A claim belongs to a descriptor and ends with it. While there is one, others may open the bdev for reading only.
//! The kinds and their rules are SPDK's (`reference/bdev.md`, 6); but an exclusive claim also looks at writers that
//! are open already.

use crate::BdevError;

/// What a claim demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// One user, who writes.
    Exclusive,
    /// One who writes, many who read.
    ReadManyWriteOne,
    /// Nobody writes; many claim it at once.
    ReadManyWriteNone,
    /// Those write who claim with the same key, which is not 0.
    ReadManyWriteShared(u64),
}

impl ClaimKind {
    /// Its name in `claim_type` of `bdev_get_bdevs`.
    pub fn name(self) -> &'static str {
        match self {
            ClaimKind::Exclusive => "exclusive_write",
            ClaimKind::ReadManyWriteOne => "read_many_write_one",
            ClaimKind::ReadManyWriteNone => "read_many_write_none",
            ClaimKind::ReadManyWriteShared(_) => "read_many_write_shared",
        }
    }

    /// Whether who claims so may write.
    pub(crate) fn writes(self) -> bool {
        self != ClaimKind::ReadManyWriteNone
    }

    /// Whether two descriptors may have it at once.
    fn goes_with(self, other: ClaimKind) -> bool {
        match self {
            ClaimKind::Exclusive | ClaimKind::ReadManyWriteOne => false,
            ClaimKind::ReadManyWriteNone | ClaimKind::ReadManyWriteShared(_) => self == other,
        }
    }
}

/// A claim, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimInfo {
    /// What it demands.
    pub kind: ClaimKind,
    /// Who has it, for people.
    pub holder: String,
    /// The module of who has it, or nothing.
    pub module: &'static str,
}

impl ClaimInfo {
    /// The error of one whom it keeps out.
    fn refuses(&self, bdev: &str) -> BdevError {
        BdevError::Claimed { name: bdev.to_owned(), kind: self.kind.name(), holder: self.holder.clone() }
    }
}

/// The claims on one bdev, each by the number of its descriptor; all of one kind.
#[derive(Default, Debug)]
pub(crate) struct Claims(Vec<(u64, ClaimInfo)>);

impl Claims {
    /// Adds a claim of descriptor `desc`. `writers` are the descriptors that are open for writing beside it, those
    /// with a claim not counted.
    pub(crate) fn add(
        &mut self,
        bdev: &str,
        desc: u64,
        claim: ClaimInfo,
        writers: usize,
    ) -> Result<(), BdevError> {
        if claim.kind == ClaimKind::ReadManyWriteShared(0) {
            return Err(BdevError::argument(
                format!("claim on bdev {bdev:?}"),
                "a shared claim needs a key other than 0",
            ));
        }
        if let Some((_, there)) = self.0.first()
            && !there.kind.goes_with(claim.kind)
        {
            return Err(there.refuses(bdev));
        }
        if writers > 0 {
            return Err(BdevError::OpenForWriting {
                name: bdev.to_owned(),
                kind: claim.kind.name(),
                writers,
            });
        }
        self.0.push((desc, claim));
        Ok(())
    }

    /// Forgets the claims of a descriptor that is closed.
    pub(crate) fn remove(&mut self, desc: u64) {
        self.0.retain(|(holder, _)| *holder != desc);
    }

    /// The first claim.
    pub(crate) fn first(&self) -> Option<&ClaimInfo> {
        self.0.first().map(|(_, claim)| claim)
    }

    /// Whether that descriptor has a claim.
    pub(crate) fn has(&self, desc: u64) -> bool {
        self.0.iter().any(|(holder, _)| *holder == desc)
    }

    /// Whether a module may examine the bdev: it has a claim itself, or nobody has.
    pub(crate) fn lets_examine(&self, module: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, claim)| claim.module == module)
    }

    /// The error of one who wants to write, if there is a claim.
    pub(crate) fn refusal(&self, bdev: &str) -> Option<BdevError> {
        self.first().map(|claim| claim.refuses(bdev))
    }
}
