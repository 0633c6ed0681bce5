//! The preferences of a workload: all operations, or those that lead to one kind of error.

/// A way to choose operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Every operation of the API, data and metadata side by side.
    Everything,
    /// Many small thin blobs created and deleted while others get their first clusters: freed pages are
    /// reused at once.
    ComeAndGo,
    /// Clusters unmapped, cut off and deleted while reads and writes to them are in progress, then allocated
    /// again.
    LateIo,
    /// Snapshots and clones, created and deleted.
    Chains,
    /// Stores unloaded and loaded again all the time, with few changes between.
    Reloads,
    /// The whole content of blobs replaced at once, during writes and all other operations.
    Replacements,
    /// All operations, on devices whose flushes fail.
    FailedFlushes,
}

/// How often each operation is chosen, relative to the others.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "one share for each operation")]
pub struct Shares {
    pub create: u32,
    pub delete: u32,
    pub resize: u32,
    pub replace: u32,
    pub xattr: u32,
    pub sync: u32,
    pub reopen: u32,
    pub read_only: u32,
    pub snapshot: u32,
    pub clone: u32,
    pub clone_external: u32,
    pub shallow_copy: u32,
    pub inflate: u32,
    pub decouple: u32,
    pub set_parent: u32,
    pub set_super: u32,
    pub set_type: u32,
    pub reload: u32,
    /// Destroying the store and making another.
    pub remake: u32,
    pub grow: u32,
    /// No operation on metadata, while data operations go on.
    pub pause: u32,
    pub write: u32,
    pub zeroes: u32,
    pub unmap: u32,
    pub flush: u32,
    pub read: u32,
}

impl Shares {
    /// The shares of a workload without preferences.
    const EVERYTHING: Shares = Shares {
        create: 8,
        delete: 8,
        resize: 8,
        replace: 0,
        xattr: 6,
        sync: 3,
        reopen: 2,
        read_only: 1,
        snapshot: 8,
        clone: 6,
        clone_external: 3,
        shallow_copy: 1,
        inflate: 2,
        decouple: 2,
        set_parent: 2,
        set_super: 2,
        set_type: 1,
        reload: 2,
        remake: 1,
        grow: 2,
        pause: 12,
        write: 10,
        zeroes: 3,
        unmap: 4,
        flush: 3,
        read: 3,
    };
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Scenario; 7] = [
        Scenario::Everything,
        Scenario::ComeAndGo,
        Scenario::LateIo,
        Scenario::Chains,
        Scenario::Reloads,
        Scenario::Replacements,
        Scenario::FailedFlushes,
    ];

    /// The number of parts that the scenarios share.
    pub const PARTS: usize = 9;

    /// Returns the scenario of a part.
    pub fn pick(part: usize) -> Scenario {
        match part {
            0..4 => Scenario::Everything,
            4 => Scenario::ComeAndGo,
            5 => Scenario::LateIo,
            6 => Scenario::Chains,
            7 => Scenario::Reloads,
            _ => Scenario::Replacements,
        }
    }

    /// The atomic unit that it needs, if any.
    pub fn atomic_unit(self) -> Option<u32> {
        (self == Scenario::ComeAndGo).then_some(512)
    }

    /// True if requests must take time, so that some are very late.
    pub fn slow(self) -> bool {
        self == Scenario::LateIo
    }

    /// Clusters of a blob that I/O uses: few, so that operations meet.
    pub fn busy_clusters(self) -> u64 {
        if self == Scenario::LateIo { 2 } else { 8 }
    }

    /// How often each operation is chosen.
    pub fn shares(self) -> Shares {
        match self {
            Scenario::Everything | Scenario::FailedFlushes => Shares::EVERYTHING,
            // Its main task has its own routine.
            Scenario::ComeAndGo => Shares::EVERYTHING,
            Scenario::LateIo => Shares {
                create: 12,
                delete: 6,
                resize: 8,
                snapshot: 1,
                clone: 1,
                clone_external: 1,
                inflate: 0,
                set_parent: 0,
                decouple: 0,
                read_only: 0,
                reload: 1,
                unmap: 10,
                write: 14,
                read: 6,
                flush: 0,
                zeroes: 1,
                ..Shares::EVERYTHING
            },
            Scenario::Reloads => {
                Shares { reload: 30, remake: 4, delete: 14, create: 14, pause: 2, ..Shares::EVERYTHING }
            }
            Scenario::Replacements => Shares { replace: 24, write: 14, snapshot: 4, ..Shares::EVERYTHING },
            Scenario::Chains => {
                Shares { snapshot: 20, clone: 14, delete: 20, decouple: 6, inflate: 4, ..Shares::EVERYTHING }
            }
        }
    }
}
