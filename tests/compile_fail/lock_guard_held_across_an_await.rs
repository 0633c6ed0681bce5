use std::time::Duration;

use spindle::reactor::{Lock, sleep};

// SPDK's spinlock error 7: the thread goes off the CPU with the guard in hand.
async fn in_an_async_block(lock: &Lock<u64>) {
    let slow = lock.with_guard(|mut guard| async move {
        sleep(Duration::from_secs(1)).await;
        *guard += 1;
    });
    slow.await;
}

async fn in_an_async_closure(lock: &Lock<u64>) {
    let slow = lock.with_guard(async |mut guard| {
        sleep(Duration::from_secs(1)).await;
        *guard += 1;
    });
    slow.await;
}

fn main() {}
