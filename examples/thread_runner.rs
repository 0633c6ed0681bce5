//! One Spindle thread without a reactor, in a loop that the program already has.
//!
//! Only the owner of a `ThreadRunner` can step it, because a step needs `&mut` and the runner can be neither
//! cloned nor sent. Other code uses the thread's handle as always.

use std::time::Duration;

use spindle::engine::{EngineKind, spawn_pinned};
use spindle::reactor::{Busy, ThreadRunner};
use spindle::sleep;

/// The error, if any.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A program's own loop, with a Spindle thread in it.
pub fn main() -> Outcome {
    let mut runner = ThreadRunner::new("in my loop", EngineKind::Auto)?;
    let thread = runner.thread();

    // Another OS thread uses the handle; it blocks until the loop below has produced the answer.
    let client = spawn_pinned("client", None, move || {
        let answer = thread.spawn(async || {
            sleep(Duration::from_millis(2)).await;
            6 * 7
        });
        let answer = answer.wait();
        thread.exit();
        answer
    })?;

    // The program's own loop: its own work, then one bounded turn, and a sleep only if there was nothing to
    // do, for as long as its own work allows.
    let (mut own_work, thread) = (0u64, runner.thread());
    while !thread.is_gone() {
        own_work += 1;
        if runner.step() == Busy::No {
            runner.park(Some(Duration::from_millis(100)));
        }
    }
    println!("the client got {}", client.join().map_err(|_| "the client panicked")??);
    println!("my own work went on: {}", own_work > 2);
    Ok(())
}
