//! Which standard streams were closed when the process started.
//!
//! Rust's start opens `/dev/null` in place of a closed standard stream, which cannot be told from a `/dev/null` that
//! the caller has opened for reading and writing, as Python's `subprocess.DEVNULL` is. So this looks earlier, in a
//! function of `.init_array`, which the loader calls on the main thread before `main`.

use std::sync::atomic::{AtomicU8, Ordering};

/// A standard stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StandardStream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// A bit for each descriptor from 0 to 2 that was closed. Written once, before `main`.
static CLOSED: AtomicU8 = AtomicU8::new(0);

// SAFETY: the loader calls what this section names, with the C calling convention, and ignores arguments that are
// not taken. `record` uses nothing that Rust's start has to prepare.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    for descriptor in 0..3 {
        // SAFETY: F_GETFD takes any number and reads flags only.
        let is_closed = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1;
        CLOSED.fetch_or(u8::from(is_closed) << descriptor, Ordering::Relaxed);
    }
}

/// True if the stream was closed when the process started: what is written there is lost, though the writes succeed.
pub fn was_closed(stream: StandardStream) -> bool {
    CLOSED.load(Ordering::Relaxed) & (1 << stream as u8) != 0
}
