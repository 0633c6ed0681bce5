//! The name of a device in an error that is `Copy`.
//!
//! Shared by all threads. A name is kept for good, once: only names of devices with a faulty module come here.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn names() -> MutexGuard<'static, Vec<String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device's name: [`Display`](fmt::Display) shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(u32);

impl DeviceName {
    /// The name of a device.
    #[cold]
    pub(crate) fn of(name: &str) -> DeviceName {
        let mut names = names();
        let known = names.iter().position(|known| known == name);
        let at = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        DeviceName(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(names().get(self.0 as usize).map_or("of an unknown name", String::as_str))
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
