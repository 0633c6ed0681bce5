use std::time::Duration;

use spindle::reactor::{Lock, sleep};

// SPDK's spinlock error 7: the thread goes off the CPU with the lock held.
async fn in_an_async_closure(lock: &Lock<u64>) {
    let slow = lock.with(async |value| {
        sleep(Duration::from_secs(1)).await;
        *value += 1;
    });
    slow.await;
}

async fn in_an_async_block(lock: &Lock<u64>) {
    let slow = lock.with(|value| async move {
        sleep(Duration::from_secs(1)).await;
        *value += 1;
    });
    slow.await;
}

async fn in_the_call(lock: &Lock<u64>) {
    lock.with(|value| {
        sleep(Duration::from_secs(1)).await;
        *value += 1;
    });
}

fn main() {}
