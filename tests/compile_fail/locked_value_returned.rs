use spindle::reactor::Lock;

// What a lock protects cannot leave the call that holds it.
fn leak(lock: &Lock<String>) -> &mut String {
    lock.with(|value| value)
}

fn main() {}
