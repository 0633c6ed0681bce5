//! Spindle inside a tokio program: tokio keeps `main`, Spindle keeps the storage.
//!
//! A `Runtime` that is started beside another program has its own reactors. Tokio tasks call its threads
//! like anything else that is awaited: the called future runs on the Spindle thread, the result arrives in
//! the task. Values that belong to a thread (a block channel) stay there; values that are sent are `Send`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle::{Channel, IoBuf, Malloc, Runtime, Thread};

/// The error, if any.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const BLOCK: usize = 4096;

/// A tokio program with more than one worker, like most.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub async fn main() -> Outcome {
    // The engine is chosen by SPINDLE_ENGINE; signals stay tokio's.
    let storage = Runtime::builder().reactors(1).build()?.start()?;
    let thread = storage.handle().create_thread("storage", 0..1024)?;
    let disk = Malloc::new("Malloc0", BLOCK as u32, 64)?;

    // Each tokio task writes one block, at the same time as the others.
    let tasks: Vec<_> = (0..8u8)
        .map(|number| {
            let (thread, disk) = (thread.clone(), disk.clone());
            tokio::spawn(async move { write_and_read_back(&thread, disk, number).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("8 tokio tasks wrote a block each, and read it back");

    // A message needs no answer. Those of one sender are called in the order they were sent.
    let (heard, hears) = (Arc::new(AtomicUsize::new(0)), thread.clone());
    let counts = heard.clone();
    let sender = tokio::spawn(async move {
        for number in 0..100 {
            let counts = counts.clone();
            hears.send_msg(move || {
                let before = counts.fetch_add(1, Ordering::Relaxed);
                assert_eq!(before, number, "in order");
            })?;
        }
        // A call comes after the messages that went before it.
        hears.run(async || ()).await?;
        Outcome::Ok(())
    });
    sender.await??;
    println!("{} messages of a tokio task arrived in order", heard.load(Ordering::Relaxed));

    // A dropped task cancels its call: the future is dropped on the Spindle thread.
    let patient = tokio::spawn({
        let thread = thread.clone();
        async move { thread.run(std::future::pending::<()>).await }
    });
    patient.abort();
    println!("given up: {}", patient.await.is_err_and(|error| error.is_cancelled()));

    // In order: the thread ends when nothing is left on it, then the reactors do. Dropping `storage` waits
    // for them, so it must not happen on a tokio worker that others need.
    thread.exit();
    thread.joined().await;
    tokio::task::spawn_blocking(move || drop(storage)).await?;
    println!("stopped in order");
    Ok(())
}

/// Called on a tokio worker; the closure runs on the Spindle thread.
async fn write_and_read_back(thread: &Thread, disk: Arc<Malloc>, number: u8) -> Outcome {
    let read = thread.run(async move || {
        let channel = Channel::open(disk)?;
        let offset = u64::from(number) * BLOCK as u64;
        channel.write(offset, IoBuf::copy_from(&[number; BLOCK])).await.0?;
        let (read, buffers) = channel.read(offset, IoBuf::zeroed(BLOCK)).await;
        read?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(buffers.to_vec())
    });
    assert_eq!(read.await??, [number; BLOCK]);
    Ok(())
}
