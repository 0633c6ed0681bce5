//! Loop devices, where this user may make them.

use std::path::Path;
use std::process::Command;

/// A loop device, detached when dropped.
pub struct Loop(String);

impl Loop {
    /// None where loop devices cannot be made.
    pub fn over(path: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(path).output().ok()?;
        if !made.status.success() {
            eprintln!("skipped: no loop device can be made here");
            return None;
        }
        Some(Loop(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
    }

    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // If it is left, it is removed with its file.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
