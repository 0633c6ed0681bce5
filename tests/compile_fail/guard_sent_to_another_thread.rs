use spindle::Thread;
use spindle::reactor::{Lock, LockGuard};

// Only the thread that took a lock can let it go.
async fn unlock_there(worker: Thread, lock: &'static Lock<u64>) {
    let guard: LockGuard<'static, u64> = lock.lock();
    let _ = worker.run(async move || drop(guard)).await;
}

fn main() {}
