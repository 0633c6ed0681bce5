//! Lock files of cores, as SPDK's applications have them: `/var/tmp/spdk_cpu_lock_NNN`.
//!
//! The process that holds the record lock of a core's file has the core; the file contains the process id, and is removed
//! when the lock is released. On the app thread. Claiming opens small files and never waits for a lock. Not promised: that
//! a program that takes no locks leaves the core alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

/// The folder in which SPDK has them.
pub const CORE_LOCKS: &str = "/var/tmp";

/// A core that cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum CoreTaken {
    /// Another process has its lock.
    #[error(
        "core {core} is locked by {holder} ({}); choose other cores with -m, or share it with --disable-cpumask-locks",
        path.display()
    )]
    Held {
        /// The core.
        core: usize,
        /// The process, as far as its file names it.
        holder: String,
        /// The file.
        path: PathBuf,
    },
    /// Its file cannot be made.
    #[error("the lock of core {core} cannot be taken: {}: {source}; start with --disable-cpumask-locks", path.display())]
    File {
        /// The core.
        core: usize,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl CoreTaken {
    /// The core.
    pub fn core(&self) -> usize {
        match self {
            CoreTaken::Held { core, .. } | CoreTaken::File { core, .. } => *core,
        }
    }
}

/// The locks that this daemon holds. Dropping it releases them.
pub(crate) struct CoreLocks {
    folder: PathBuf,
    held: RefCell<BTreeMap<usize, File>>,
}

impl CoreLocks {
    /// None is held yet.
    pub(crate) fn new(folder: PathBuf) -> CoreLocks {
        CoreLocks { folder, held: RefCell::default() }
    }

    fn path(&self, core: usize) -> PathBuf {
        self.folder.join(format!("spdk_cpu_lock_{core:03}"))
    }

    /// Takes the locks that are not held yet, all or none.
    ///
    /// # Errors
    /// The first core that cannot be claimed; then no lock is held any more, as in SPDK.
    pub(crate) fn claim(&self, cores: &[usize]) -> Result<(), CoreTaken> {
        for &core in cores {
            if self.held.borrow().contains_key(&core) {
                continue;
            }
            match lock(core, &self.path(core)) {
                Ok(file) => drop(self.held.borrow_mut().insert(core, file)),
                Err(error) => {
                    self.release();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Releases all.
    pub(crate) fn release(&self) {
        for (core, file) in std::mem::take(&mut *self.held.borrow_mut()) {
            // Still locked, so the file is not another process's. Without effect if it is gone already.
            let _ = fs::remove_file(self.path(core));
            drop(file);
        }
    }
}

impl Drop for CoreLocks {
    fn drop(&mut self) {
        self.release();
    }
}

fn lock(core: usize, path: &Path) -> Result<File, CoreTaken> {
    let failed = |source| CoreTaken::File { core, path: path.to_owned(), source };
    loop {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(CoreTaken::Held { core, holder: holder(&file), path: path.to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // Its last holder may have removed the file between the opening and the locking: then it locks nothing.
        let is_there = |there: fs::Metadata, opened: fs::Metadata| {
            (there.dev(), there.ino()) == (opened.dev(), opened.ino())
        };
        let opened = file.metadata().map_err(failed)?;
        if fs::metadata(path).is_ok_and(|there| is_there(there, opened)) {
            let pid = std::process::id() as i32;
            file.write_all_at(&pid.to_ne_bytes(), 0).map_err(failed)?;
            return Ok(file);
        }
    }
}

/// The process that the file names.
fn holder(file: &File) -> String {
    let mut pid = [0; 4];
    match file.read_exact_at(&mut pid, 0) {
        Ok(()) => format!("process {}", i32::from_ne_bytes(pid)),
        Err(_) => "another process".to_owned(),
    }
}
