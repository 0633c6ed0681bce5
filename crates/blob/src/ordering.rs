//! The ordering points: where the store waits until something is durable, and why.
//!
//! Every flush and every other wait on which crash safety rests names its [`Point`] here. An [`Order`] is a
//! plain value that belongs to one store; with the feature `prove` one point can be left out of it, and the
//! proof harness must then find a violation. `docs/fault-model.md` states the purpose of each point.

/// A place where order matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Point {
    /// The old contents of a new store's device are cleared, durably, before its super block is written.
    ClearedBeforeSuper,
    /// "Not clean" is durable before the first change after a clean load.
    DirtyBeforeChange,
    /// The contents of a new cluster are durable before the map page that names it is written.
    FillBeforeMap,
    /// New extent and chain pages are durable before the root that names them is written.
    PagesBeforeRoot,
    /// A copy of a page is durable before the page is rewritten in place, where a write can tear.
    CopyBeforePlace,
    /// The page in place is durable before its copy is cleared or written over.
    PlaceBeforeForget,
    /// The write that no longer names a cluster or page is durable before it is cleared and used again.
    UnmapBeforeFree,
    /// I/O that may still hold a cluster has ended before the cluster is cleared and used again.
    ReadersBeforeFree,
    /// The cleared root of a deleted blob is durable before the rest is cleared.
    RootBeforeRest,
    /// The marker on a snapshot is durable before the other blob's root is written.
    MarkBeforeClone,
    /// The other blob's root is durable before the snapshot loses its marker, or goes.
    CloneBeforeUnmark,
    /// The note beside a super block's CRC that tells old from new values is durable before the new values,
    /// where a write can tear and not every torn super block would be recognised.
    SectorBySector,
    /// One step of a repair at load is durable before the next.
    RepairStep,
    /// The masks are durable before the super block says "clean".
    MasksBeforeClean,
    /// A new cluster is zeroed, wholly written, or known to read zero.
    ZeroNewCluster,
    /// What an operation acknowledges is durable.
    DurableBeforeAck,
    /// A flush confirms nothing once another has failed, because that one may have lost what this one should
    /// cover.
    FailedFlushLasts,
    /// What a load finds in a store that was not unloaded cleanly is durable before the load changes
    /// anything.
    FoundBeforeChange,
}

impl Point {
    /// All of them.
    pub const ALL: [Point; 18] = [
        Point::ClearedBeforeSuper,
        Point::DirtyBeforeChange,
        Point::FillBeforeMap,
        Point::PagesBeforeRoot,
        Point::CopyBeforePlace,
        Point::PlaceBeforeForget,
        Point::UnmapBeforeFree,
        Point::ReadersBeforeFree,
        Point::RootBeforeRest,
        Point::MarkBeforeClone,
        Point::CloneBeforeUnmark,
        Point::SectorBySector,
        Point::RepairStep,
        Point::MasksBeforeClean,
        Point::ZeroNewCluster,
        Point::DurableBeforeAck,
        Point::FailedFlushLasts,
        Point::FoundBeforeChange,
    ];

    fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// The points that a store keeps: all of them, unless a proof leaves one out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Order {
    left_out: u32,
}

impl Order {
    /// Keeps every point.
    pub const STRICT: Order = Order { left_out: 0 };

    /// Keeps all points but one: unsafe for data, for proofs that the point is needed.
    #[cfg(any(test, feature = "prove"))]
    pub fn leaving_out(point: Point) -> Order {
        Order { left_out: point.bit() }
    }

    /// Whether a point is kept.
    pub(crate) fn keeps(self, point: Point) -> bool {
        self.left_out & point.bit() == 0
    }
}
