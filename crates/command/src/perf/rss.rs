//! The process's resident memory, according to the kernel.

use std::fs;

use super::Failed;

/// Resident bytes.
pub fn bytes() -> Result<u64, Failed> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).ok_or("/proc/self/statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}
