use spindle::Thread;
use spindle::reactor::Poller;

async fn stop_there(worker: Thread, poller: Poller) {
    let _ = worker.run(async move || drop(poller)).await;
}

fn main() {}
