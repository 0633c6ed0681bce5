//! `spindle` without arguments: the example's program, then what to try next.

use spindle_reactor::RunError;
use std::io::Write;

use super::failure::Failure;
use super::output::Output;

#[path = "../../examples/multicore_blobstore.rs"]
#[expect(dead_code, reason = "its main is that of the example: the command ends by itself")]
mod multicore_blobstore;

const INTRODUCTION: &str = "\
A worker thread initialises a Blobstore on the memory disk Malloc0; the app thread awaits that.

";

const NEXT: &str = "
That was a memory disk. Things to try next:

  spindle blob ls IMAGE                list the blobs of a store that SPDK wrote, clean or dirty
  spindle blob export IMAGE BLOB FILE  copy a volume out of it, through snapshots and clones
  spindle perf --yardstick             what a message and a read cost here, beside the bare machine
  SPINDLE_ENGINE=sim:1 spindle         the same story in simulation: one seed, one history

`spindle help` says the rest; examples/multicore_blobstore.rs is the program you just saw.
";

/// Tells the story.
pub(crate) fn run() -> Result<(), Failure> {
    say(INTRODUCTION)?;
    let told = multicore_blobstore::run();
    told.map_err(|error| Failure::Story { code: RunError::exit_code_of(&*error), error: error.to_string() })?;
    say(NEXT)
}

/// Prints at once: the story prints from other OS threads, so nothing may wait here with the lock held.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = Output::stdout();
    write!(out, "{text}")?;
    out.finish()
}
