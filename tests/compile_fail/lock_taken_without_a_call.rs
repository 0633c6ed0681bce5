use spindle::reactor::Lock;

// There is no guard that could be kept, sent away, or returned.
fn take(lock: &Lock<u64>) -> u64 {
    let guard = lock.lock();
    *guard
}

fn main() {}
