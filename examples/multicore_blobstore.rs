//! A program wants a worker thread on core 1 that initialises a Blobstore on the memory disk `Malloc0`,
//! and wants to go on, on core 0, when that is done (spdk/spdk#3237). Here is that program.
//!
//! Each step prints the thread and the core that really ran it, according to the kernel. With
//! `SPINDLE_ENGINE=sim:1` the same program runs in simulation, and prints the hash of its history.

use std::process::ExitCode;

use spindle::reactor::{Handle, RunError};
use spindle::{BlobOptions, Blobstore, InitOptions, IoBuf, Malloc, Runtime, Thread, current_cpu};

/// The error, if any.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Ends with the code of a stop if it was stopped: with 130 by Ctrl-C, as any program.
pub fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    RunError::exit_code_of(&*error).into()
}

/// Runs it on two reactors: on cores of their own where there are two.
pub fn run() -> Outcome {
    let runtime = Runtime::builder().reactors(2).build()?;
    let world = runtime.engine().world().cloned();
    runtime.run(story)??;
    if let Some(world) = world {
        println!("trace hash {:016x}", world.trace_hash());
    }
    Ok(())
}

/// The program itself.
async fn story() -> Outcome {
    step("start");
    let malloc0 = Malloc::new("Malloc0", 4096, 16384)?;
    let second_core = Handle::current().map_or(1, |runtime| runtime.cores()[1]);
    let worker = Thread::create("worker", second_core)?;

    let init = async move || {
        let store = Blobstore::init(malloc0, InitOptions::default()).await;
        step("initialise the Blobstore on Malloc0");
        store
    };
    let store = worker.run(init).await??;
    step("go on: the Blobstore is there");

    let id = store.create_blob(BlobOptions::thin(4)).await?;
    let blob = store.open_blob(id).await?;
    step("create and open a blob");
    let (written, _) = blob.write(0, IoBuf::copy_from(&[0x5A; 4096])).await;
    written?;
    let (read, buffers) = blob.read(0, IoBuf::zeroed(4096)).await;
    read?;
    assert_eq!(buffers.to_vec(), [0x5A; 4096], "what was written is read back");
    step("write it and read it back");

    blob.close().await?;
    store.unload().await?;
    step("unload");
    worker.exit();
    worker.joined().await;
    step("stop: the worker has exited");
    Ok(())
}

/// Prints the thread and the core that run this.
fn step(what: &str) {
    let thread = Thread::current().expect("a step runs on a Spindle thread");
    println!("core {} {:<10} {what}", current_cpu(), thread.name());
}
