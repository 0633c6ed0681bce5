//! The program in the README; `tests/tidy.rs` holds the two equal.

use spindle::{Blobstore, InitOptions, Malloc, Runtime, Thread};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Runtime::builder().reactors(2).build()?.run(async || {
        let malloc0 = Malloc::new("Malloc0", 4096, 16384)?;
        let worker = Thread::create("worker", "[1]")?;
        let store =
            worker.run(async move || Blobstore::init(malloc0, InitOptions::default()).await).await??;
        // made there, awaited here: no flag, no polling loop, no lock left held
        store.unload().await?;
        Ok(())
    })?
}
