use spindle::Thread;

// spdk/spdk#3237: core 0 polls a thread that lives on core 1.
async fn wait_for(worker: Thread) {
    loop {
        worker.poll();
    }
}

fn main() {}
