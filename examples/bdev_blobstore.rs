//! The program of spdk/spdk#3237 on a bdev: `Malloc0` has a name, the store claims it, and gets an event at
//! its end.
//!
//! A worker thread on the second core opens the bdev (SPDK: `spdk_bdev_create_bs_dev_ext`) and creates a
//! Blobstore on it. When the bdev is removed, the worker gets a message, unloads the store, and only then
//! releases the bdev.

use spindle::bdev::modules::malloc::{self, MallocSpec};
use spindle::bdev::{Event, Registry};
use spindle::reactor::{Handle, RunError};
use spindle::{BlobDevice, BlobOptions, Blobstore, InitOptions, IoBuf, Runtime, Thread, spawn_local};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// The error, if any.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Ends with the code of a stop if it was stopped.
pub fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    RunError::exit_code_of(&*error).into()
}

/// Runs it on two reactors.
pub fn run() -> Outcome {
    Runtime::builder().reactors(2).build()?.run(story)?
}

async fn story() -> Outcome {
    let registry = Registry::start()?;
    let name = Some("Malloc0".to_owned());
    let spec = MallocSpec { name, block_size: 4096, num_blocks: 16384, ..MallocSpec::default() };
    let bdev = malloc::create(&registry, spec).await?;
    step(&format!("{} is there: {}", bdev.name(), bdev.info().product_name));

    let second_core = Handle::current().map_or(1, |runtime| runtime.cores()[1]);
    let worker = Thread::create("worker", second_core)?;
    worker.run(work).await??;
    step(&format!("claimed by {}", bdev.info().claim.map_or_else(String::new, |claim| claim.holder)));

    registry.unregister(&bdev).await?;
    step("go on: the bdev is gone");
    worker.exit();
    worker.joined().await;
    Ok(())
}

/// Creates a store on the bdev, and handles its end.
async fn work() -> Outcome {
    let made = Arc::new(Mutex::new(None::<Blobstore>));
    let (opener, to_unload) = (Thread::current().expect("work runs on a thread"), made.clone());
    let on_event = move |event| match event {
        Event::Remove(grace) => {
            assert_eq!(
                Thread::current().as_ref(),
                Some(&opener),
                "the event arrives on the thread that opened the bdev"
            );
            step("told: Malloc0 is going");
            let store = to_unload.lock().expect("no panic poisons it").take();
            // A task of this thread: a handler does not wait.
            drop(spawn_local(async move {
                if let Some(store) = store {
                    step(&format!("unload the store: {:?}", store.unload().await));
                }
                drop(grace);
            }));
        }
        _ => step("told: Malloc0 has another size"),
    };
    let device = BlobDevice::open("Malloc0", on_event)?;
    let store = Blobstore::init(device, InitOptions::default()).await?;
    let blob = store.open_blob(store.create_blob(BlobOptions::thin(4)).await?).await?;
    let (written, _) = blob.write(0, IoBuf::copy_from(&[0x5A; 4096])).await;
    written?;
    blob.close().await?;
    step("a Blobstore on Malloc0, and a blob in it");

    *made.lock().expect("no panic poisons it") = Some(store);
    Ok(())
}

/// Prints on which thread this runs.
fn step(what: &str) {
    let thread = Thread::current().expect("a step runs on a Spindle thread");
    println!("{:<10} {what}", thread.name());
}
