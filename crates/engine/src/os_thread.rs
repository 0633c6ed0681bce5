//! OS threads: the only place that makes them.

use std::io;
use std::thread::JoinHandle;

/// Starts an OS thread named `name` (the kernel keeps 15 bytes) and runs `f` on it, pinned to `core`
/// if one is given. Returns once the pin is in place, or with the kernel's refusal and no thread left.
pub fn spawn_pinned<T: Send + 'static>(
    name: &str,
    core: Option<usize>,
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let _ = (name, core, f);
    todo!()
}
