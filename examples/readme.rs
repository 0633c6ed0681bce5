//! The program in the README; `tests/tidy.rs` holds the two equal.

use spindle::{Blobstore, InitOptions, Malloc, Runtime, Thread};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Runtime::builder().reactors(2).build()?.try_run(async || {
        let malloc0 = Malloc::of_bytes("Malloc0", 64 << 20)?;
        let worker = Thread::create("worker", 1)?;
        let init = async move || Blobstore::init(malloc0, InitOptions::default()).await;
        let store = worker.run(init).await??;
        // made there, awaited here: no flag, no polling loop, no lock left held
        store.unload().await?;
        Ok(())
    })
}
