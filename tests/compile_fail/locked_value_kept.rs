use spindle::reactor::Lock;

// What a lock protects cannot be put aside within the call.
fn keep(lock: &Lock<String>) -> usize {
    let mut kept = None;
    lock.with(|value| kept = Some(value));
    kept.map_or(0, |value| value.len())
}

fn main() {}
