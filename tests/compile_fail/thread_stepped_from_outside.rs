use spindle::Thread;
use spindle::reactor::ThreadRunner;

// Only the runner can be stepped, and a handle gives none.
async fn wait_for(worker: Thread) {
    let mut runner: ThreadRunner = worker.into();
    runner.step();
}

fn main() {}
