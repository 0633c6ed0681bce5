//! Two runtimes in one process that share nothing but the handles of their threads.
//!
//! Everything hangs off its `Runtime`: cores, engine, mode, watchdog. Here one polls on epoll for the least
//! latency, and the other sleeps on the default engine; each calls the other, and a call looks like any call.

use std::process::ExitCode;

use spindle::reactor::{EngineKind, Handle, Mode, RunError};
use spindle::{Runtime, Thread};

/// The error, if any.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Ends with the code of a stop if the second runtime was stopped, which takes the signals.
pub fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    RunError::exit_code_of(&*error).into()
}

/// The first is started beside the program, the second runs main.
pub fn run() -> Outcome {
    let fast = Runtime::builder().reactors(1).engine(EngineKind::Epoll).mode(Mode::Poll).build()?.start()?;
    let calm = Runtime::builder().reactors(1).mode(Mode::Interrupt).build()?;
    let there = fast.handle().create_thread("fast", 0..1024)?;

    calm.run(async move || {
        let here = Thread::current().expect("main runs on the app thread");
        println!("{} calls", describe().await);
        let back = there.run(async move || {
            println!("{} and calls back", describe().await);
            here.run(async || describe().await).await
        });
        println!("{} was called back", back.await??);
        there.exit();
        there.joined().await;
        Ok(())
    })?
    // Here `fast` is dropped: what still runs there is dropped on its own thread, and its reactor ends.
}

/// The current thread, and how its runtime waits. Each runtime numbers its threads separately.
async fn describe() -> String {
    let (thread, runtime) = (Thread::current(), Handle::current());
    let (thread, runtime) = thread.zip(runtime).expect("on a Spindle thread");
    let mode = runtime.dump().await.reactors[0].mode;
    format!("thread {} ({}) of the runtime in {mode} mode", thread.id(), thread.name())
}
