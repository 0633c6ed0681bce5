//! What a workload prefers: everything at once, or what leads to one kind of trouble.

/// A way to choose operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Every operation of the API, data and metadata side by side.
    Everything,
    /// Many small thin blobs that come and go while others get their first clusters: pages are freed and
    /// used again at once.
    ComeAndGo,
    /// Clusters unmapped, cut off and deleted under reads and writes that are still on their way, and given
    /// to others.
    LateIo,
    /// Snapshots, clones and their ends.
    Chains,
    /// Stores that are left and loaded again all the time, with few changes between.
    Reloads,
    /// All that blobs hold replaced at once, under writes and beside everything else.
    Replacements,
    /// Everything, on devices whose flushes fail.
    FailedFlushes,
}

/// How often an operation is chosen.
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
    /// The store is taken off its device and another made.
    pub remake: u32,
    pub grow: u32,
    /// Nothing on metadata: data operations go on.
    pub pause: u32,
    pub write: u32,
    pub zeroes: u32,
    pub unmap: u32,
    pub flush: u32,
    pub read: u32,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 7] = [
        Scenario::Everything,
        Scenario::ComeAndGo,
        Scenario::LateIo,
        Scenario::Chains,
        Scenario::Reloads,
        Scenario::Replacements,
        Scenario::FailedFlushes,
    ];

    /// Of so many parts each scenario has some.
    pub const PARTS: usize = 8;

    /// The scenario of a part.
    pub fn pick(part: usize) -> Scenario {
        match part {
            // Not yet Replacements: what it finds is in docs/fault-model.md, "What is known to fail".
            0..4 => Scenario::Everything,
            4 => Scenario::ComeAndGo,
            5 => Scenario::LateIo,
            6 => Scenario::Chains,
            _ => Scenario::Reloads,
        }
    }

    /// The atomic unit that it needs, if any.
    pub fn atomic_unit(self) -> Option<u32> {
        (self == Scenario::ComeAndGo).then_some(512)
    }

    /// Whether requests must take time on their way, so that some are very late.
    pub fn slow(self) -> bool {
        self == Scenario::LateIo
    }

    /// Clusters of a blob that I/O goes to: few, so that operations meet.
    pub fn busy_clusters(self) -> u64 {
        if self == Scenario::LateIo { 2 } else { 8 }
    }

    /// How often each operation is chosen.
    pub fn shares(self) -> Shares {
        let everything = Shares {
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
        match self {
            Scenario::Everything | Scenario::FailedFlushes => everything,
            // Its main task has a routine of its own.
            Scenario::ComeAndGo => everything,
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
                ..everything
            },
            Scenario::Reloads => {
                Shares { reload: 30, remake: 4, delete: 14, create: 14, pause: 2, ..everything }
            }
            Scenario::Replacements => Shares { replace: 24, write: 14, snapshot: 4, ..everything },
            Scenario::Chains => {
                Shares { snapshot: 20, clone: 14, delete: 20, decouple: 6, inflate: 4, ..everything }
            }
        }
    }
}
