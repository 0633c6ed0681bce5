use spindle::reactor::{Lock, LockGuard};

// The guard belongs to the call that made it.
fn leak(lock: &Lock<String>) -> LockGuard<'_, '_, String> {
    lock.with_guard(|guard| guard)
}

fn main() {}
